"""`hastezoo eval-fid`."""

from __future__ import annotations

import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.cli.options import device_options, model_options, overrides, protocol_options
from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, find_card

if TYPE_CHECKING:
    from hastezoo.evaluation.images import Images
    from hastezoo.evaluation.run import Kept, Plan
    from hastezoo.processes import Processes
    from hastezoo.zoo.card import Card

# What says how images are drawn, and so does not go with images that exist.
DRAWING = (
    "model", "weights", "vae", "vae_tiling", "text_encoder", "prompts", "protocol", "solver", "steps", "cfg",
    "interval", "channels", "diffusion", "last_step", "start", "labels", "seed", "dtype", "compile", "save_samples",
)  # fmt: skip
READ_AT_ONCE = 64  # images of a batch where they are read and not drawn


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
@click.pass_context
def command(context: click.Context, **options: Any) -> None:
    """Measure a checkpoint, or images that exist: FID, sFID, Inception Score, precision, recall, KID.

    Images are drawn and measured in one pass and not kept. What is done stays: the same command goes on after an
    interruption, and `torchrun --nproc-per-node 8 -m hastezoo eval-fid ...` shares the work out; the numbers depend
    on neither. (torchrun takes --num for an option of its own: give it -n.)
    """
    metrics = _metrics(options["metrics"])
    if options["samples"] is not None:
        _check_existing_alone(context)
    card = find_card(options["model"]) if options["samples"] is None else None
    if card is not None:
        _check_prompts(options, card)
    _settle(options, card)
    plan, settings, kept = _plan(options, card, metrics)
    if plan.rank:
        _share(plan)
        return
    _evaluate(options, card, plan, settings, kept)


def _quiet(options: dict[str, Any]) -> bool:
    return bool(options["quiet"] or options["as_json"])


def _metrics(text: str | None) -> tuple[str, ...] | None:
    """The metrics asked for; None for all that the features have."""
    from hastezoo.evaluation.measure import check_metrics

    if text is None:
        return None
    metrics = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    check_metrics(metrics)
    return metrics


def _check_existing_alone(context: click.Context) -> None:
    given = [name for name in DRAWING if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given:
        raise UserError(f"--samples measures images that exist; leave out --{given[0].replace('_', '-')}")


def _check_prompts(options: dict[str, Any], card: Card) -> None:
    """Prompts for a model of text, and for no other; said before anything is loaded."""
    if card.text is None and options["prompts"] is not None:
        raise UserError(f"{card.name} draws classes, not text: leave out --prompts")
    if card.text is not None and options["prompts"] is None:
        from hastezoo.evaluation.prompts import KINDS

        raise UserError(f"{card.name} draws from text; name its prompts with --prompts: {KINDS}")
    if card.text is not None and options["labels"]:
        raise UserError(f"{card.name} draws from text: leave out --labels")


def _settle(options: dict[str, Any], card: Card | None) -> None:
    """What was not given is taken from the figure that the card states, so that the two can be compared."""
    from hastezoo.evaluation.extractors import check_extractor
    from hastezoo.evaluation.references import find_file
    from hastezoo.evaluation.results.expected import stated

    figure = stated(card, options["features"]) if card is not None else None
    by_reference = "pixels" if str(options["reference"] or "").partition("-")[0] == "digits" else "inception"
    options["features"] = options["features"] or (figure.features if figure else "") or by_reference
    check_extractor(options["features"])
    options["reference"] = options["reference"] or (figure.reference if figure else "")
    if not options["reference"]:
        raise UserError("no --reference: name imagenet256, digits, ADM's npz, a folder, or a file of `reference build`")
    find_file(options["reference"])  # one that is not here is said before gigabytes are fetched
    if card is not None and options["protocol"] is None:
        options["protocol"] = (figure.protocol if figure else "") or card.protocol


def _plan(
    options: dict[str, Any], card: Card | None, metrics: tuple[str, ...] | None
) -> tuple[Plan, dict[str, Any], Kept | None]:
    """Load everything but the reference: (what to do, settings of how images come about, who keeps the images)."""
    from hastezoo.cli.evaluation import load_extractor
    from hastezoo.devices import find_device
    from hastezoo.evaluation.measure import metrics_for
    from hastezoo.evaluation.run import Plan, default_folder
    from hastezoo.processes import share_of_processes

    processes = share_of_processes(find_device(options["device"]))
    extractor = load_extractor(options, str(processes.device), quiet=_quiet(options) or not processes.main)
    if card is not None:
        images, count, batch_size, settings = _drawn(options, card, processes)
    else:
        images, count, batch_size, settings = _existing(options)
    out = options["out"] or default_folder(images, extractor)
    kept = _kept(options["save_samples"], out, images) if card is not None else None
    plan = Plan(
        images=images,
        extractor=extractor,
        count=count,
        out=out,
        batch_size=batch_size,
        metrics=metrics if metrics is not None else metrics_for(extractor, images.shape),
        allow_few=options["allow_few"],
        curve=options["curve"],
        watchers=[kept] if kept is not None else [],
        rank=processes.rank,
        ranks=processes.count,
    )
    return plan, settings | _circumstances(processes), kept


def _drawn(options: dict[str, Any], card: Card, processes: Processes) -> tuple[Images, int, int, dict[str, Any]]:
    """(images, how many of them, how many at a time, settings)."""
    from hastezoo.cli.transfers import transfers
    from hastezoo.conditioning.conditions import Prompts
    from hastezoo.evaluation.generated import Generated, settings_of
    from hastezoo.evaluation.prompts import open_prompts
    from hastezoo.pipeline import Pipeline
    from hastezoo.zoo.registry import make_protocol

    labels = {"labels": options["labels"]} if options["labels"] else {}
    protocol = make_protocol(options["protocol"], overrides(options) | labels)
    count = options["num"] if options["num"] is not None else protocol.count
    if count is None:
        raise UserError(f"the protocol {options['protocol']} states no number of images; give --num")
    if count < 1:
        raise UserError(f"--num must be at least 1, not {count}")
    prompts = open_prompts(options["prompts"]) if options["prompts"] is not None else None
    if prompts is not None:
        prompts.check(count)  # before gigabytes are fetched
    keys = ("weights", "dtype", "compile", "vae", "vae_tiling", "text_encoder")
    # A data set keeps the states of its captions, which another encoder would make otherwise.
    known = prompts.encoder if prompts is not None and options["text_encoder"] is None else None
    with transfers(quiet=_quiet(options) or not processes.main) as (say, progress):
        pipeline = Pipeline.from_pretrained(
            card.name,
            device=str(processes.device),
            conditions=Prompts(known) if known is not None else None,
            say=say,
            progress=progress,
            **{key: options[key] for key in keys},
        )
    images = Generated(pipeline, protocol, count=count, seed=options["seed"], prompts=prompts)
    settings = settings_of(images, options["protocol"], weights=options["weights"])
    return images, count, pipeline.batch_size(options["batch_size"]), settings


def _existing(options: dict[str, Any]) -> tuple[Images, int, int, dict[str, Any]]:
    """(images, how many of them, how many at a time, settings)."""
    from hastezoo.evaluation.images import open_images

    batch_size = options["batch_size"]
    if batch_size != "auto" and not (str(batch_size).isdecimal() and int(batch_size) > 0):
        raise UserError(f"batch size {batch_size!r} is neither a number of at least 1 nor auto")
    images = open_images(options["samples"])
    count = images.count if options["num"] is None else options["num"]
    if not 1 <= count <= images.count:
        raise UserError(f"--num {count}: {images.description} has {images.count} images")
    return images, count, READ_AT_ONCE if batch_size == "auto" else int(batch_size), {"samples": images.description}


def _kept(form: str | None, out: Path, images: Any) -> Kept | None:
    """Where the images go, if they are to be kept: a folder for each number of them, for an npz has one length."""
    from hastezoo.evaluation.run import Kept
    from hastezoo.stores import ArrayFile, ImageFiles

    if form is None:
        return None
    folder = out / f"samples-{images.count}"
    folder.mkdir(parents=True, exist_ok=True)
    labels = list(range(images.count)) if images.labels is None else images.labels.tolist()
    store = ArrayFile(folder, labels) if form == "npz" else ImageFiles(folder, images.marks, images.seeds, "png")
    return Kept(store, folder)


def _circumstances(processes: Processes) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name(processes.device) if processes.device.type == "cuda" else ""
    return {
        "device": f"{processes.device} ({name})" if name else str(processes.device),
        "threads": torch.get_num_threads(),
        "command": shlex.join(["hastezoo", *sys.argv[1:]]),
    }


def _share(plan: Plan) -> None:
    """What a process does that is not the one that writes."""
    from hastezoo.evaluation.run import prepare_features

    try:
        prepare_features(plan)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _evaluate(
    options: dict[str, Any], card: Card | None, plan: Plan, settings: dict[str, Any], kept: Kept | None
) -> None:
    from hastezoo.cli.evaluation import EvaluationBar, show
    from hastezoo.evaluation.references import load_reference
    from hastezoo.evaluation.results.report import conclude
    from hastezoo.evaluation.run import check, evaluate
    from hastezoo.files import alone_in

    began = time.perf_counter()
    quiet = _quiet(options)
    with EvaluationBar(plan, quiet=quiet) as bar:
        reference = load_reference(
            options["reference"], plan.extractor, batch_size=plan.batch_size, say=bar.say, progress=bar.reference
        )
        for line in check(plan, reference):
            warnings.warn(line, stacklevel=2)
        plan.out.mkdir(parents=True, exist_ok=True)
        try:
            with alone_in(plan.out, "evaluating into"):
                place = settings["device"].partition(" ")[0]
                near = place if place.startswith("cuda") else "cpu"  # where there is neither half nor double precision
                outcome = evaluate(plan, reference, device=near, progress=bar.images, stage=bar.stage)
                if kept is not None:
                    kept.store.finish()
                result, files = conclude(plan.out, outcome, settings, card)
                prompts = getattr(plan.images, "prompts", None)
                if prompts is not None:
                    files = [*files, prompts.write(plan.out, plan.count)]
        except KeyboardInterrupt:
            bar.interrupted()
            raise SystemExit(130) from None
    if options["as_json"]:
        click.echo(result.model_dump_json(indent=2))
    elif not quiet:
        show(result, [*files, *([kept.folder] if kept else [])], time.perf_counter() - began)
