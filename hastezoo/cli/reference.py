"""`hastezoo reference build` and `hastezoo reference info`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.evaluation.extractors import EXTRACTORS


@click.group("reference")
def command() -> None:
    """What samples are held against: statistics of real images, made or looked at."""


@command.command("build", short_help="Statistics of images, as a file.")
@click.argument("source")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="FILE.safetensors, or FILE.npz as the ADM evaluator reads it.",
)
@click.option(
    "--features", type=click.Choice(EXTRACTORS), default="inception", show_default=True, help="What sees them."
)
@click.option("--inception", type=click.Path(path_type=Path), metavar="FILE", help="The Inception weights.")
@click.option("--dinov2", type=click.Path(path_type=Path), metavar="PLACE", help="The DINOv2 weights.")
@click.option("--size", type=click.IntRange(1), help="Crop each image of a folder to this side, as ADM does.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Images at a time.")
@click.option("--device", default="auto", show_default=True)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--quiet", is_flag=True, help="Print nothing but warnings and errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def build_command(source: str, out: Path, **options: Any) -> None:
    """Statistics of images, as a file for `hastezoo eval-fid --reference`.

    SOURCE is an npz with images in arr_0, a folder of images, a prepared data set, digits, or a published reference,
    whose images are then looked at once and for all.
    """
    from hastezoo.cli.evaluation import load_extractor
    from hastezoo.evaluation.references.building import build_reference

    quiet = options["quiet"]
    extractor = load_extractor(options, options["device"], quiet=quiet)
    with _bar(quiet) as progress:
        reference = build_reference(
            source,
            out,
            extractor,
            size=options["size"],
            batch_size=options["batch_size"],
            force=options["force"],
            say=(lambda line: None) if quiet else _say,
            progress=progress,
        )
    if not quiet:
        images = "images" if reference.count is None else f"{reference.count:,} images"
        seen = 0 if reference.features is None else len(reference.features)
        click.echo(f"{out}: statistics of {images}, features of {seen:,}")


def _say(line: str) -> None:
    click.echo(line, err=True)


@contextlib.contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Images seen, and the time left, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("looking at images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("looking", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@command.command("info", short_help="What a reference holds.")
@click.argument("reference", metavar="FILE|NAME")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def info_command(reference: str, as_json: bool) -> None:
    """What a reference holds, and which metrics it allows; of a published one that is not here, where to get it."""
    from hastezoo.evaluation.references.info import describe_reference

    found = describe_reference(reference)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from hastezoo.cli.tables import print_facts

    print_facts(_facts(found))


KINDS = {
    "reference": "a file of `hastezoo reference build`",
    "npz": "statistics as the ADM evaluator keeps them",
    "images": "images, of which statistics are taken when they are needed",
    "absent": "published, and not here",
}


def _facts(found: dict[str, Any]) -> dict[str, object]:
    """For people; what says nothing is left out."""
    count, shape, size = found.get("count"), found.get("shape"), found.get("bytes")
    seen_by = ", ".join(f"{key} {value}" for key, value in found.get("extractor", {}).items())
    facts = {
        "name": found["name"],
        "kind": KINDS[found["kind"]],
        "file": found.get("path"),
        "size": size and f"{size:,} bytes",
        "sha256": found.get("sha256"),
        "of": found.get("source"),
        "holds": ", ".join(f"{key} {what}" for key, what in found.get("arrays", {}).items()),
        "images": "not stated" if count is None else f"{count:,}",
        "image size": shape and " x ".join(map(str, shape)),
        "lossy": {True: "yes, such as JPEG", False: "no", None: None}[found.get("lossy")],
        "features": found.get("features") and found["features"] + (f" ({seen_by})" if seen_by else ""),
        "metrics": ", ".join(found["metrics"]),
        "not there": "; ".join(f"{key}: {why}" for key, why in found.get("missing", {}).items()),
        "get it": found.get("get"),
        "note": found.get("note"),
    }
    return {name: value for name, value in facts.items() if value}
