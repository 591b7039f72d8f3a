"""Trains the embedded checkpoints of 8x8 digits from nothing, on two CPU cores.

    python -m hastezoo.recipes.digits                    # sit-ti-digits-haste into runs/sit-ti-digits-haste
    python -m hastezoo.recipes.digits --checkpoint sit-ti-digits --set train.steps=2000 --out runs/short
    python -m hastezoo.recipes.digits --arm haste-irepa --out runs/irepa
    torchrun --nproc-per-node 2 -m hastezoo.recipes.digits

Ctrl-C keeps a checkpoint; the same command goes on from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ConfigDict

from hastezoo.alignment.config import AlignmentConfig, TeacherConfig, TerminationConfig
from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError
from hastezoo.training.config import OptimizerConfig, TrainConfig, configure

from . import running
from .digits_teacher import SHIPPED
from .evaluating import EvaluationConfig, quick_fid
from .hooks import diagnoses, sample_grids
from .running import Parts, create, recipe_options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.pipeline import Pipeline
    from hastezoo.processes import Processes
    from hastezoo.training.loop import Hook

SHIPPED_NAME = "digits-vit"  # stands for the teacher beside the recipes, wherever they are installed
TAU = 500  # steps with alignment; docs/haste-on-a-laptop.md shows how it was found
# Which arm trains each checkpoint; the first is what is trained unless told otherwise.
PLAIN = "sit-ti-digits"
CHECKPOINTS = {f"{PLAIN}-haste": "haste", PLAIN: "none", f"{PLAIN}-repa": "repa"}
HASTE = AlignmentConfig(
    teacher=TeacherConfig(name=SHIPPED_NAME),
    feature_layer=3,
    attention_pairs=((1, 2), (2, 3)),
    projector_width=256,
    termination=TerminationConfig(kind="step", step=TAU, start=250, every=250, images=512, block=1),
)
NEVER = HASTE.termination.model_copy(update={"kind": "never", "step": None})
REPA = {"attention_weight": 0.0, "termination": NEVER}
ARMS: dict[str, AlignmentConfig | None] = {
    "none": None,
    "repa": HASTE.model_copy(update=REPA),
    "attention": HASTE.model_copy(update={"feature_weight": 0.0}),
    "haste": HASTE,
    "haste-irepa": HASTE.model_copy(update={"projector": "conv"}),
    "haste-never": HASTE.model_copy(update={"termination": NEVER}),
}


class DigitsConfig(BaseModel):
    """What is trained, and how.

    Attributes:
        architecture, model: Registered name and the values that override its own.
        train: The loop's settings.
        alignment: With which teacher and how; None for a plain model.
        evaluation: A quick distance of raw pixels while it trains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str = "sit_ti_2"
    model: dict[str, Any] = {"input_size": 8, "in_channels": 1, "num_classes": 10}
    train: TrainConfig = TrainConfig(
        steps=4_000,
        batch_size=64,
        optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.01, warmup_steps=200),
        ema_decay=0.999,
    )
    alignment: AlignmentConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig(images=1000, reference="digits", features="pixels", steps=25)


def align(config: AlignmentConfig, model: nn.Module, device: torch.device) -> HolisticAlignment:
    """Alignment of a model with the teacher that the config names, or with the one that ships."""
    from hastezoo.alignment.holistic import create_alignment

    if config.teacher.name == SHIPPED_NAME:
        teacher = config.teacher.model_copy(update={"name": f"local-dir:{SHIPPED}"})
        config = config.model_copy(update={"teacher": teacher})
    return create_alignment(config, model, device)


def _pictures(out: Path, config: DigitsConfig, processes: Processes) -> list[Hook]:
    """Grids of five of each digit, and what is measured of others."""
    import torch

    from hastezoo.pipeline import Pipeline
    from hastezoo.zoo.registry import find_card

    def pipeline_of(network: nn.Module) -> Pipeline:
        return Pipeline(network, find_card(PLAIN), device=processes.device, dtype=torch.float32)

    labels = [label for label in range(10) for _ in range(5)]
    grids = sample_grids(out, config.train.sample_every, pipeline_of, labels, list(range(5)) * 10, columns=5)
    return [grids, *quick_fid(config.evaluation, pipeline_of, "digits-nocfg", str(processes.device))]


def assemble(checkpoint: str, config: DigitsConfig, out: Path, processes: Processes) -> Parts:
    """The model, the digits, the teacher."""
    from hastezoo.data.digits import Digits
    from hastezoo.training.record import RunRecord, typed_command

    model = create(config)
    samples = Digits("train")
    seen: Any = model.config
    if (seen.in_channels, *seen.size) != samples.shape or seen.num_classes != 10:
        raise UserError(
            "model: the digits are 1 x 8 x 8 with 10 classes; set in_channels, input_size and num_classes so"
        )
    alignment = None if config.alignment is None else align(config.alignment, model, processes.device)
    record = RunRecord(
        recipe="digits",
        checkpoint=checkpoint if checkpoint in CHECKPOINTS else PLAIN,
        command=typed_command("hastezoo.recipes.digits"),
        device=str(processes.device),
        processes=processes.count,
        data="UCI digits of scikit-learn, the 1437 of the train split",
        samples=len(samples),
        class_list="digits",
        resolution=8,
    )

    def hooks() -> list[Hook]:
        measured = (config.alignment or HASTE).model_copy(update={"attention_weight": 0.5})
        looks = diagnoses(config.train, lambda: align(measured, model, processes.device), samples, processes)
        return [*_pictures(out, config, processes), *looks]

    return Parts(model, samples, alignment, record, hooks, seen.num_classes)


def run(checkpoint: str, config: DigitsConfig, out: Path, **options: Any) -> None:
    """Train into `out`, going on if it holds a run, until it is finished. Options and errors are `running.run`'s."""
    running.run(checkpoint, config, out, lambda processes: assemble(checkpoint, config, out, processes), **options)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", type=click.Choice(list(CHECKPOINTS)), help=f"[default: {next(iter(CHECKPOINTS))}]")
@click.option("--arm", type=click.Choice(list(ARMS)), help="Any way to train one, instead of a checkpoint's own.")
@recipe_options
@reporting_errors
def main(
    checkpoint: str | None,
    arm: str | None,
    out: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    origin: Path | None,
    device: str,
    fresh: bool,
    quiet: bool,
) -> None:
    """Train a checkpoint of 8x8 digits from nothing; run again to go on."""
    if checkpoint and arm:
        raise UserError(f"--checkpoint {checkpoint} has an arm of its own; give that or --arm {arm}")
    checkpoint = checkpoint or (f"{PLAIN}-{arm}" if arm else next(iter(CHECKPOINTS)))
    config = DigitsConfig(alignment=ARMS[arm or CHECKPOINTS[checkpoint]])
    out = out or Path("runs") / checkpoint
    run(checkpoint, configure(config, file, settings), out, device=device, fresh=fresh, quiet=quiet, origin=origin)


if __name__ == "__main__":
    main()
