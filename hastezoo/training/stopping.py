"""What ends a run between two steps: Ctrl-C, and SIGTERM or SIGUSR1, by which a scheduler takes the machine back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from hastezoo.errors import REQUEUE


class Stop(IntEnum):
    """Why a run stopped before its end; of several reasons the larger counts."""

    NOT = 0
    INTERRUPTED = 1
    PREEMPTED = 2

    @property
    def exit_code(self) -> int:
        """Of the command; a scheduler may requeue what was preempted."""
        return {Stop.NOT: 0, Stop.INTERRUPTED: 130, Stop.PREEMPTED: REQUEUE}[self]


REASONS = {
    signal.SIGINT: Stop.INTERRUPTED,
    signal.SIGTERM: Stop.PREEMPTED,
    signal.SIGUSR1: Stop.PREEMPTED,
}


class Stopping:
    """What signals have asked for so far."""

    def __init__(self) -> None:
        self.asked = Stop.NOT


@contextmanager
def stop_signals() -> Iterator[Stopping]:
    """Take note of signals instead of ending, so that a run ends between two steps.

    A second Ctrl-C is not caught. A second SIGTERM changes nothing: a scheduler and torchrun may both send one.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.getsignal(number) for number in REASONS}

    def note(number: int, frame: Any) -> None:
        stopping.asked = max(stopping.asked, REASONS[signal.Signals(number)])
        if number == signal.SIGINT:
            signal.signal(number, before[signal.SIGINT])

    for number in before:
        signal.signal(number, note)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
