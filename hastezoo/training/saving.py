"""Writing checkpoints while a run goes on: one file, for which all wait, or shards, which are written behind it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from hastezoo.errors import UserError
from hastezoo.processes import Processes
from hastezoo.training import onefile, sharded
from hastezoo.training.checkpoints import Checkpoints
from hastezoo.training.state import State


class Saver(Protocol):
    """All processes call its methods.

    Attributes:
        saved: The step of the last checkpoint that is safe, 0 for none.
    """

    saved: int

    def save(self, state: State) -> None:
        """Write a checkpoint, or begin to.

        Raises:
            UserError: If it, or the one before, cannot be written.
        """

    def look(self) -> None:
        """Whether what was begun went well so far; does not wait.

        Raises:
            UserError: If it did not.
        """

    def finish(self) -> None:
        """Wait until what was begun is safe.

        Raises:
            UserError: If it cannot be written.
        """

    def close(self) -> None:
        """Give back what it holds."""


def create_saver(checkpoints: Checkpoints, processes: Processes, *, shards: bool, saved: int) -> Saver:
    """The saver of one kind of checkpoint; `saved` is the step of the one that a run goes on from."""
    kind = ShardSaver if shards else FileSaver
    return kind(checkpoints, processes, saved)


class FileSaver:
    """The main process writes one file while the others wait."""

    def __init__(self, checkpoints: Checkpoints, processes: Processes, saved: int) -> None:
        self.checkpoints, self.processes, self.saved = checkpoints, processes, saved

    def save(self, state: State) -> None:
        if self.processes.main:
            try:
                onefile.write(onefile.path_of(self.checkpoints.folder, state.step), state.nested())
                self.checkpoints.prune()
            except (OSError, RuntimeError) as error:  # torch wraps what the system says
                if "DataLoader worker" in str(error):  # torch's signal handler speaks up wherever it finds the program
                    raise
                raise _refusal(self, state.step, error.__context__ or error) from None
        self.processes.wait()
        self.saved = state.step

    def look(self) -> None:
        """Nothing is left to go wrong."""

    def finish(self) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Nothing is held."""


class ShardSaver:
    """Every process writes its share in the background. One checkpoint at a time: the next waits for the last."""

    def __init__(self, checkpoints: Checkpoints, processes: Processes, saved: int) -> None:
        self.checkpoints, self.processes, self.saved = checkpoints, processes, saved
        self.writer = sharded.Writer(processes)
        self.begun: tuple[int, Future[None]] | None = None

    def save(self, state: State) -> None:
        self.finish()
        path = sharded.path_of(self.checkpoints.folder, state.step)
        self.begun = state.step, self.writer.begin(path, state.step, state.tensors(), state.values)
        if self.processes.main:
            self.begun[1].add_done_callback(self._prune)

    def _prune(self, done: Future[None]) -> None:
        if done.exception() is None:
            self.checkpoints.prune()

    def look(self) -> None:
        if self.begun is not None and self.begun[1].done():
            self.finish()

    def finish(self) -> None:
        if self.begun is None:
            return
        (step, future), self.begun = self.begun, None
        try:
            future.result()
        except BaseException as error:  # torch's own is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise _refusal(self, step, error) from None
        self.saved = step

    def close(self) -> None:
        self.writer.close()


def _refusal(saver: Any, step: int, error: BaseException) -> UserError:
    kept = f"that of step {saver.saved} is good" if saver.saved else "none was written yet"
    return UserError(
        f"the checkpoint of step {step} cannot be written to {saver.checkpoints.folder} "
        f"({sharded.reason_of(error)}); {kept}. When that is mended, the same command goes on"
    )
