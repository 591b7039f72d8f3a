"""A checkpoint in one file: written by the main process, whole or not at all, read without unpickling code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from hastezoo.errors import UserError
from hastezoo.files import atomic_open
from hastezoo.training.state import State

SUFFIX = ".pt"
UNREADABLE = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, pickle.UnpicklingError)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, if there is one."""
    return folder / f"step-{step:08d}{SUFFIX}"


def write(path: Path, nested: dict[str, Any]) -> None:
    """Write a state of tensors and plain values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path) as stream:
        torch.save(nested, stream)


def load(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The state that a file holds, on the CPU.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        return found
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"checkpoint {path} cannot be read ({reason})") from None


class OneFile:
    """A checkpoint that was read.

    Attributes:
        nested: As `State.nested` gave it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.nested = path, load(path)

    @property
    def step(self) -> int:
        return int(self.nested["step"])

    @property
    def values(self) -> dict[str, Any]:
        """Plain ones."""
        return {key: value for key, value in self.nested.items() if key == "alignment"}

    def read_into(self, state: State) -> None:
        """Every process takes what it has of each tensor.

        Raises:
            UserError: If it does not fit the run.
        """
        state.read_nested(self.nested, self.path)
