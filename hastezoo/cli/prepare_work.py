"""What the commands of `hastezoo prepare` share: options, progress, and how the work is done and summed up."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.data.manifest import Manifest
    from hastezoo.data.prepare import Machine
    from hastezoo.data.preparing import PrepareSettings
    from hastezoo.data.ranks import Missing
    from hastezoo.data.source import Source

KEPT = ("vae", "image_format", "shard_size")  # options that are settings of every data set
MACHINE = ("device", "processes", "threads", "batch_size", "max_bad")


def shared_options(shard_size: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with the options that all of them have.

    Args:
        shard_size: What a shard holds by default.
    """
    options = (
        click.option(
            "--vae",
            default="mse",
            show_default=True,
            help="Whose latents: mse (REPA's and HASTE's), ema (the original SiT's), a folder, or owner/name of the "
            "Hub.",
        ),
        click.option("--image-format", type=click.Choice(["png", "jpeg"]), default="png", show_default=True),
        click.option("--device", default="auto", show_default=True),
        click.option(
            "--processes",
            type=click.IntRange(1),
            help="Each with its networks; GPUs in turn [one per GPU; not with RANK and WORLD_SIZE, where each is one].",
        ),
        click.option(
            "--threads", type=click.IntRange(1), help="Of each process, to read and crop [the cores shared out]."
        ),
        click.option("--batch-size", type=click.IntRange(1), help="Images encoded at once [16 on a GPU, 4 elsewhere]."),
        click.option(
            "--shard-size", type=click.IntRange(1), default=shard_size, show_default=True, help="Images a file."
        ),
        click.option(
            "--max-bad", type=click.IntRange(0), default=100, show_default=True, help="Unreadable images to skip."
        ),
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class PrepareBar:
    """Images done, images/s and time left: a bar on a terminal, otherwise a line now and then."""

    def __init__(self, *, quiet: bool, seconds: float = 30.0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.quiet, self.seconds, self.lines = quiet, seconds, not console.is_terminal
        self.bar = Progress(
            TextColumn("preparing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} images/s"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or self.lines,
        )
        self.task = self.bar.add_task("preparing", total=None, rate="-")
        self.start = self.done = 0
        self.total: int | None = None

    def encodes(self, length: int, width: int) -> None:
        """Nothing to say of it."""

    def begin(self, done: int, total: int | None, shards_done: int, shards: int) -> None:
        self.start = self.done = done
        self.total = total
        self.began = self.spoke = time.perf_counter()
        self.bar.update(self.task, total=total, completed=done)
        if shards_done and not self.quiet:
            click.echo(f"going on: {shards_done} of {shards} shards ({done:,} images) are done", err=True)

    def advance(self, images: int) -> None:
        self.done += images
        now = time.perf_counter()
        rate = (self.done - self.start) / max(now - self.began, 1e-9)
        self.bar.update(self.task, completed=self.done, rate=f"{rate:.1f}")
        if self.lines and not self.quiet and now - self.spoke >= self.seconds:
            left = "" if self.total is None else f", {(self.total - self.done) / max(rate, 1e-9) / 60:.1f} min left"
            total = "" if self.total is None else f"/{self.total:,}"
            click.echo(f"{self.done:,}{total} images, {rate:.1f} images/s{left}", err=True)
            self.spoke = now

    def waits(self, missing: Missing) -> None:
        """Say what of the other ranks' shards is missing, and how one of them is started again."""
        if not self.quiet:
            click.echo(missing.line("shards", shlex.join(["hastezoo", *sys.argv[1:]])), err=True)


def carry_out(
    source: Source, dest: Path, settings: PrepareSettings, options: dict[str, Any], bar: PrepareBar
) -> Manifest | None:
    """Prepare with the machine that the options ask for, and list what was skipped.

    Returns:
        The manifest; None of a rank other than the first, whose share is done.

    Raises:
        SystemExit: If it is interrupted; a line says how to go on.
    """
    from hastezoo.data.prepare import prepare, prepare_share

    machine = _machine(options)
    if machine.ranks.rank:
        prepare_share(source, dest, settings, machine)  # in silence: the first tells of all
        return None
    try:
        with bar.bar:
            manifest = prepare(source, dest, settings, machine, bar)
    except KeyboardInterrupt:
        click.echo(
            f"interrupted at {bar.done:,} images; finished shards are in {dest}, the same command goes on", err=True
        )
        raise SystemExit(130) from None
    for one in manifest.skipped[:10]:
        click.echo(f"skipped: {one.id}: {one.reason}", err=True)
    return manifest


def _machine(options: dict[str, Any]) -> Machine:
    """What the options ask for; of torchrun's or a scheduler's processes the share of this one, on a GPU of its own.

    Raises:
        UserError: If --processes is given too, or the environment names no rank that can be.
    """
    from hastezoo.data.prepare import Machine
    from hastezoo.data.ranks import Ranks
    from hastezoo.devices import find_device
    from hastezoo.processes import share_of_processes

    asked = {key: options[key] for key in MACHINE}
    share = share_of_processes(find_device(options["device"]))
    if share.count == 1:
        return Machine(**asked)
    if options["processes"] is not None:
        raise UserError(
            f"--processes does not go with WORLD_SIZE={share.count}, where every rank is one process; leave it out"
        )
    neighbours = os.environ.get("LOCAL_WORLD_SIZE", "")  # torchrun's word for the processes of one machine
    if asked["threads"] is None and neighbours.isdecimal():
        asked["threads"] = max(1, (os.cpu_count() or 1) // max(1, int(neighbours)))
    return Machine(**{**asked, "device": str(share.device), "ranks": Ranks(share.rank, share.count)})


def conclude(manifest: Manifest, dest: Path, what: str) -> None:
    """Say what there is now: `what` is there, where, and its size."""
    from hastezoo.cli.inspect import shards_of, size_of

    skipped = f", {len(manifest.skipped)} skipped (listed in manifest.json)" if manifest.skipped else ""
    click.echo(f"{what} in {dest}{skipped}: {size_of(manifest.bytes)} in {shards_of(manifest)}")
    click.echo(f"look at it: hastezoo inspect {dest}")
