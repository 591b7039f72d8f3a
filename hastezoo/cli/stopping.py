"""A scheduler's notice, SIGTERM or SIGUSR1: a command of whole units ends at once, and the same command goes on.

The signal raises `Stopped` wherever the main thread is, so that what is half-written is taken away on the way out.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import click

from hastezoo import files
from hastezoo.errors import REQUEUE, Stopped

NOTICES = ("SIGTERM", "SIGUSR1")
SOON = 0.05  # seconds until a signal that came at a bad moment comes again


def requeued_when_stopped(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command whose finished units stay, and which goes on when it is started again."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with stopped_by_signals():
                return command(*args, **kwargs)
        except Stopped as stopped:
            click.echo(f"stopped by {stopped}: what is finished stays, and the same command goes on", err=True)
            raise SystemExit(REQUEUE) from None

    return wrapped


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` where a notice comes. What comes after it is not heard: scheduler and torchrun may both send one.

    Raises:
        Stopped: If a notice comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in NOTICES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    listener = _Listener(numbers)
    try:
        for number in numbers:
            signal.signal(number, listener.hear)
        yield
    finally:
        if not listener.heard:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Listener:
    """Raises `Stopped` at the first notice."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.heard: int | None = None

    def hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard is None:
            self.heard = number
            for one in self.numbers:
                signal.signal(one, signal.SIG_IGN)
        if _delicate(frame) and hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self.hear)
            signal.setitimer(signal.ITIMER_REAL, SOON)
            return
        raise Stopped(signal.Signals(self.heard).name)


def _delicate(frame: FrameType | None) -> bool:
    """Whether an exception raised here would be lost, or leave half a file behind.

    It would where Python prints and forgets it (finalizers and callbacks of weak references), and where a file is being
    opened, closed or renamed. Neither takes long.
    """
    if frame is not None and frame.f_code.co_filename == _CONTEXTS:
        return True
    while frame is not None:
        code = frame.f_code
        if code is _FILE or code.co_name == "__del__" or "weakref" in os.path.basename(code.co_filename):
            return True
        frame = frame.f_back
    return False


_CONTEXTS = contextlib.contextmanager.__code__.co_filename
_FILE: CodeType = files.atomic_open.__wrapped__.__code__  # type: ignore[attr-defined]
