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
def transfers(*, quiet: bool = False) -> Iterator[tuple[Say, Told]]:
    """(say, progress): lines on stderr, and a bar for direct downloads; the Hub's client draws its own."""
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
            task = bar.add_task("downloading", total=total)
        bar.update(task, completed=done, total=total)

    with _hub_bars(quiet):
        try:
            yield say, progress
        finally:
            bar.stop()


@contextlib.contextmanager
def _hub_bars(quiet: bool) -> Iterator[None]:
    """Silence the Hub client's own bars where nothing is to be printed; the client is not imported for that."""

    before = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    if quiet and before is None:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        yield
    finally:
        if quiet and before is None:
            del os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]
