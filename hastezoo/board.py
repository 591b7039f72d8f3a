"""The store of a run's processes as a notice board: each one writes a line of its own and reads those of all."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What the store says.

    Attributes:
        notes: What each rank last wrote, None for nothing.
        elected: The rank that won the election, if this process stood in one.
    """

    notes: list[bytes | None]
    elected: int | None


class Board:
    """The store, as all processes use it. A connection that broke is made again.

    Args:
        connect: Gives the store, and a function that raises OSError when the connection to it is broken.
        rank, count: Of this process, and how many there are.
    """

    def __init__(self, connect: Callable[[], tuple[Any, Callable[[], None]]], rank: int, count: int) -> None:
        self.connect, self.rank, self.count = connect, rank, count
        self.store: Any = None
        self.check: Callable[[], None] = lambda: None

    def exchange(self, note: str, election: str) -> Answer | None:
        """Write this process' note, and read those of all; it may hang for good.

        Args:
            note: Takes the place of this process' last one.
            election: The name of an election in which this process stands, or nothing. The first to stand wins.

        Returns:
            None if the store cannot be reached.
        """
        try:
            if new := self.store is None:
                self.store, self.check = self.connect()
            self.check()
            self.store.set(str(self.rank), note)
            # A key that is not there would be waited for, so the roll tells which are; no rank is on it without a note.
            if new:
                self.store.append("roll", f" {self.rank}")
            present = {int(rank) for rank in self.store.get("roll").split()}
            ranks = [rank for rank in range(self.count) if rank in present]
            found = dict(zip(ranks, self.store.multi_get([str(rank) for rank in ranks]), strict=True))
            elected = int(self.store.compare_set(election, "", str(self.rank))) if election else None
        except (OSError, RuntimeError):
            self.store = None
            return None
        return Answer([found.get(rank) for rank in range(self.count)], elected)


class Errand:
    """A function in a thread of its own, one call at a time: it may hang, and the caller goes on.

    Attributes:
        answer: What the last call returned.
    """

    def __init__(self, function: Callable[[str, str], Answer | None]) -> None:
        self.function = function
        self.given: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.idle = threading.Event()
        self.idle.set()
        self.answer: Answer | None = None
        threading.Thread(target=self._work, daemon=True, name="heartbeat-store").start()

    def begin(self, note: str, election: str) -> None:
        """Call the function; only after the last call has returned."""
        self.answer = None
        self.idle.clear()
        self.given.put((note, election))

    def returned(self, seconds: float = 0.0) -> bool:
        """Whether the last call has returned, after so long at most."""
        return self.idle.wait(seconds)

    def _work(self) -> None:
        while True:
            self.answer = self.function(*self.given.get())
            self.idle.set()


def connect(host: str, port: int) -> tuple[Any, Callable[[], None]]:
    """A connection of one's own to the processes' store.

    Returns:
        The store; and a function that raises OSError when its other end is gone. It looks at a second connection, for
        torch meets a broken one with pages of C++ frames on stderr.

    Raises:
        OSError: If nothing listens there, or not within 5 s.
        RuntimeError: If it is no store.
    """
    from torch.distributed import PrefixStore, TCPStore

    second = socket.create_connection((host, port), timeout=5.0)
    second.setblocking(False)

    def check() -> None:
        try:
            if second.recv(1) == b"":
                raise ConnectionError(f"{host}:{port} has closed the connection")
        except BlockingIOError:
            pass

    # Calls may hang in a thread of their own; a time-out of torch's would be as loud as a broken connection.
    store = TCPStore(host, port, None, False, timedelta(hours=24), wait_for_workers=False)
    # Not by TORCHELASTIC_RESTART_COUNT, which torchrun counts on each machine apart.
    return PrefixStore(f"hastezoo-heart/{os.environ.get('TORCHELASTIC_RUN_ID', '')}", store), check
