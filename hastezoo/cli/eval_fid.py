"""`hastezoo eval-fid`."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.cli.options import device_options, model_options, overrides, protocol_options
from hastezoo.cli.stopping import requeued_when_stopped
from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, find_card

if TYPE_CHECKING:
    from hastezoo.evaluation.asking import EvaluationAsk
    from hastezoo.evaluation.run import Plan
    from hastezoo.zoo.card import Card

# What says how images are drawn, and so does not go with images that exist.
DRAWING = (
    "model", "weights", "vae", "vae_tiling", "text_encoder", "prompts", "protocol", "solver", "steps", "cfg",
    "interval", "channels", "diffusion", "last_step", "start", "labels", "seed", "dtype", "compile", "save_samples",
)  # fmt: skip


@click.command("eval-fid")
@click.option("--model", default=DEFAULT_CHECKPOINT, show_default=True, help="Checkpoint; `hastezoo list` shows all.")
@click.option("--samples", metavar="FILE.npz|FOLDER|DATASET", help="Measure images that exist instead.")
@click.option(
    "--reference",
    metavar="REF",
    help="ADM's npz, a folder, a prepared data set, a file of `hastezoo reference build`, or a name: imagenet256, "
    "imagenet512, coco256-val, digits.  [default: that of the checkpoint's stated figure]",
)
@click.option("-n", "--num", "num", type=int, help="Images.  [default: the protocol's count, or all that exist]")
@click.option("--metrics", help="Some of fid,sfid,is,pr,kid; pr is precision and recall.  [default: all there are]")
@click.option(
    "--features", help="What sees the images: inception, dinov2, pixels.  [default: as the checkpoint's stated figure]"
)
@click.option("--inception", type=click.Path(path_type=Path), metavar="FILE", help="The Inception weights.")
@click.option("--dinov2", type=click.Path(path_type=Path), metavar="FILE", help="The DINOv2 weights.")
@model_options
@click.option("--protocol", metavar="NAME", help="A named protocol.  [default: that of the checkpoint's stated figure]")
@protocol_options
@click.option(
    "--labels", type=click.Choice(["random", "balanced"]), help="How classes are drawn.  [default: as the protocol]"
)
@click.option(
    "--prompts",
    metavar="FILE|DATASET",
    help="Of a model of text: COCO's captions_val2014.json or a prepared data set, of whose images one caption each is "
    "drawn by a fixed rule, or a file with a prompt a line.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the first image; the others count on.")
@click.option("--batch-size", default="auto", show_default=True, help="Images at a time.")
@device_options
@click.option("--save-samples", type=click.Choice(["npz", "png"]), help="Keep the images too.")
@click.option("--allow-few", is_flag=True, help="Measure with fewer images than the features have dimensions.")
@click.option("--curve/--no-curve", default=True, help="FID against the number of samples.  [default: curve]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [default: outputs/eval-NAME-SETTINGS]")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON, and nothing else.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
@requeued_when_stopped
@click.pass_context
def command(context: click.Context, **options: Any) -> None:
    """Measure a checkpoint, or images that exist: FID, sFID, Inception Score, precision, recall, KID.

    Images are drawn and measured in one pass and not kept. What is done stays: the same command goes on after an
    interruption, and `torchrun --nproc-per-node 8 -m hastezoo eval-fid ...`, or RANK and WORLD_SIZE set by hand or a
    scheduler, share the work out; the numbers depend on neither. (torchrun takes --num for an option of its own: give
    it -n.) SIGTERM and SIGUSR1 end it with exit code 75, to be requeued.
    """
    from hastezoo.evaluation.asking import settled

    ask = _ask(options)
    if ask.samples is not None:
        _check_existing_alone(context)
    card = find_card(ask.model) if ask.samples is None else None
    ask = settled(ask, card)
    plan, settings = _plan(options, ask, card)
    if plan.rank:
        _share(plan)
        return
    _evaluate(options, ask, card, plan, settings)


def _quiet(options: dict[str, Any]) -> bool:
    return bool(options["quiet"] or options["as_json"])


def _ask(options: dict[str, Any]) -> EvaluationAsk:
    """The options are called as what they ask for."""
    from hastezoo.evaluation.asking import EvaluationAsk

    said = {field.name: options[field.name] for field in fields(EvaluationAsk) if options.get(field.name) is not None}
    return EvaluationAsk(**{**said, "overrides": overrides(options), "metrics": _metrics(options["metrics"])})


def _metrics(text: str | None) -> tuple[str, ...] | None:
    """The metrics asked for; None for all that the features have."""
    if text is None:
        return None
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _check_existing_alone(context: click.Context) -> None:
    given = [name for name in DRAWING if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise UserError(f"--samples measures images that exist; leave out --{given[0].replace('_', '-')}")


def _plan(options: dict[str, Any], ask: EvaluationAsk, card: Card | None) -> tuple[Plan, dict[str, Any]]:
    """Load everything but the reference: (what to do, settings of how images come about)."""
    from hastezoo.cli.evaluation import load_extractor
    from hastezoo.cli.transfers import transfers
    from hastezoo.evaluation.loading import find_processes
    from hastezoo.evaluation.planning import plan_drawn, plan_existing

    processes = find_processes(ask)
    quiet = _quiet(options) or not processes.main
    # Under a bar of its own, which names what is downloaded.
    extractor = load_extractor({**options, "features": ask.features}, str(processes.device), quiet=quiet)
    command = shlex.join(["hastezoo", *sys.argv[1:]])
    if card is None:
        return plan_existing(ask, extractor=extractor, processes=processes, command=command)
    with transfers(quiet=quiet) as (say, progress):
        return plan_drawn(
            ask, card, extractor=extractor, processes=processes, command=command, say=say, progress=progress
        )


def _share(plan: Plan) -> None:
    """What a process does that is not the one that writes."""
    from hastezoo.evaluation.run import prepare_features

    try:
        prepare_features(plan)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _evaluate(
    options: dict[str, Any], ask: EvaluationAsk, card: Card | None, plan: Plan, settings: dict[str, Any]
) -> None:
    from hastezoo.cli.evaluation import EvaluationBar, show
    from hastezoo.evaluation.following import run
    from hastezoo.evaluation.references import load_reference

    began = time.perf_counter()
    quiet = _quiet(options)
    with EvaluationBar(plan, quiet=quiet) as bar:
        # Not within `run`: an interruption here leaves no features to speak of.
        reference = load_reference(
            ask.reference, plan.extractor, batch_size=plan.batch_size, say=bar.say, progress=bar.reference
        )
        try:
            result, files = run(plan, settings, ask, card, reference=reference, watcher=bar)
        except KeyboardInterrupt:
            bar.interrupted()
            raise SystemExit(130) from None
    if options["as_json"]:
        click.echo(result.model_dump_json(indent=2))
    elif not quiet:
        show(result, files, time.perf_counter() - began)
