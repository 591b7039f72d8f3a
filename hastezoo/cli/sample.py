"""`hastezoo sample`."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.cli.options import device_options, model_options, overrides, protocol_options
from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from hastezoo.job import Request
    from hastezoo.pipeline import Pipeline

MOST_SEEDS = 10_000_000
LARGEST_SEED = 2**63 - 1
# What --from takes from its file and so cannot be given beside it.
FROM_FILE = (
    "model",
    "weights",
    "vae",
    "vae_tiling",
    "classes",
    "number",
    "seed",
    "seeds",
    "protocol",
    "solver",
    "steps",
    "cfg",
    "interval",
    "channels",
    "diffusion",
    "last_step",
    "start",
    "batch_size",
    "dtype",
    "compile",
    "format",
)


def parse_seeds(text: str) -> list[int]:
    """The seeds that a text such as 0-15,40 lists.

    Raises:
        UserError: If the text is something else, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--seeds {text!r}: {part.strip()!r} is no seed (0, 1, ...) or range; write 0-15,40")
        start, stop = int(first), int(last or first)
        if stop < start or stop - start >= MOST_SEEDS or stop > LARGEST_SEED:
            raise UserError(f"--seeds {text!r}: the range {part.strip()!r} is empty, too long or too large")
        seeds += range(start, stop + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text!r} names a seed twice")
    return seeds


def _seeds(options: dict[str, Any]) -> list[int]:
    if options["seeds"] is not None:
        if options["number"] is not None or options["seed"] is not None:
            raise UserError("--seeds lists the images itself; leave out -n and --seed")
        return parse_seeds(options["seeds"])
    first, number = options["seed"] or 0, options["number"] if options["number"] is not None else 1
    if not 0 <= first <= LARGEST_SEED - MOST_SEEDS:
        raise UserError(f"--seed must be at least 0 and below 2**63 - {MOST_SEEDS}, not {first}")
    if not 1 <= number <= MOST_SEEDS:
        raise UserError(f"-n must be in 1..{MOST_SEEDS}, not {number}")
    return list(range(first, first + number))


def _check_file_alone(context: click.Context) -> None:
    given = [name for name in FROM_FILE if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        name = given[0].replace("_", "-")
        raise UserError(
            f"--from takes every setting from its file; leave out --{name} (only --out, --device, --grid, "
            "--trajectory and --quiet go with it)"
        )


def _load(options: dict[str, Any], request: Request | None, quiet: bool) -> Pipeline:
    from hastezoo.cli.transfers import transfers
    from hastezoo.pipeline import Pipeline

    keys = ("weights", "dtype", "compile", "vae", "vae_tiling")
    chosen = {key: options[key] if request is None else getattr(request, key) for key in keys}
    name = options["model"] if request is None else request.model
    device = request.device if request is not None and options["device"] == "auto" else options["device"]
    with transfers(quiet=quiet) as (say, progress):
        return Pipeline.from_pretrained(name, device=device, say=say, progress=progress, **chosen)


def _request(options: dict[str, Any], seeds: list[int], pipeline: Pipeline) -> Request:
    """Conditions x seeds: each class in the order given, drawn with every seed."""
    from hastezoo.conditioning.labels import find_label
    from hastezoo.job import Request

    classes = [find_label(one, pipeline.names) for one in options["classes"]]
    if len(set(classes)) < len(classes):
        raise UserError(f"--class names class {max(classes, key=classes.count)} twice")
    protocol = pipeline.protocol(options["protocol"], **overrides(options))
    labels = [label for label in classes for _ in seeds] or pipeline.labels(None, seeds)
    weights = options["weights"]
    return Request(
        model=options["model"],
        weights=_settled(weights),
        weights_sha256=pipeline.weights_sha256,
        vae=pipeline.autoencoder.source or None,
        vae_sha256=pipeline.autoencoder.sha256,
        vae_tiling=options["vae_tiling"],
        protocol=protocol,
        labels=labels,
        seeds=seeds * max(1, len(classes)),
        conditions=max(1, len(classes)),
        batch_size=pipeline.batch_size(options["batch_size"]),
        device=str(pipeline.device),
        dtype=options["dtype"],
        compile=options["compile"],
        format=options["format"],
    )


def _settled(weights: str | None) -> str | None:
    """A file by its absolute path, so that another working directory finds it; a place on the Hub as it is."""
    return weights if weights is None or weights.startswith("hub:") else str(Path(weights).resolve())


def _check_same(source: Path, request: Request, pipeline: Pipeline) -> None:
    """What a request recorded must be what was loaded, or its images would be others."""
    for what, then, now in (
        ("weights", request.weights_sha256, pipeline.weights_sha256),
        ("autoencoder", request.vae_sha256, pipeline.autoencoder.sha256),
    ):
        if then != now:
            raise UserError(
                f"{source} was made with another {what} (sha256 {then[:12]}...) than {request.model} has now "
                f"({now[:12]}...)"
            )


def _default_folder(request: Request, batch_size: str) -> Path:
    """The same command goes to the same folder, so that repeating it goes on where it stopped."""
    settings = request.model_dump_json(exclude={"batch_size"}) + batch_size
    digest = hashlib.sha256(settings.encode()).hexdigest()
    return Path("outputs") / f"{request.model}-{digest[:8]}"


@click.command("sample")
@click.option("--model", default=DEFAULT_CHECKPOINT, show_default=True, help="Checkpoint; `hastezoo list` shows all.")
@model_options
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="Number or name; repeatable. Without it classes are drawn from the seeds.",
)
@click.option("-n", "number", type=int, help="Images of each class: seeds SEED .. SEED+N-1.  [default: 1]")
@click.option("--seed", type=int, help="First seed.  [default: 0]")
@click.option("--seeds", metavar="LIST", help="Seeds by name instead, such as 0-15,40.")
@click.option("--protocol", metavar="NAME", help="A named protocol instead of the card's, such as haste.")
@protocol_options
@click.option("--batch-size", default="auto", show_default=True, help="Images at a time.")
@device_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: outputs/MODEL-SETTINGS]")
@click.option(
    "--format",
    type=click.Choice(["png", "npz", "webp"]),
    default="png",
    show_default=True,
    help="npz holds all images (arr_0) and labels (arr_1).",
)
@click.option("--grid/--no-grid", default=True, help="A sheet of the first images, enlarged.  [default: grid]")
@click.option(
    "--trajectory",
    type=click.Choice(["webp", "gif"]),
    is_flag=False,
    flag_value="webp",
    help="An animation from noise to image.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="SAMPLES.JSON",
    help="Make again what this file records.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
@click.pass_context
def command(
    context: click.Context,
    source: Path | None,
    out: Path | None,
    grid: bool,
    trajectory: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw images into a folder, with samples.json to make them again.

    Defaults come from the checkpoint's card. Run the same command again after an interruption and it makes only what
    is missing.
    """
    from hastezoo.cli.progress import SamplingBar
    from hastezoo.zoo.registry import find_card

    began = time.perf_counter()
    seeds: list[int] = []
    if source is None:  # what can be refused without loading torch is refused at once
        seeds = _seeds(options)
        find_card(options["model"])
    else:
        _check_file_alone(context)
    from hastezoo.job import Job, read_record, with_recorded_batch_size

    request = read_record(source) if source is not None else None
    pipeline = _load(options, request, quiet)
    if request is None:
        request = _request(options, seeds, pipeline)
    else:
        assert source is not None
        _check_same(source, request, pipeline)
        request = request.model_copy(update={"device": str(pipeline.device)})
    automatic = source is None and options["batch_size"] == "auto"
    out = out or _default_folder(request, "auto" if automatic else str(request.batch_size))
    if automatic:
        request = with_recorded_batch_size(request, out)
    job = Job(pipeline, request, out, grid=grid, trajectory=trajectory)
    with SamplingBar(request, pipeline, quiet=quiet) as bar:
        try:
            report = job.run(bar.update)
        except KeyboardInterrupt:
            bar.interrupted(job.out)
            raise SystemExit(130) from None
    bar.finished(report, job.out, time.perf_counter() - began)
