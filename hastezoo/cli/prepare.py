"""`hastezoo prepare`, a command for each kind of data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.cli.prepare_coco import captions_command, coco_command
from hastezoo.cli.prepare_work import KEPT, PrepareBar, carry_out, conclude, shared_options
from hastezoo.cli.stopping import requeued_when_stopped
from hastezoo.errors import UserError, nearest

RESOLUTIONS = {"imagenet256": 256, "imagenet512": 512, "folder": None}
SHORT = {
    "imagenet256": "ImageNet at 256 px: images, labels, latents.",
    "imagenet512": "ImageNet at 512 px.",
    "folder": "Your own images of any classes, at any --resolution.",
}
IMAGENET = (1_281_167, 1000)  # images and classes of its training set


class Kinds(click.Group):
    """Commands by the kind of data set; an unknown one is told the nearest, in one line."""

    @reporting_errors
    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            near = nearest(args[0], self.commands, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.commands)}"
            raise UserError(f"no kind of data set is called {args[0]!r}; {hint}")
        return super().resolve_command(context, args)


@click.group("prepare", cls=Kinds)
def command() -> None:
    """Make a data set for training: cropped images, labels or captions, and latents, in Arrow shards.

    Each kind of data set is a command of its own. Typed again after an interruption, it goes on; SIGTERM and SIGUSR1
    end it with exit code 75, to be requeued. `torchrun --nproc-per-node 8 -m hastezoo prepare ...`, or RANK and
    WORLD_SIZE set by hand or a scheduler, share the shards out over processes on any machines that see DEST.
    """


def add_classes(kind: str) -> None:
    """Add the command for a kind of data set with classes."""

    @command.command(kind, short_help=SHORT[kind])
    @click.argument("source")
    @click.argument("dest", type=click.Path(path_type=Path, file_okay=False))
    @click.option("--resolution", type=click.IntRange(8), hidden=kind != "folder", help="Side of the images in pixels.")
    @click.option(
        "--flip", is_flag=True, help="Also the moments of the mirrored images (the original SiT trains on both)."
    )
    @click.option(
        "--moments",
        type=click.Choice(["mean-std", "mean-logvar"]),
        default="mean-std",
        show_default=True,
        help="Of latents that SOURCE brings along.",
    )
    @click.option("--image-column", help="Of a Hub data set, where it has several.")
    @click.option("--label-column", help="Of a Hub data set, where it has several.")
    @shared_options(shard_size=4096)
    @reporting_errors
    @requeued_when_stopped
    def classes_command(source: str, dest: Path, **options: Any) -> None:
        """Cropped images, labels and latents, in Arrow shards.

        SOURCE is a folder of a folder per class (ImageNet's train/), REPA's folders (images/ and vae-sd/), or a data
        set of the Hub (hf:ILSVRC/imagenet-1k[@revision][:split]). Typed again after an interruption, it goes on.
        """
        _prepare(kind, source, dest, options)


for _kind in RESOLUTIONS:
    add_classes(_kind)
command.add_command(coco_command)
command.add_command(captions_command)


def _prepare(kind: str, source: str, dest: Path, options: dict[str, Any]) -> None:
    from hastezoo.data.preparing import PrepareSettings
    from hastezoo.data.source import open_source

    resolution = _resolution(kind, options["resolution"])
    if Path(source).is_dir() and dest.resolve().is_relative_to(Path(source).resolve()):
        raise UserError(f"{dest} lies in {source}, where it would be taken for a class; give another DEST")
    kept = {key: options[key] for key in (*KEPT, "flip", "moments")}
    settings = PrepareSettings(name=kind, resolution=resolution, **kept)
    chosen = {key: options[key] for key in ("moments", "image_column", "label_column")}
    opened = open_source(source, shard_size=settings.shard_size, **chosen)
    if kind != "folder":
        _check_imagenet(kind, resolution, opened.classes, opened.total)
    manifest = carry_out(opened, dest, settings, options, PrepareBar(quiet=options["quiet"]))
    if manifest is not None:
        conclude(manifest, dest, f"{manifest.samples:,} images of {len(manifest.classes)} classes")


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
