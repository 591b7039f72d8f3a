"""Trains the embedded checkpoints of 8x8 digits from nothing, on two CPU cores.

    python -m hastezoo.recipes.digits                    # sit-ti-digits-haste into runs/sit-ti-digits-haste
    python -m hastezoo.recipes.digits --checkpoint sit-ti-digits --set train.steps=2000 --out runs/short
    python -m hastezoo.recipes.digits --arm haste-irepa --out runs/irepa
    torchrun --nproc-per-node 2 -m hastezoo.recipes.digits

Ctrl-C keeps a checkpoint; the same command goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ConfigDict

from hastezoo.alignment.config import AlignmentConfig, TeacherConfig, TerminationConfig
from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError
from hastezoo.training.config import OptimizerConfig, TrainConfig, claim_run, configure, discard_run

from .digits_teacher import SHIPPED

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.data.digits import Digits
    from hastezoo.training.loop import Hook
    from hastezoo.training.processes import Processes
    from hastezoo.training.run import Run

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


def sample_grids(out: Path, every: int) -> Hook:
    """A hook that draws five of each digit with the EMA, always from the same seeds."""
    import torch

    from hastezoo import pictures
    from hastezoo.files import atomic_write
    from hastezoo.pipeline import Pipeline
    from hastezoo.training.loop import Hook
    from hastezoo.zoo.registry import find_card

    def call(run: Run) -> None:
        pipeline = Pipeline(run.ema.model, find_card(PLAIN), device=run.processes.device, dtype=torch.float32)
        labels = [label for label in range(10) for _ in range(5)]
        output = pipeline(classes=labels, seeds=list(range(5)) * 10)
        (out / "samples").mkdir(exist_ok=True)
        sheet = pictures.grid(output.pixels, columns=5)
        atomic_write(out / "samples" / f"step-{run.step:08d}.png", pictures.encode(sheet, "png"))

    return Hook(every, call)


def align(config: AlignmentConfig, model: nn.Module, device: torch.device) -> HolisticAlignment:
    """Alignment of a model with the teacher that the config names, or with the one that ships."""
    from hastezoo.alignment.holistic import create_alignment

    if config.teacher.name == SHIPPED_NAME:
        teacher = config.teacher.model_copy(update={"name": f"local-dir:{SHIPPED}"})
        config = config.model_copy(update={"teacher": teacher})
    return create_alignment(config, model, device)


def diagnoses(config: DigitsConfig, model: nn.Module, samples: Digits, processes: Processes) -> list[Hook]:
    """A look at features, attention and gradients now and then, also of a plain run, if it is asked for."""
    from hastezoo.training.probe import Probe, probe_hook

    if not config.train.diagnose_every or not processes.main:
        return []
    measured = config.alignment or HASTE
    whole = measured.model_copy(update={"attention_weight": 0.5})
    alignment = align(whole, model, processes.device)
    return [probe_hook(Probe(alignment, samples), config.train.diagnose_every)]


def run(
    checkpoint: str,
    config: DigitsConfig,
    out: Path,
    *,
    device: str = "auto",
    fresh: bool = False,
    quiet: bool = False,
    origin: Path | None = None,
    hooks: Sequence[Hook] = (),
) -> bool:
    """Train into `out`, going on if it holds a run (or with `fresh` discarding it); True when finished.

    Args:
        checkpoint: The name that the result gets.
        config: What is trained, and how.
        origin: A checkpoint of another run to begin from.
        hooks: Periodic work beside the grids of samples.

    Raises:
        UserError: If the settings do not fit, the folder cannot be written, or the loss is not finite.
    """
    import torch

    from hastezoo.data.digits import Digits
    from hastezoo.devices import find_device
    from hastezoo.models.registry import create_model
    from hastezoo.sampling.interpolants import Linear
    from hastezoo.training.checkpoints import Checkpoints, check_origin, fork
    from hastezoo.training.loop import train
    from hastezoo.training.objective import Objective
    from hastezoo.training.processes import join_processes, leave_processes
    from hastezoo.zoo.modelfile import save_model

    processes, new = join_processes(find_device(device)), False
    try:
        torch.manual_seed(config.train.seed)
        try:
            model = create_model(config.architecture, **config.model)
        except (ValueError, TypeError) as error:
            raise UserError(f"model: {error}") from None
        samples = Digits("train")
        seen: Any = model.config
        if (seen.in_channels, *seen.size) != samples.shape or seen.num_classes != 10:
            raise UserError(
                "model: the digits are 1 x 8 x 8 with 10 classes; set in_channels, input_size and num_classes so"
            )
        alignment = None if config.alignment is None else align(config.alignment, model, processes.device)
        if origin is not None and (fresh or not Checkpoints(out / "checkpoints").paths()):
            check_origin(origin)
        new = fresh or not (out / "config.json").exists()
        if processes.main:
            if fresh:
                discard_run(out, checkpoint)
            claim_run(out, config)
            if origin is not None:
                fork(origin, out)
        processes.wait()
        objective = Objective(Linear(), model.null_label, alignment)  # type: ignore[arg-type]
        outcome = train(
            model,
            objective,
            samples,
            config.train,
            out,
            processes=processes,
            quiet=quiet,
            hooks=[
                sample_grids(out, config.train.sample_every),
                *diagnoses(config, model, samples, processes),
                *hooks,
            ],
        )
        if processes.main and outcome.finished:
            save_model(
                out / f"{checkpoint}.safetensors", outcome.model, config.architecture, weights="ema", step=outcome.step
            )
        if processes.main:
            _say(checkpoint, out, outcome.step, outcome.finished, quiet)
        return outcome.finished
    except UserError:
        # A run that never began (no such teacher, say) leaves no claim that the mended command would run into.
        begun = (out / "metrics.jsonl").exists() or Checkpoints(out / "checkpoints").paths()
        if processes.main and new and not begun:
            (out / "config.json").unlink(missing_ok=True)
        raise
    finally:
        leave_processes()


def _say(checkpoint: str, out: Path, step: int, finished: bool, quiet: bool) -> None:
    if quiet:
        return
    if not finished:
        click.echo(f"stopped at step {step}; the checkpoint is in {out / 'checkpoints'}, the same command goes on")
        return
    weights = out / f"{checkpoint}.safetensors"
    click.echo(f"done: {step} steps; EMA weights in {weights}")
    card = checkpoint if checkpoint in CHECKPOINTS else PLAIN
    click.echo(f"draw with them: hastezoo sample --model {card} --weights {weights}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", type=click.Choice(list(CHECKPOINTS)), help=f"[default: {next(iter(CHECKPOINTS))}]")
@click.option("--arm", type=click.Choice(list(ARMS)), help="Any way to train one, instead of a checkpoint's own.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run [runs/NAME].")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML or JSON with settings.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting, such as train.steps=2000.")
@click.option("--fork", "origin", type=click.Path(path_type=Path), help="Begin from another run's checkpoint.")
@click.option("--device", default="auto", show_default=True)
@click.option("--fresh", is_flag=True, help="Discard the run in the folder and start over.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
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
    if not run(
        checkpoint, configure(config, file, settings), out, device=device, fresh=fresh, quiet=quiet, origin=origin
    ):
        raise SystemExit(130)


if __name__ == "__main__":
    main()
