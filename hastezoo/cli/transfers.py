"""What commands say while weights are fetched and converted."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Say = Callable[[str], None]
Told = Callable[[int, int | None], None]


@contextlib.contextmanager
def transfers(what: str = "downloading", *, quiet: bool = False) -> Iterator[tuple[Say, Told]]:
    """(say, progress): lines on stderr, and a bar of bytes; for the Hub's downloads its client draws its own."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    task: TaskID | None = None

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    def progress(done: int, total: int | None) -> None:
        nonlocal task
        if task is None:
            bar.start()
            task = bar.add_task(what, total=total)
        bar.update(task, completed=done, total=total)

    if quiet:  # read by the Hub's client when it is first imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        yield say, progress
    finally:
        bar.stop()
