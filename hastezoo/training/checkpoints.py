"""Checkpoints of a run: written atomically, kept to the last few, read without unpickling code."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from hastezoo.errors import UserError
from hastezoo.files import atomic_open, atomic_write, remove_partials


class Checkpoints:
    """A folder of `step-00001000.pt`.

    Args:
        folder: Made when first written to.
        keep: How many to keep; older ones are removed after a new one is safe.
        keep_at: Steps whose checkpoints are not removed.
        milestone_every: Nor are those of its multiples; 0 for none.
    """

    def __init__(self, folder: Path, keep: int = 2, keep_at: Collection[int] = (), milestone_every: int = 0) -> None:
        self.folder, self.keep, self.keep_at, self.milestone_every = folder, keep, keep_at, milestone_every

    def is_milestone(self, step: int) -> bool:
        """Whether the checkpoint of a step stays."""
        return step in self.keep_at or (self.milestone_every > 0 and step % self.milestone_every == 0)

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of a step is, if there is one."""
        return self.folder / f"step-{step:08d}.pt"

    def paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a state of tensors and plain values."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path_of(step)
        with atomic_open(path) as stream:
            torch.save(state, stream)
        passing = [path for path in self.paths() if not self.is_milestone(int(path.stem.removeprefix("step-")))]
        for old in passing[self.keep :]:
            old.unlink()
        return path

    def load_latest(self) -> dict[str, Any] | None:
        """The newest state that can be read, on the CPU; None if there is none. A broken one is passed over, loudly."""
        if self.folder.is_dir():
            remove_partials(self.folder)
        for path in self.paths():
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
                reason = " ".join(str(error).split())[:120]
                warnings.warn(f"checkpoint {path} cannot be read ({reason}); trying the one before", stacklevel=2)
        return None


def fork(checkpoint: Path, out: Path) -> None:
    """Let a new run in `out` go on from another run's checkpoint; nothing happens if it has one of its own.

    Raises:
        UserError: If there is no such checkpoint.
    """
    folder = out / "checkpoints"
    if Checkpoints(folder).paths():
        return
    check_origin(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / checkpoint.name, checkpoint.read_bytes())


def check_origin(checkpoint: Path) -> None:
    """Raise UserError if that is no checkpoint to fork from."""
    if not re.fullmatch(r"step-\d{8}\.pt", checkpoint.name) or not checkpoint.is_file():
        raise UserError(f"{checkpoint} is no checkpoint of a run; name one such as RUN/checkpoints/step-00000500.pt")
