"""`hastezoo prepare`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

RESOLUTIONS = {"imagenet256": 256, "imagenet512": 512, "folder": None}
IMAGENET = (1_281_167, 1000)  # images and classes of its training set


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


@click.command("prepare")
@click.argument("kind", type=click.Choice(list(RESOLUTIONS)))
@click.argument("source")
@click.argument("dest", type=click.Path(path_type=Path, file_okay=False))
@click.option("--resolution", type=click.IntRange(8), help="Of `folder`: side of the images in pixels.")
@click.option(
    "--vae",
    default="mse",
    show_default=True,
    help="Whose latents: mse (REPA's and HASTE's), ema (the original SiT's), a folder, or owner/name of the Hub.",
)
@click.option("--flip", is_flag=True, help="Also the moments of the mirrored images (the original SiT trains on both).")
@click.option("--image-format", type=click.Choice(["png", "jpeg"]), default="png", show_default=True)
@click.option(
    "--moments",
    type=click.Choice(["mean-std", "mean-logvar"]),
    default="mean-std",
    show_default=True,
    help="Of latents that SOURCE brings along.",
)
@click.option("--image-column", help="Of a Hub data set, where it has several.")
@click.option("--label-column", help="Of a Hub data set, where it has several.")
@click.option("--device", default="auto", show_default=True)
@click.option("--processes", type=click.IntRange(1), help="Each with an autoencoder; GPUs in turn [one per GPU].")
@click.option("--threads", type=click.IntRange(1), help="Of each process, to read and crop [the cores shared out].")
@click.option("--batch-size", type=click.IntRange(1), help="Images encoded at once [16 on a GPU, 4 elsewhere].")
@click.option("--shard-size", type=click.IntRange(1), default=4096, show_default=True, help="Images a file.")
@click.option("--max-bad", type=click.IntRange(0), default=100, show_default=True, help="Unreadable images to skip.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(kind: str, source: str, dest: Path, **options: Any) -> None:
    """Make a data set for training: cropped images, labels and latents, in Arrow shards.

    SOURCE is a folder of a folder per class (ImageNet's train/), REPA's folders (images/ and vae-sd/), or a data set
    of the Hub (hf:ILSVRC/imagenet-1k[@revision][:split]). Typed again after an interruption, it goes on.
    """
    from hastezoo.cli.inspect import shards_of, size_of
    from hastezoo.data.prepare import Machine, prepare
    from hastezoo.data.preparing import PrepareSettings
    from hastezoo.data.source import open_source

    resolution = _resolution(kind, options["resolution"])
    if Path(source).is_dir() and dest.resolve().is_relative_to(Path(source).resolve()):
        raise UserError(f"{dest} lies in {source}, where it would be taken for a class; give another DEST")
    kept = ("vae", "flip", "image_format", "shard_size", "moments")
    settings = PrepareSettings(name=kind, resolution=resolution, **{key: options[key] for key in kept})
    chosen = {key: options[key] for key in ("moments", "image_column", "label_column")}
    opened = open_source(source, shard_size=settings.shard_size, **chosen)
    if kind != "folder":
        _check_imagenet(kind, resolution, opened.classes, opened.total)
    bar = PrepareBar(quiet=options["quiet"])
    machine = Machine(**{key: options[key] for key in ("device", "processes", "threads", "batch_size", "max_bad")})
    try:
        with bar.bar:
            manifest = prepare(opened, dest, settings, machine, bar)
    except KeyboardInterrupt:
        click.echo(
            f"interrupted at {bar.done:,} images; finished shards are in {dest}, the same command goes on", err=True
        )
        raise SystemExit(130) from None
    for one in manifest.skipped[:10]:
        click.echo(f"skipped: {one.id}: {one.reason}", err=True)
    skipped = f", {len(manifest.skipped)} skipped (listed in manifest.json)" if manifest.skipped else ""
    click.echo(
        f"{manifest.samples:,} images of {len(manifest.classes)} classes in {dest}{skipped}: "
        f"{size_of(manifest.bytes)} in {shards_of(manifest)}"
    )
    click.echo(f"look at it: hastezoo inspect {dest}")


def _resolution(kind: str, given: int | None) -> int:
    fixed = RESOLUTIONS[kind]
    if fixed is None and given is None:
        raise UserError("`prepare folder` needs --resolution, such as --resolution 256")
    if fixed is not None and given not in (None, fixed):
        raise UserError(f"{kind} has images of {fixed} px; for {given} take `prepare folder --resolution {given}`")
    resolution = fixed or given
    assert resolution is not None
    return resolution


def _check_imagenet(kind: str, resolution: int, classes: list[str], total: int | None) -> None:
    images, wanted = IMAGENET
    if len(classes) != wanted:
        raise UserError(
            f"ImageNet has {wanted} classes, and this has {len(classes)}; for other images take "
            f"`hastezoo prepare folder --resolution {resolution}`"
        )
    if total is not None and total != images:
        click.echo(f"warning: ImageNet's training set has {images:,} images, and this has {total:,}", err=True)
