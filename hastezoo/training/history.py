"""What a run's folder tells of it: settings, losses, looks at gradients and alignment, typed. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hastezoo.errors import UserError, explain

NOT_LOSSES = {"step", "grad_norm", "lr", "seconds"}
TOTAL = "loss"  # its name in metrics.jsonl
DENOISING, FEATURE, ATTENTION = "denoising", "feature", "attention"

Series = tuple[list[int], list[float]]  # steps, values
Kind = TypeVar("Kind", bound="_Line")


class _Record(BaseModel):
    """Reads what it knows and lets the rest be: another version's run, or another recipe's, can be drawn too."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TerminationSettings(_Record):
    """See `TerminationConfig`."""

    kind: str
    step: int | None = None
    start: int
    threshold: float


class AlignmentSettings(_Record):
    """See `AlignmentConfig`."""

    feature_weight: float
    attention_weight: float
    feature_layer: int
    termination: TerminationSettings


class TrainSettings(_Record):
    """See `TrainConfig`."""

    steps: int
    log_every: int
    diagnose_every: int = 0


class Settings(_Record):
    """What of config.json a picture needs."""

    train: TrainSettings
    alignment: AlignmentSettings | None = None


class _Line(_Record):
    step: int


class Metrics(_Line):
    """A line of metrics.jsonl: means since the last. Losses stand there by name, and one may be absent."""

    model_config = ConfigDict(extra="allow", frozen=True)

    loss: float

    @property
    def losses(self) -> dict[str, float]:
        """Every loss by name, before its weight; `loss` is their weighted sum."""
        return {name: value for name, value in self if name not in NOT_LOSSES and isinstance(value, float | int)}


class Look(_Line):
    """Cosines of the gradients of alignment and denoising, one a time."""

    times: tuple[float, ...] = ()
    cosines: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _paired(self) -> Look:
        if len(self.times) != len(self.cosines):
            raise ValueError(f"{len(self.times)} times do not go with {len(self.cosines)} cosines")
        return self

    @property
    def mean(self) -> float:
        return sum(self.cosines) / len(self.cosines)


class Event(Look):
    """A line of alignment.jsonl: a look of the trigger, or the end."""

    ended: bool = False


class Diagnosis(Look):
    """A line of diagnostics.jsonl: what the probe saw.

    Attributes:
        t: How noisy the student's input was.
        cknna: After each block, from the first.
        attention_kl: By pair, `student<-teacher`, blocks counted from 0.
    """

    t: float | None = None
    cknna: tuple[float, ...] = ()
    attention_kl: dict[str, float] = {}


@dataclass(frozen=True)
class History:
    """A run, so far as it went.

    Attributes:
        name: The folder's, or as much of its path as tells it from others.
    """

    name: str
    folder: Path
    settings: Settings
    metrics: tuple[Metrics, ...]
    events: tuple[Event, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()

    @property
    def step(self) -> int:
        """The last that anything was recorded of."""
        lines: list[_Line] = [*self.metrics, *self.events, *self.diagnoses]
        return max(line.step for line in lines)

    @property
    def ended_at(self) -> int | None:
        """The step after which alignment ended."""
        return next((event.step for event in self.events if event.ended), None)

    @cached_property
    def looks(self) -> list[Look]:
        """The trigger's looks and the probe's, in order; where both looked, the trigger's counts."""
        seen = {look.step: look for look in (*self.diagnoses, *self.events) if look.cosines}
        return [seen[step] for step in sorted(seen)]

    @cached_property
    def losses(self) -> dict[str, Series]:
        """Each loss by name, where it was taken."""
        series: dict[str, Series] = {}
        for line in self.metrics:
            for name, value in line.losses.items():
                steps, values = series.setdefault(name, ([], []))
                steps.append(line.step)
                values.append(value)
        return series

    @property
    def mean_cosine(self) -> Series:
        return [look.step for look in self.looks], [look.mean for look in self.looks]

    @property
    def cosines(self) -> dict[float, Series]:
        """By t."""
        return _by_key([(look.step, dict(zip(look.times, look.cosines, strict=True))) for look in self.looks])

    @property
    def cknna(self) -> dict[int, Series]:
        """By block, the first being 1."""
        return _by_key([(seen.step, dict(enumerate(seen.cknna, 1))) for seen in self.diagnoses])

    @property
    def attention_kl(self) -> dict[str, Series]:
        """By pair."""
        return _by_key([(seen.step, seen.attention_kl) for seen in self.diagnoses])

    @property
    def mean_kl(self) -> Series:
        """Over the pairs."""
        seen = [(line.step, list(line.attention_kl.values())) for line in self.diagnoses if line.attention_kl]
        return [step for step, _ in seen], [sum(values) / len(values) for _, values in seen]


Key = TypeVar("Key")


def _by_key(rows: list[tuple[int, dict[Key, float]]]) -> dict[Key, Series]:
    series: dict[Key, Series] = {}
    for step, values in rows:
        for key, value in values.items():
            steps, column = series.setdefault(key, ([], []))
            steps.append(step)
            column.append(value)
    return series


def read_histories(folders: Iterable[Path]) -> list[History]:
    """Several runs, each once, named so that no two names are equal."""
    unique = list({Path(os.path.abspath(folder)): folder for folder in folders}.items())
    depth = 1
    while len({_tail(whole, depth) for whole, _ in unique}) < len(unique):
        depth += 1
    return [read_history(folder, _tail(whole, depth)) for whole, folder in unique]


def _tail(path: Path, depth: int) -> str:
    return "/".join(path.parts[-depth:])


def read_history(folder: Path, name: str = "") -> History:
    """Read a run that is finished, still going on, or was killed.

    Raises:
        UserError: If the folder holds no run, nothing was recorded yet, or a file cannot be read.
    """
    if not folder.is_dir():
        what = "is a file, not a run's folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; give the folder that a recipe trained into")
    settings = _read_settings(folder / "config.json")
    history = History(
        name or Path(os.path.abspath(folder)).name,
        folder,
        settings,
        tuple(_read_lines(folder / "metrics.jsonl", Metrics)),
        tuple(_read_lines(folder / "alignment.jsonl", Event)),
        tuple(_read_lines(folder / "diagnostics.jsonl", Diagnosis)),
    )
    if not history.metrics:
        first = settings.train.log_every
        raise UserError(f"{folder / 'metrics.jsonl'} has no line yet; a run writes the first at step {first}")
    return history


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _read_settings(path: Path) -> Settings:
    if not path.exists():
        raise UserError(
            f"{path.parent} holds no run: it has no config.json; give the folder that a recipe trained into"
        )
    try:
        return Settings.model_validate(json.loads(_read(path)))
    except ValidationError as error:
        raise UserError(explain(error, Settings, f"{path} is no run's")) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}; mend it, or leave this run out") from None


def _read_lines(path: Path, kind: type[Kind]) -> list[Kind]:
    """One record a line; a last line without its end is passed over, being cut by a kill or still written."""
    if not path.exists():
        return []
    lines = _read(path).split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(kind.model_validate(json.loads(line)))
        except ValidationError as error:
            raise UserError(explain(error, kind, f"{path} line {number}")) from None
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path} line {number} is not valid JSON; remove that line to go on without it") from None
    return records
