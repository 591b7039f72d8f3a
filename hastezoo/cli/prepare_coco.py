"""`hastezoo prepare coco256` and `hastezoo prepare captions`: images with captions in COCO's format."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.cli.prepare_work import KEPT, PrepareBar, carry_out, conclude, shared_options
from hastezoo.cli.stopping import requeued_when_stopped
from hastezoo.conditioning.clip_files import CLIP
from hastezoo.errors import UserError


class CaptionBar(PrepareBar):
    """Says first what the captions' states will take."""

    def __init__(self, captions: int, dest: Path, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.captions, self.dest = captions, dest

    def encodes(self, length: int, width: int) -> None:
        from hastezoo.cli.inspect import size_of

        if self.quiet:
            return
        needed, free = 2 * length * width * self.captions, shutil.disk_usage(self.dest).free
        click.echo(
            f"states of {self.captions:,} captions, {length} x {width} float16 each, take {size_of(needed)}; "
            f"{size_of(free)} are free in {self.dest}",
            err=True,
        )


def caption_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the arguments and options of captioned images."""
    parts = (
        click.argument("images", type=click.Path(path_type=Path)),
        click.argument("annotations", type=click.Path(path_type=Path)),
        click.argument("dest", type=click.Path(path_type=Path, file_okay=False)),
        click.option(
            "--text-encoder",
            metavar="PLACE",
            default=CLIP,
            show_default=True,
            help="CLIP text encoder of the captions: a folder, or owner/name of the Hub.",
        ),
        click.option("--limit", type=click.IntRange(1), help="So many of the images, always the same ones."),
        shared_options(shard_size=1024),
        reporting_errors,
        requeued_when_stopped,
    )
    for part in reversed(parts):
        command = part(command)
    return command


@click.command("coco256", short_help="COCO at 256 px: images, captions with CLIP's states, latents.")
@caption_options
def coco_command(images: Path, annotations: Path, dest: Path, **options: Any) -> None:
    """Cropped images, captions with a text encoder's states, and latents, in Arrow shards.

    IMAGES is a folder such as COCO's train2014/, ANNOTATIONS the captions of its images in COCO's format
    (captions_train2014.json). Typed again after an interruption, it goes on.
    """
    _prepare("coco256", 256, images, annotations, dest, options)


@click.command("captions", short_help="Your own captioned images, at any --resolution.")
@click.option("--resolution", type=click.IntRange(8), required=True, help="Side of the images in pixels.")
@caption_options
def captions_command(images: Path, annotations: Path, dest: Path, **options: Any) -> None:
    """Cropped images, captions with a text encoder's states, and latents, in Arrow shards.

    IMAGES is a folder of images, ANNOTATIONS a JSON file of their captions in COCO's format: "images" with "id" and
    "file_name", "annotations" with "id", "image_id" and "caption". Typed again after an interruption, it goes on.
    """
    _prepare("captions", options["resolution"], images, annotations, dest, options)


def _prepare(name: str, resolution: int, images: Path, annotations: Path, dest: Path, options: dict[str, Any]) -> None:
    from hastezoo.data.coco import CocoSource
    from hastezoo.data.preparing import PrepareSettings

    if images.is_dir() and dest.resolve().is_relative_to(images.resolve()):
        raise UserError(f"{dest} lies in {images}, among the images; give another DEST")
    kept = {key: options[key] for key in (*KEPT, "text_encoder", "limit")}
    settings = PrepareSettings(name=name, resolution=resolution, **kept)
    source = CocoSource(images, annotations, settings.shard_size, settings.limit)
    if source.without_captions:
        click.echo(f"left out: {source.without_captions:,} images without a caption", err=True)
    bar = CaptionBar(source.captions, dest, quiet=options["quiet"])
    manifest = carry_out(source, dest, settings, options, bar)
    if manifest is None:
        return
    assert manifest.text is not None
    conclude(manifest, dest, f"{manifest.samples:,} images with {manifest.text.captions:,} captions")
