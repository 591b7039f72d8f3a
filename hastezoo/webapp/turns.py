"""One device, one piece of work at a time: a bounded queue whose places can be seen and left."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hastezoo.errors import UserError
from hastezoo.sampling.stopping import Cancelled

State = Literal["waiting", "running", "done", "failed", "cancelled"]
UNEXPECTED = "something went wrong on the server; its log says what"
REMEMBERED = 256  # tickets that are over, so that one can be asked about

log = logging.getLogger("hastezoo.webapp")


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        text: Where it is, in words.
        fraction: Of all of it, 0 to 1.
        step, steps, evaluations: Of the batch under way; steps is None where the solver chooses them.
        preview: A picture as a data address, or nothing.
    """

    text: str = ""
    fraction: float = 0.0
    step: int = 0
    steps: int | None = None
    evaluations: int = 0
    preview: str = ""


Work = Callable[["Ticket"], Any]


@dataclass(eq=False)
class Ticket:
    """A place in the queue, and then a piece of work under way.

    Attributes:
        work: What is to be done; it calls `report` often.
        what: In words.
        id: Known to whoever holds the ticket and nobody else: it allows to cancel.
        state, progress: As they are now.
        result: Of the work, when it is done.
        error: One line, when it failed.
        version: Counts changes, so that a watcher sees whether there is something new.
    """

    work: Work
    what: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    progress: Progress = Progress()
    result: Any = None
    error: str = ""
    version: int = 0
    started: float = 0.0
    ended: float = 0.0
    _first: tuple[float, float] | None = None  # when something was first done, and how much
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def seconds(self) -> float:
        """Spent working so far."""
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the pace since the first part was done, so that loading does not count; None before."""
        if self.state != "running" or self._first is None:
            return None
        began, then = self._first
        done, seconds = self.progress.fraction - then, time.monotonic() - began
        return seconds * (1 - self.progress.fraction) / done if done >= 0.01 and seconds >= 0.3 else None

    def check(self) -> None:
        """Stop here if the ticket was cancelled.

        Raises:
            Cancelled: If it was.
        """
        if self._stop.is_set():
            raise Cancelled

    def report(self, **changes: Any) -> None:
        """Say how far the work is, in fields of Progress.

        Raises:
            Cancelled: If nobody wants the result any more.
        """
        self.check()
        self.progress = replace(self.progress, **changes)
        if self._first is None and self.progress.fraction:
            self._first = (time.monotonic(), self.progress.fraction)
        self.version += 1

    def _become(self, state: State) -> None:
        self.state = state
        self.version += 1


class Turns:
    """The queue of one device. Its thread does the work of one ticket after the other, in the order they came.

    Args:
        waiting: Tickets that may wait beside the one that runs.
        after: Called when a ticket is over, to free what it held.
    """

    def __init__(self, waiting: int, after: Callable[[], None] = lambda: None) -> None:
        self.waiting, self.after = waiting, after
        self._queue: deque[Ticket] = deque()
        self._tickets: dict[str, Ticket] = {}
        self._running: Ticket | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="hastezoo-device", daemon=True)
        self._thread.start()

    def join(self, what: str, work: Work) -> Ticket:
        """Take the last place.

        Raises:
            UserError: If there is none.
        """
        with self._changed:
            if self._closed:
                raise UserError("the server is shutting down")
            busy = self._running is not None
            if len(self._queue) >= self.waiting + (0 if busy else 1):
                raise UserError(f"the queue is full: {len(self._queue)} requests wait; try again in a minute")
            ticket = Ticket(work, what)
            self._remember(ticket)
            self._queue.append(ticket)
            self._moved()
            return ticket

    def cancel(self, id: str) -> bool:
        """Leave the queue, or stop the work at its next step; whether there was something to cancel."""
        with self._changed:
            ticket = self._tickets.get(id)
            if ticket is None or ticket.over:
                return False
            ticket._stop.set()
            if ticket in self._queue:
                self._queue.remove(ticket)
                ticket._become("cancelled")
                self._moved()
            return True

    def find(self, id: str) -> Ticket | None:
        """The ticket of that id, unless it is long over."""
        return self._tickets.get(id)

    def position(self, ticket: Ticket) -> int:
        """1 for the next, 0 for the one that runs or is over."""
        with self._changed:
            return self._queue.index(ticket) + 1 if ticket in self._queue else 0

    def counts(self) -> dict[str, int]:
        """How many run (0 or 1) and how many wait."""
        with self._changed:
            return {"running": int(self._running is not None), "waiting": len(self._queue)}

    def close(self, patience: float = 10.0) -> None:
        """Cancel everything and wait for the work under way to stop."""
        with self._changed:
            self._closed = True
            every = [*self._queue, *([self._running] if self._running else [])]
        for ticket in every:
            self.cancel(ticket.id)
        with self._changed:
            self._changed.notify_all()
        self._thread.join(patience)

    def _remember(self, ticket: Ticket) -> None:
        self._tickets[ticket.id] = ticket
        over = [one.id for one in self._tickets.values() if one.over]
        for id in over[: max(0, len(over) - REMEMBERED)]:
            del self._tickets[id]

    def _moved(self) -> None:
        for ticket in self._queue:
            ticket.version += 1
        self._changed.notify_all()

    def _serve(self) -> None:
        while (ticket := self._next()) is not None:
            state = self._do(ticket)
            with self._changed:
                self._running = None
                ticket.ended = time.monotonic()
                ticket._become(state)
                self._changed.notify_all()
            del ticket  # or its result would stay in memory until the next one comes

    def _next(self) -> Ticket | None:
        """Wait for the first in the queue; None when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if self._closed:
                return None
            ticket = self._running = self._queue.popleft()
            ticket.started = time.monotonic()
            ticket._become("running")
            self._moved()
            return ticket

    def _do(self, ticket: Ticket) -> State:
        state: State = "failed"
        try:
            ticket.result = ticket.work(ticket)
            state = "done"
        except Cancelled:
            state = "cancelled"
        except UserError as error:
            ticket.error = str(error)
        except OSError as error:  # a full disk, or a host that does not answer
            log.exception("%s failed", ticket.what)
            ticket.error = f"the system refused: {error.strerror or type(error).__name__}"
        except Exception:
            log.exception("%s failed", ticket.what)
            ticket.error = UNEXPECTED
        ticket.work = _nothing  # its closure holds networks and tensors, and a ticket outlives it by far
        ticket.progress = replace(ticket.progress, preview="")
        try:
            self.after()
        except Exception:
            log.exception("tidying up failed")
        return state


def _nothing(ticket: Ticket) -> None:
    return None
