"""The command of a recipe of latents: `python -m hastezoo.recipes.imagenet256`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError, nearest
from hastezoo.training.config import configure
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import package_cards

from . import latents
from .dry_run import BETWEEN
from .latents import LatentsConfig, check_effective_batch, check_fits, recipe_config
from .published import variants_of
from .running import recipe_options

_OF_THE_MACHINE = ("gpu", "utilisation", "price", "gpus_per_node", "link", "between")  # of the dry run
_OPTIONS = (
    click.option("--checkpoint", metavar="NAME", help="Which checkpoint to train; --list shows them."),
    click.option(
        "--variant",
        "variants",
        multiple=True,
        metavar="NAME",
        help="Another published way to train it; --list shows them; repeatable.",
    ),
    click.option("--list", "listing", is_flag=True, help="The checkpoints of this recipe, and their variants."),
    click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="A data set of `hastezoo prepare`."),
    click.option("--dry-run", is_flag=True, help="What the run will take, and nothing else; needs no data."),
    click.option("--gpu", default="h100", show_default=True, help="Of the dry run."),
    click.option("--gpus", type=click.IntRange(1), help="Of the dry run [8, or as torchrun started]."),
    click.option("--utilisation", default=0.25, show_default=True, help="Of the dry run: share of the GPU's peak."),
    click.option("--price", type=click.FloatRange(0), help="Of the dry run: of a GPU for an hour."),
    click.option(
        "--gpus-per-node", type=click.IntRange(1), default=8, show_default=True, help="Of the dry run: GPUs of a node."
    ),
    click.option("--link", metavar="NAME", help="Of the dry run: joins a node's GPUs, such as pcie5-x16 [the GPU's]."),
    click.option(
        "--between",
        metavar="[PORTSx]NAME",
        default=BETWEEN,
        show_default=True,
        help="Of the dry run: joins nodes, such as ethernet-25g.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The dry run, or the list, as JSON."),
    click.option(
        "--resume",
        type=click.Choice(["auto", "never", "require"]),
        default="auto",
        show_default=True,
        help="auto goes on if the folder holds a run; never refuses then; require refuses if it holds none.",
    ),
    click.option("--allow-batch-mismatch", is_flag=True, help="Train with another effective batch than the paper's."),
)


def make_command(recipe: str, default: str, summary: str) -> click.Command:
    """The command of one recipe.

    Args:
        recipe: Its module.
        default: The checkpoint that it trains unless told otherwise.
        summary: Its help.
    """

    def main(**options: Any) -> None:
        run_command(recipe, default, options)

    main.__doc__ = summary
    command: Callable[..., Any] = recipe_options(reporting_errors(main))
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.command(context_settings={"help_option_names": ["-h", "--help"]})(command)


def run_command(recipe: str, default: str, options: dict[str, Any]) -> None:
    """What the command does."""
    cards = latents.checkpoints(recipe)
    if options["listing"]:
        _list(cards, default, options["as_json"])
        return
    card = _chosen(cards, recipe, options["checkpoint"] or default)
    base = recipe_config(card, options["variants"])
    config = _with_path(configure(base, options["file"], options["settings"]), options["data"])
    if options["dry_run"]:
        _dry_run(card, base, config, options)
        return
    if config.data.path is None:
        raise UserError(_no_data(recipe, card, config))
    if not options["allow_batch_mismatch"]:
        check_effective_batch(card.name, base, config, int(os.environ.get("WORLD_SIZE", "1")))
    out = options["out"] or Path("runs") / "-".join([card.name, *options["variants"]])
    _check_resume(options["resume"], out, options["fresh"])
    keys = ("device", "fresh", "quiet", "origin")
    latents.run(recipe, card.name, config, out, **{key: options[key] for key in keys})


def _chosen(cards: dict[str, Card], recipe: str, name: str) -> Card:
    if name not in cards:
        near = nearest(name, cards) or list(cards)
        raise UserError(
            f"{recipe} trains no checkpoint {name!r}{_elsewhere(name)}; nearest: {', '.join(near)} (--list shows all)"
        )
    return cards[name]


def _elsewhere(name: str) -> str:
    """Which other recipe trains a checkpoint, if this version has it."""
    card = package_cards().get(name)
    there = card and find_spec(f"hastezoo.recipes.{card.recipe}")
    return f" (python -m hastezoo.recipes.{card.recipe} does)" if card and there else ""


def _with_path(config: LatentsConfig, path: Path | None) -> LatentsConfig:
    return config if path is None else config.model_copy(update={"data": config.data.model_copy(update={"path": path})})


def _no_data(recipe: str, card: Card, config: LatentsConfig) -> str:
    if card.text is not None:
        return (
            f"{card.name} trains on prepared captioned images; give them with --data FOLDER\n"
            f"prepare them, once: hastezoo prepare {recipe} train2014/ captions_train2014.json FOLDER; --dry-run says "
            "what training takes"
        )
    flip = " --vae ema --flip" if config.data.flip else ""
    return (
        f"{card.name} trains on a prepared data set; give it with --data FOLDER\n"
        f"prepare one, once: hastezoo prepare {recipe} /path/to/ILSVRC/train FOLDER{flip} (SOURCE may be "
        "hf:ILSVRC/imagenet-1k; `prepare folder` takes your own images); --dry-run says what training takes"
    )


def _check_resume(resume: str, out: Path, fresh: bool) -> None:
    there = (out / "config.json").exists()
    if resume == "never" and there and not fresh:
        raise UserError(f"{out} holds a run, and --resume never; give another --out, or --fresh to discard it")
    if resume == "require" and fresh:
        raise UserError("--fresh discards the run that --resume require goes on with; leave one out")
    if resume == "require" and not there:
        raise UserError(f"{out} holds no run, and --resume require; name its folder with --out")


def _list(cards: dict[str, Card], default: str, as_json: bool) -> None:
    if as_json:
        described = [
            {
                "checkpoint": name,
                "method": card.method,
                "parameters": card.parameters,
                "default": name == default,
                "variants": {key: one.about for key, one in variants_of(card).items()},
                "config": recipe_config(card).model_dump(mode="json"),
            }
            for name, card in cards.items()
        ]
        click.echo(json.dumps(described, indent=2))
        return
    from hastezoo.cli.tables import print_table

    rows: list[dict[str, object]] = []
    for name, card in cards.items():
        config = recipe_config(card)
        end = config.alignment.termination if config.alignment else None
        rows.append(
            {
                "checkpoint": name,
                "method": card.method,
                "params": f"{card.parameters / 1e6:.1f} M",
                "steps": f"{config.train.steps:,}",
                "alignment ends": "-" if end is None else f"{end.step:,}" if end.step else end.kind,
                "": "default" if name == default else "",
            }
        )
    print_table(rows, right=("params", "steps", "alignment ends"))
    about = {key: one.about for card in cards.values() for key, one in variants_of(card).items()}
    for key, text in about.items():
        click.echo(f"--variant {key}: {text}")


def _dry_run(card: Card, base: LatentsConfig, config: LatentsConfig, options: dict[str, Any]) -> None:
    from hastezoo.data.manifest import Manifest

    from . import dry_run

    manifest = Manifest.read(config.data.path) if config.data.path is not None else None
    if manifest is not None:
        check_fits(config, manifest)
    gpus = dry_run.processes_here(options["gpus"])
    if not options["allow_batch_mismatch"]:
        check_effective_batch(card.name, base, config, gpus)
    machine = dry_run.Machine(gpus=gpus, **{key: options[key] for key in _OF_THE_MACHINE})
    planned = dry_run.plan(card, config, machine, manifest, base)
    if options["as_json"]:
        click.echo(json.dumps(dry_run.as_json(planned), indent=2))
    else:
        dry_run.show(planned)
