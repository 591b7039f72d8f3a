"""What `hastezoo sample` is asked for, as options -> a request: seeds, classes or prompts, settings."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.cli.options import overrides
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.conditioning.conditions import Conditions, Prompts
    from hastezoo.pipeline import Pipeline
    from hastezoo.request import Request
    from hastezoo.zoo.card import Card

MOST_SEEDS = 10_000_000
LARGEST_SEED = 2**63 - 1
NOTES = 5  # on prompts, shown


def parse_seeds(text: str) -> list[int]:
    """The seeds that a text such as 0-15,40 lists.

    Raises:
        UserError: If the text is something else, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--seeds {text!r}: {part.strip()!r} is no seed (0, 1, ...) or range; write 0-15,40")
        start, stop = int(first), int(last or first)
        if stop < start or stop - start >= MOST_SEEDS or stop > LARGEST_SEED:
            raise UserError(f"--seeds {text!r}: the range {part.strip()!r} is empty, too long or too large")
        seeds += range(start, stop + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text!r} names a seed twice")
    return seeds


def read_seeds(options: dict[str, Any]) -> list[int]:
    """The seeds that --seeds lists, or -n and --seed count.

    Raises:
        UserError: If both are given, or one is out of range.
    """
    if options["seeds"] is not None:
        if options["number"] is not None or options["seed"] is not None:
            raise UserError("--seeds lists the images itself; leave out -n and --seed")
        return parse_seeds(options["seeds"])
    first, number = options["seed"] or 0, options["number"] if options["number"] is not None else 1
    if not 0 <= first <= LARGEST_SEED - MOST_SEEDS:
        raise UserError(f"--seed must be at least 0 and below 2**63 - {MOST_SEEDS}, not {first}")
    if not 1 <= number <= MOST_SEEDS:
        raise UserError(f"-n must be in 1..{MOST_SEEDS}, not {number}")
    return list(range(first, first + number))


def check_asked(card: Card, options: dict[str, Any]) -> list[str]:
    """What to draw fits the model; the prompts, cleaned and each once.

    Raises:
        UserError: If classes are asked of a model of text or the other way round, or there is no prompt.
    """
    from hastezoo.conditioning.prompts import clean, read_prompts, shown

    given = [name for name in ("prompt", "prompts", "negative") if options[name] not in (None, ())]
    if card.text is None:
        if given:
            raise UserError(f"{card.name} draws classes, not text: leave out --{given[0]}, and name one with --class")
        return []
    if options["classes"]:
        raise UserError(f"{card.name} draws from text: leave out --class, and say what to draw with --prompt")
    if options["prompt"] and options["prompts"] is not None:
        raise UserError("--prompts lists the prompts itself; leave out --prompt")
    file = options["prompts"]
    every = [clean(one) for one in options["prompt"]] if file is None else read_prompts(file)
    if not every:
        raise UserError(f'{card.name} draws from text: say what with --prompt "a red bus", or --prompts FILE')
    counts = Counter(every)
    if len(counts) < len(every):
        (again, _), *_ = counts.most_common(1)
        text = f"prompts that are repeated are drawn once ({len(every) - len(counts)} more, such as {shown(again)})"
        warnings.warn(text, stacklevel=2)
    return list(counts)


def make_request(options: dict[str, Any], seeds: list[int], prompts: list[str], pipeline: Pipeline) -> Request:
    """Conditions x seeds: each class or prompt in the order given, drawn with every seed."""
    from hastezoo.conditioning.conditions import Prompts
    from hastezoo.request import Request

    conditions = pipeline.conditions
    protocol = pipeline.protocol(options["protocol"], **overrides(options))
    labels = _labels(options["classes"], seeds, prompts, conditions)
    asked = max(1, len(labels) // len(seeds))
    text: dict[str, Any] = {}
    if isinstance(conditions, Prompts):
        encoder, negative = conditions.encoder, clean_negative(options["negative"])
        _say_notes([*prompts, *([negative] if negative else [])], conditions)
        text = {"text_encoder": encoder.source, "text_encoder_sha256": encoder.sha256, "negative": negative}
    return Request(
        model=options["model"],
        weights=_settled(options["weights"]),
        weights_sha256=pipeline.weights_sha256,
        vae=pipeline.autoencoder.source or None,
        vae_sha256=pipeline.autoencoder.sha256,
        vae_tiling=options["vae_tiling"],
        **text,
        protocol=protocol,
        prompts=prompts,
        labels=labels,
        seeds=seeds * asked,
        conditions=asked,
        batch_size=pipeline.batch_size(options["batch_size"]),
        device=str(pipeline.device),
        dtype=options["dtype"],
        compile=options["compile"],
        format=options["format"],
    )


def clean_negative(text: str | None) -> str:
    """The negative prompt; the empty one where there is none."""
    from hastezoo.conditioning.prompts import clean

    return clean(text or "")


def _labels(asked: tuple[str, ...], seeds: list[int], prompts: list[str], conditions: Conditions) -> list[int]:
    """The label, or the number of the prompt, of every image.

    Raises:
        UserError: If a class is unknown, or named twice.
    """
    from hastezoo.conditioning.conditions import Labels
    from hastezoo.conditioning.labels import find_label

    if not isinstance(conditions, Labels):
        return [number for number in range(len(prompts)) for _ in seeds]
    classes = [find_label(one, conditions.names) for one in asked]
    if len(set(classes)) < len(classes):
        raise UserError(f"--class names class {max(classes, key=classes.count)} twice")
    return [label for label in classes for _ in seeds] or conditions.read(None, seeds)


def _say_notes(prompts: list[str], conditions: Prompts) -> None:
    """What to know of some prompts, such as that they are cut; of a long list of the first few."""
    from hastezoo.conditioning.prompts import shown

    said = [f"{shown(prompt)}: {note}" for prompt in prompts for note in conditions.encoder.notes(prompt)]
    for note in said[:NOTES]:
        warnings.warn(note, stacklevel=2)
    if len(said) > NOTES:
        warnings.warn(f"{len(said) - NOTES} more notes on prompts are not shown", stacklevel=2)


def _settled(weights: str | None) -> str | None:
    """A file by its absolute path, so that another working directory finds it; a place on the Hub as it is."""
    return weights if weights is None or weights.startswith("hub:") else str(Path(weights).resolve())
