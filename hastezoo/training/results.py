"""What a run measured of itself, as the results of a card."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

from hastezoo.training.history import DENOISING, TOTAL, Metrics
from hastezoo.training.record import read_json
from hastezoo.zoo.card import Result
from hastezoo.zoo.metrics import FLOAT32, KEYS, metric_name
from hastezoo.zoo.overrides import overridden, setting


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Value(_Record):
    value: float | None = None
    error: float | None = None


class _Reference(_Record):
    name: str = ""


class _Conditions(_Record):
    protocol: str | None = None
    sampling: dict[str, Any] | None = None
    labels: Literal["random", "balanced"] | None = None
    count: int | None = None
    step: int | None = None
    features: str = "inception"
    reference: _Reference | None = None


class _Evaluation(_Record):
    """A file of `RUN/evaluations`. `settings.step` says of which weights; without it, of the run's newest average."""

    metrics: dict[str, _Value | None]
    settings: _Conditions = _Conditions()


def seconds(lines: list[Metrics]) -> float | None:
    """Time of all starts together: the clock in metrics.jsonl begins at 0 whenever the run goes on."""
    times = [float(line.model_extra["seconds"]) for line in lines if line.model_extra and "seconds" in line.model_extra]
    if not times:
        return None
    return round(sum(before for before, after in pairwise([*times, 0.0]) if after < before), 2)


def losses(lines: list[Metrics]) -> list[Result]:
    """The last logged denoising loss and, where there were other terms, the weighted sum."""
    if not lines:
        return []
    last, before = lines[-1], lines[-2].step if len(lines) > 1 else 0
    several = len(last.losses) > 2 or DENOISING not in last.losses
    note = f"of training: mean over the last {last.step - before:,} steps at most, at step {last.step:,}"
    return [
        Result(
            metric=f"{word} loss", value=last.losses[key], kind="measured", source="metrics.jsonl of the run", note=note
        )
        for key, word in ((DENOISING, "denoising"), *([(TOTAL, "total")] * several))
        if math.isfinite(last.losses.get(key, math.nan))
    ]


def evaluated(run: Path, step: int | None, *, newest: bool) -> list[Result]:
    """What was measured of these very weights, by metric, and where several evaluations did, by the file's name.

    Args:
        run: Its folder.
        step: Of the average; None for weights that no evaluation is of.
        newest: Whether it is the newest, which an evaluation without a step is of.
    """
    found = []
    for path in sorted((run / "evaluations").glob("*.json")):
        evaluation = read_json(path, _Evaluation)
        if not _is_of(evaluation.settings, step, newest):
            warnings.warn(f"{path} is not of the weights that are exported, and left out", stacklevel=2)
            continue
        known = {name.lower(): one for name, one in evaluation.metrics.items() if one is not None}
        # The same precision and recall by exact distances: nobody publishes it.
        known = {name: one for name, one in known.items() if not name.endswith(FLOAT32)}
        found += [(name, path.name, one, evaluation.settings) for name, one in known.items()]
    found.sort(key=lambda one: KEYS.index(one[0]) if one[0] in KEYS else len(KEYS))
    return [_result(*one) for one in found if one[2].value is not None and math.isfinite(one[2].value)]


def _result(name: str, file: str, one: _Value, settings: _Conditions) -> Result:
    """A metric as a card has it, told by its features: a distance of pixels is no FID."""
    changed = overridden(settings.sampling, settings.protocol)
    notes = [f"with {', '.join(setting(key, value) for key, value in changed.items())}"] if changed else []
    notes += [] if one.error is None else [f"error {one.error:g}"]
    assert one.value is not None
    return Result(
        metric=metric_name(name, settings.features),
        value=one.value,
        kind="measured",
        source=f"evaluations/{file} of the run",
        # TOML has no null, so that a card cannot say of a setting that it was unset; then it names no protocol.
        protocol="" if None in changed.values() else settings.protocol or "",
        overrides={} if None in changed.values() else changed,
        count=settings.count,
        note="; ".join(notes),
        key=cast(Any, name if name in KEYS else ""),
        features=settings.features if name in KEYS else "",
        reference=settings.reference.name if settings.reference else "",
        labels=settings.labels or "",
    )


def _is_of(settings: _Conditions, step: int | None, newest: bool) -> bool:
    if step is None:
        return False
    return newest if settings.step is None else settings.step == step
