"""`hastezoo sample`."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.asking import Ask, load, make_request
from hastezoo.cli.asking import asked_again, read_ask
from hastezoo.cli.errors import reporting_errors
from hastezoo.cli.options import device_options, model_options, protocol_options
from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from hastezoo.pipeline import Pipeline
    from hastezoo.request import Request

# What --from takes from its file and so cannot be given beside it.
FROM_FILE = (
    "model",
    "weights",
    "vae",
    "vae_tiling",
    "text_encoder",
    "classes",
    "prompt",
    "prompts",
    "negative",
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


def _check_file_alone(context: click.Context) -> None:
    given = [name for name in FROM_FILE if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        name = given[0].replace("_", "-")
        raise UserError(
            f"--from takes every setting from its file; leave out --{name} (only --out, --device, --grid, "
            "--trajectory and --quiet go with it)"
        )


def _load(ask: Ask, quiet: bool) -> Pipeline:
    from hastezoo.cli.transfers import transfers

    with transfers(quiet=quiet) as (say, progress):
        return load(ask, say=say, progress=progress)


def _check_same(source: Path, request: Request, pipeline: Pipeline) -> None:
    """What a request recorded must be what was loaded, or its images would be others."""
    from hastezoo.conditioning.conditions import Prompts

    conditions = pipeline.conditions
    encoder = conditions.encoder.sha256 if isinstance(conditions, Prompts) else ""
    for what, then, now in (
        ("weights", request.weights_sha256, pipeline.weights_sha256),
        ("autoencoder", request.vae_sha256, pipeline.autoencoder.sha256),
        ("text encoder", request.text_encoder_sha256, encoder),
    ):
        if then != now:
            raise UserError(
                f"{source} was made with another {what} (sha256 {then[:12]}...) than {request.model} has now "
                f"({now[:12]}...)"
            )


def _default_folder(request: Request, batch_size: str) -> Path:
    """The same command goes to the same folder, so that repeating it goes on where it stopped."""
    from hastezoo.request import OF_TEXT

    unused = set() if request.prompts else set(OF_TEXT)
    settings = request.model_dump_json(exclude={"batch_size", *unused}) + batch_size
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
@click.option("--prompt", multiple=True, metavar="TEXT", help="What to draw, of a model of text; repeatable.")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Prompts from a file, one a line.")
@click.option("--negative", metavar="TEXT", help="What guidance leads away from, instead of the empty prompt.")
@click.option("-n", "number", type=int, help="Images of each class or prompt: seeds SEED .. SEED+N-1.  [default: 1]")
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

    began = time.perf_counter()
    if source is not None:
        _check_file_alone(context)
    asked = None if source is not None else read_ask(options)  # what can be refused without torch is refused at once
    from hastezoo.job import Job
    from hastezoo.request import read_record, with_recorded_batch_size

    if asked is not None:
        pipeline = _load(asked, quiet)
        request = make_request(asked, pipeline)
    else:
        assert source is not None
        request = read_record(source)
        pipeline = _load(asked_again(request, options["device"]), quiet)
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
