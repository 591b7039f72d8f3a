"""Two or more results side by side: by how much they differ, in what, and what forbids to compare them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hastezoo.evaluation.results.figures import SIGMAS
from hastezoo.evaluation.results.result import EvaluationResult
from hastezoo.evaluation.results.settings import CIRCUMSTANCES, Settings
from hastezoo.zoo.metrics import KEYS
from hastezoo.zoo.overrides import differing, read_protocol, words

# What moves numbers beside the features, the reference and the protocol.
MOVING: dict[str, Callable[[Settings], Any]] = {
    "samples": lambda settings: settings.count,
    "labels": lambda settings: settings.labels,
    "prompts": lambda settings: (settings.prompts or {}).get("sha256", "")[:12],
    "text encoder": lambda settings: (settings.text_encoder_sha256 or settings.text_encoder or "")[:12],
    "rounding": lambda settings: settings.rounding or (settings.sampling or {}).get("rounding"),
    "resolution": lambda settings: settings.resolution,
    "autoencoder": lambda settings: (settings.vae_sha256 or settings.vae or "")[:12],
    "lossy format": lambda settings: bool(settings.lossy),
    "order for the Inception Score": lambda settings: settings.order,
}


@dataclass(frozen=True)
class Difference:
    """Of a metric, from the first result.

    Attributes:
        value: The other less the first.
        error: Of both together, as of independent samples; None where one of them is not known.
        beyond_noise: Whether it is more than two such errors; None where there is none.
    """

    value: float
    error: float | None
    beyond_noise: bool | None


@dataclass
class Comparison:
    """What results have to do with each other.

    Attributes:
        names: Of the results, in their order.
        results: As they were read.
        metrics: Keys of the metrics that any of them has.
        differences: By metric, one for each result after the first; None where there is nothing to subtract.
        reasons: Settings that move numbers and differ: why it is not the models alone that are compared.
        settings: Other settings that differ, by name, with a value for each result; those of `reasons` too.
        circumstances: What differs and merely describes the work.
    """

    names: list[str]
    results: list[EvaluationResult]
    metrics: list[str] = field(default_factory=list)
    differences: dict[str, list[Difference | None]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    settings: dict[str, list[Any]] = field(default_factory=dict)
    circumstances: dict[str, list[Any]] = field(default_factory=dict)


def compare(results: Sequence[EvaluationResult], names: Sequence[str]) -> Comparison:
    """Hold results against the first of them.

    Args:
        results: At least two.
        names: What to call them.
    """
    first, *others = results
    comparison = Comparison(list(names), list(results))
    have = dict.fromkeys(key for result in results for key in result.metrics)
    comparison.metrics = [key for key in KEYS if key in have] + [key for key in have if key not in KEYS]
    for key in comparison.metrics:
        comparison.differences[key] = [_difference(key, first, other) for other in others]
    for other, name in zip(others, comparison.names[1:], strict=True):
        comparison.reasons += [
            reason if len(others) == 1 else f"{name}: {reason}" for reason in _reasons(first.settings, other.settings)
        ]
    for key, values in _differing(results).items():
        group = comparison.circumstances if key.partition(".")[0] in CIRCUMSTANCES else comparison.settings
        group[key] = values
    return comparison


def _difference(key: str, a: EvaluationResult, b: EvaluationResult) -> Difference | None:
    """None where the features differ: their distances have nothing to do with each other."""
    left, right = a.metrics.get(key), b.metrics.get(key)
    if a.settings.features != b.settings.features or left is None or right is None:
        return None
    if left.value is None or right.value is None:
        return None
    value = right.value - left.value
    if left.error is None or right.error is None:
        return Difference(value, None, None)
    error = math.hypot(left.error, right.error)
    return Difference(value, error, abs(value) > SIGMAS * error)


def _reasons(a: Settings, b: Settings) -> Iterator[str]:
    if a.features != b.features:
        yield f"features {a.features} and {b.features}"
    elif a.extractor != b.extractor:
        yield "other weights of the network that sees the images"
    yield from _references(a, b)
    for what, value in MOVING.items():
        if value(a) != value(b):
            yield f"{what} {_said(value(a))} and {_said(value(b))}"
    yield from _drawing(a, b)


def _references(a: Settings, b: Settings) -> Iterator[str]:
    left, right = a.reference, b.reference
    if left is None or right is None:
        if left is not right:
            yield "a reference that is not recorded"
    elif (left.name, left.identity) != (right.name, right.identity):
        same = left.name == right.name
        yield f"two references {left.name}" if same else f"references {left.name} and {right.name}"
    elif left.features_count != right.features_count:
        counts = f"{_said(left.features_count)} and {_said(right.features_count)}"
        yield f"for precision and recall, {counts} images of the reference"


def _drawing(a: Settings, b: Settings) -> Iterator[str]:
    left, right = read_protocol(a.sampling), read_protocol(b.sampling)
    if left is None or right is None:
        # Of two lots of existing images, neither with a record, nobody knows.
        yield "how the samples were drawn is not recorded"
        return
    # Whatever the path of the models: forms of the diffusion that agree on the linear one count as two here.
    changed = differing(left, right, path="")
    apart = [f"{key} {words(x)} and {words(y)}" for key, (x, y) in changed.items() if key != "rounding"]
    if apart:
        protocols = f" ({a.protocol} and {b.protocol})" if a.protocol != b.protocol else ""
        yield f"protocols{protocols} with {', '.join(apart)}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _differing(results: Sequence[EvaluationResult]) -> dict[str, list[Any]]:
    """Every setting, also inside others, that is not the same in all results."""
    flat = [dict(_flat(result.settings.model_dump(mode="json"))) for result in results]
    if all(result.settings.samples is None for result in results):  # then it repeats the other settings
        flat = [{key: one for key, one in own.items() if not key.startswith("samples_identity")} for own in flat]
    keys = dict.fromkeys(key for own in flat for key in own)
    found = {key: [own.get(key) for own in flat] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values[1:])}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
