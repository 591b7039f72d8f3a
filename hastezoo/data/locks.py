"""Who may work on a data set: one command alone, or the ranks of one WORLD_SIZE, each once.

A command that is alone holds the folder's lock to its end. Ranks hold that one, the gate, for moments, to look at what
they share and to change it, and each a lock of its own, named by rank and WORLD_SIZE, to its end. Whoever enters looks,
within the gate, for locks that it does not go together with. Locks go with their processes, however these end.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hastezoo.data.ranks import Ranks
from hastezoo.errors import UserError
from hastezoo.files import LOCK, PATIENCE

if TYPE_CHECKING:
    from filelock import BaseFileLock

POLL = 0.2  # seconds between two attempts
GATE_PATIENCE = 120.0  # seconds; who is within the gate does little there
_RANK = re.compile(r"\.rank-(\d+)-of-(\d+)\.lock")


class Held:
    """A folder that this process may work on.

    Args:
        folder: It exists.
        ranks: Which process this is.
        doing: What the others would be doing, for the message.
    """

    def __init__(self, folder: Path, ranks: Ranks, doing: str) -> None:
        from filelock import FileLock

        self.folder, self.ranks, self.doing = folder, ranks, doing
        self._gate = FileLock(folder / LOCK)
        self._own = FileLock(folder / f".rank-{ranks.rank}-of-{ranks.count}.lock")

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Nobody else changes what all share meanwhile.

        Raises:
            UserError: If somebody does not leave it.
        """
        if not _taken(self._gate, GATE_PATIENCE):
            raise UserError(f"another process holds {self.folder / LOCK} and does not let go; end it first")
        try:
            yield
        finally:
            self._gate.release()  # counted: of a command that is alone the lock stays

    def others(self) -> list[Ranks]:
        """Ranks at work that are not this process; to be called within the gate. Locks of dead ones are taken away."""
        from filelock import FileLock

        found = []
        for path in sorted(self.folder.glob(".rank-*.lock")):
            name = _RANK.fullmatch(path.name)
            if name is None or path == Path(self._own.lock_file):
                continue
            lock = FileLock(path)
            if _taken(lock, 0):
                path.unlink(missing_ok=True)  # nobody waits for it outside the gate
                lock.release()
            else:
                found.append(Ranks(int(name[1]), int(name[2])))
        return found

    def enter(self, patience: float) -> None:
        """Lock what is this process' own.

        Raises:
            UserError: If somebody that it does not go together with is at work, and stays so.
        """
        end = time.monotonic() + patience
        while (refusal := self._attempt()) is not None:
            if time.monotonic() >= end:
                raise UserError(refusal)
            time.sleep(POLL)

    def _attempt(self) -> str | None:
        """None where it worked, else who is in the way."""
        if not _taken(self._gate, 0):
            return f"another process is {self.doing} {self.folder}; wait for it, or end it first"
        entered = False
        try:
            refusal = self._in_the_way()
            if refusal is None and self.ranks.count > 1 and not _taken(self._own, 0):
                return f"another process is {self.doing} {self.folder} as {_named(self.ranks)}; end it first"
            entered = refusal is None
            return refusal
        finally:
            if not entered or self.ranks.count > 1:
                self._gate.release()

    def _in_the_way(self) -> str | None:
        alien = [other for other in self.others() if self.ranks.count == 1 or other.count != self.ranks.count]
        if not alien:
            return None
        return f"{_named(alien[0])} is {self.doing} {self.folder}; wait for all of them, or end them first"

    def leave(self) -> None:
        """Let go. A rank takes its lock's file away where the gate is free, for others look at it there."""
        if self.ranks.count > 1 and _taken(self._gate, 1.0):
            Path(self._own.lock_file).unlink(missing_ok=True)
        self._own.release()
        self._gate.release()


@contextlib.contextmanager
def at_work(folder: Path, ranks: Ranks, doing: str, patience: float = PATIENCE) -> Iterator[Held]:
    """Work on a folder alone, or as one of several ranks.

    Args:
        folder: It exists.
        ranks: Which process this is, of how many.
        doing: What another one would be doing, for the message.
        patience: Seconds to wait for it.

    Raises:
        UserError: If this goes not together with who is at work.
    """
    held = Held(folder, ranks, doing)
    held.enter(patience)
    try:
        yield held
    finally:
        held.leave()


def _taken(lock: BaseFileLock, patience: float) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=patience, poll_interval=POLL)
    except Timeout:
        return False
    except NotImplementedError:  # a file system without locks
        pass
    return True


def _named(ranks: Ranks) -> str:
    return f"rank {ranks.rank} of {ranks.count}"
