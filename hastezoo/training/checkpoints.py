"""Checkpoints of a run: written atomically, kept to the last few, read without unpickling code."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from hastezoo.files import atomic_open, remove_partials


class Checkpoints:
    """A folder of `step-00001000.pt`.

    Args:
        folder: Made when first written to.
        keep: How many to keep; older ones are removed after a new one is safe.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write a state of tensors and plain values."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.pt"
        with atomic_open(path) as stream:
            torch.save(state, stream)
        for old in self.paths()[self.keep :]:
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
