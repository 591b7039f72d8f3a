"""The checkpoints of a run: which there are, which stay, and which can be read. A file each, or a folder."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Collection
from pathlib import Path

from hastezoo.errors import UserError
from hastezoo.files import PARTIAL, atomic_write, remove_partials
from hastezoo.processes import Processes
from hastezoo.training.onefile import SUFFIX, OneFile, load
from hastezoo.training.sharded import Shards
from hastezoo.training.state import State

NAME = re.compile(rf"step-(\d{{8,}})({re.escape(SUFFIX)})?")
Stored = OneFile | Shards


class Checkpoints:
    """A folder of `step-00001000.pt`, or `step-00001000/` where they are sharded, or both.

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

    def paths(self) -> list[Path]:
        """Newest first."""
        found = [path for path in self.folder.glob("step-*") if NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (step_of(path), path.name), reverse=True)

    def prune(self) -> None:
        """Remove what is older than the last few and no milestone."""
        passing = [path for path in self.paths() if not self.is_milestone(step_of(path))]
        for old in passing[self.keep :]:
            remove(old)

    def latest(self, processes: Processes | None = None) -> Stored | None:
        """The newest that can be read, the same on all processes; None if there is none.

        A broken one is passed over, loudly. What a killed process left half-written is cleared away.

        Raises:
            UserError: If another process than the main one cannot read it.
        """
        alone = processes is None or processes.count == 1
        found: Stored | None = None
        if alone or (processes is not None and processes.main):
            found = self._newest_good()
        if alone or processes is None:
            return found
        name = processes.from_main(None if found is None else found.path.name)
        return found if processes.main or name is None else stored(self.folder / name)

    def _newest_good(self) -> Stored | None:
        if self.folder.is_dir():
            remove_partials(self.folder)
        for path in self.paths():
            try:
                return stored(path)
            except UserError as error:
                warnings.warn(f"{error}; trying the one before", stacklevel=3)
        return None


def step_of(path: Path) -> int:
    """The step of a checkpoint by its name."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def stored(path: Path) -> Stored:
    """A checkpoint to be read.

    Raises:
        UserError: If it cannot be.
    """
    return Shards(path) if path.is_dir() else OneFile(path)


def remove(path: Path) -> None:
    """Remove a checkpoint; a folder loses its name first, so that no half of it is taken for a whole."""
    if path.is_dir():
        path = path.rename(path.with_name(f".{path.name}.old{PARTIAL}"))
        shutil.rmtree(path)
    else:
        path.unlink()


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
    if checkpoint.is_dir():
        partial = folder / f".{checkpoint.name}{PARTIAL}"
        shutil.copytree(checkpoint, partial)
        partial.rename(folder / checkpoint.name)
    else:
        atomic_write(folder / checkpoint.name, checkpoint.read_bytes())


def check_origin(checkpoint: Path) -> None:
    """Raise UserError if that is no checkpoint to fork from, or cannot be read."""
    if not NAME.fullmatch(checkpoint.name) or checkpoint.is_dir() == (checkpoint.suffix == SUFFIX):
        raise UserError(f"{checkpoint} is no checkpoint of a run; name one such as RUN/checkpoints/step-00000500.pt")
    if not checkpoint.exists():
        raise UserError(f"{checkpoint} is no checkpoint of a run; name one such as RUN/checkpoints/step-00000500.pt")
    if checkpoint.is_dir():
        Shards(checkpoint)
    else:
        load(checkpoint, mmap=True)  # a run that passed over a damaged one would begin from nothing


def restore(state: State, found: Stored | None) -> int:
    """Put a run back where a checkpoint was; its step, or 0 for a new run.

    Raises:
        UserError: If the checkpoint does not fit the run.
    """
    if found is None:
        return 0
    state.begin_optimizer()
    found.read_into(state)
    return found.step
