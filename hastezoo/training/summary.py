"""How a run went, in numbers and words: the last of everything, and why something is missing. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hastezoo.training.history import ATTENTION, FEATURE, TOTAL, Diagnosis, History, Series

NO_ALIGNMENT = "the run's setting alignment is null"


@dataclass(frozen=True)
class Reading:
    """A number and the step it is of; None where it was not finite."""

    step: int
    value: float | None


@dataclass(frozen=True)
class BlockReading(Reading):
    """Of one block, the first being 1."""

    block: int


@dataclass(frozen=True)
class Summary:
    """How a run went, in numbers.

    Attributes:
        step, planned: Steps done, and to do in all.
        losses: The last of each.
        ended_at: The step after which alignment ended, or None.
        termination: The kind of its end, or None without alignment.
        alignment: What became of it, in words.
        mean_cosine: The last.
        best_cknna: The block nearest to the teacher at the last look.
        missing: What was not recorded, and what would have recorded it.
    """

    name: str
    folder: str
    step: int
    planned: int
    losses: dict[str, Reading]
    ended_at: int | None
    termination: str | None
    alignment: str
    mean_cosine: Reading | None
    best_cknna: BlockReading | None
    missing: dict[str, str] = field(default_factory=dict)


def summarise(history: History) -> Summary:
    """The last of everything."""
    alignment = history.settings.alignment
    losses = {name: _last(series) for name, series in history.losses.items()}
    return Summary(
        name=history.name,
        folder=str(history.folder),
        step=history.step,
        planned=history.settings.train.steps,
        losses={**{name: reading for name, reading in losses.items() if name != TOTAL}, TOTAL: losses[TOTAL]},
        ended_at=history.ended_at,
        termination=alignment.termination.kind if alignment else None,
        alignment=fate(history),
        mean_cosine=_last(history.mean_cosine) if history.looks else None,
        best_cknna=_best_block(history.diagnoses),
        missing=missing(history),
    )


def _last(series: Series) -> Reading:
    return Reading(series[0][-1], _finite(series[1][-1]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _best_block(diagnoses: tuple[Diagnosis, ...]) -> BlockReading | None:
    for seen in reversed(diagnoses):
        known = [(value, block) for block, value in enumerate(seen.cknna, 1) if math.isfinite(value)]
        if known:
            value, block = max(known)
            return BlockReading(seen.step, value, block)
    return None


def fate(history: History) -> str:
    """When a run's alignment ended and why, or when it will."""
    if history.settings.alignment is None:
        return "none"
    termination, ended = history.settings.alignment.termination, history.ended_at
    if termination.kind == "step":
        return f"ended after step {ended:,}, as set" if ended is not None else f"on until step {termination.step:,}"
    if termination.kind == "gradient":
        if ended is None:
            return f"on until the mean cosine is below {termination.threshold:g}"
        cosine = next((f" {look.mean:.3g}" for look in history.events if look.cosines and look.step == ended), "")
        return f"ended after step {ended:,}: mean cosine{cosine} below {termination.threshold:g}"
    return f"ended after step {ended:,}" if ended is not None else f"never ends (kind {termination.kind})"


def missing(history: History) -> dict[str, str]:
    """What this run has no record of, and which setting would have recorded it."""
    found = {}
    for name in (FEATURE, ATTENTION):
        if name not in history.losses:
            found[f"{name} loss"] = _no_loss(history, name)
    if not history.looks:
        found["gradient cosine"] = _no_cosine(history)
    if not history.cknna:
        found["CKNNA"] = _no_probe(history)
    if not history.attention_kl:
        found["attention KL"] = "alignment.attention_pairs names no pair" if history.cknna else _no_probe(history)
    return found


def _no_loss(history: History, name: str) -> str:
    alignment, first = history.settings.alignment, history.metrics[0].step
    if alignment is None:
        return NO_ALIGNMENT
    if not getattr(alignment, f"{name}_weight"):
        return f"alignment.{name}_weight is 0"
    if history.ended_at is not None:
        return f"alignment ended at step {history.ended_at}, and metrics.jsonl begins at step {first}"
    return "none in metrics.jsonl"


def _no_cosine(history: History) -> str:
    alignment = history.settings.alignment
    if alignment is None:
        return NO_ALIGNMENT
    if history.ended_at is not None:
        return f"alignment ended at step {history.ended_at}, before anything looked"
    if alignment.termination.kind == "gradient":
        return f"the first look is at alignment.termination.start = {alignment.termination.start}"
    return _no_probe(history, " (or alignment.termination.kind=gradient)")


def _no_probe(history: History, or_else: str = "") -> str:
    every = history.settings.train.diagnose_every
    if not every:
        return f"set train.diagnose_every{or_else} to look every so many steps"
    if history.step < every:
        return f"the first look is at train.diagnose_every = {every}"
    return f"nothing was recorded, though train.diagnose_every is {every}"
