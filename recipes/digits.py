"""Trains the embedded checkpoints of 8x8 digits from nothing, on two CPU cores.

    python -m hastezoo.recipes.digits                    # sit-ti-digits into runs/sit-ti-digits
    python -m hastezoo.recipes.digits --set train.steps=2000 --out runs/short
    torchrun --nproc-per-node 2 -m hastezoo.recipes.digits

Ctrl-C keeps a checkpoint; the same command goes on from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ConfigDict

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError
from hastezoo.training.config import OptimizerConfig, TrainConfig, claim_run, configure, discard_run

if TYPE_CHECKING:
    from torch import nn

    from hastezoo.training.loop import Hook

CHECKPOINTS = ("sit-ti-digits",)


class DigitsConfig(BaseModel):
    """What is trained, and how.

    Attributes:
        architecture, model: Registered name and the values that override its own.
        train: The loop's settings.
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


def sample_grids(out: Path, checkpoint: str, every: int) -> Hook:
    """A hook that draws five of each digit with the EMA, always from the same seeds."""
    import torch

    from hastezoo import pictures
    from hastezoo.files import atomic_write
    from hastezoo.pipeline import Pipeline
    from hastezoo.training.loop import Hook
    from hastezoo.zoo.registry import find_card

    def call(step: int, model: nn.Module) -> None:
        device = next(model.parameters()).device
        pipeline = Pipeline(model, find_card(checkpoint), device=device, dtype=torch.float32)
        labels = [label for label in range(10) for _ in range(5)]
        output = pipeline(classes=labels, seeds=list(range(5)) * 10)
        (out / "samples").mkdir(exist_ok=True)
        sheet = pictures.grid(output.pixels, columns=5)
        atomic_write(out / "samples" / f"step-{step:08d}.png", pictures.encode(sheet, "png"))

    return Hook(every, call)


def run(
    checkpoint: str, config: DigitsConfig, out: Path, *, device: str = "auto", fresh: bool = False, quiet: bool = False
) -> bool:
    """Train into `out`, going on if it holds a run (or with `fresh` discarding it); True when finished.

    Raises:
        UserError: If the settings do not fit, the folder cannot be written, or the loss is not finite.
    """
    import torch

    from hastezoo.data.digits import Digits
    from hastezoo.devices import find_device
    from hastezoo.models.registry import create_model
    from hastezoo.sampling.interpolants import Linear
    from hastezoo.training.loop import train
    from hastezoo.training.objective import Denoising
    from hastezoo.training.processes import join_processes, leave_processes
    from hastezoo.zoo.modelfile import save_model

    processes = join_processes(find_device(device))
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
        if processes.main:
            if fresh:
                discard_run(out, checkpoint)
            claim_run(out, config)
        processes.wait()
        objective = Denoising(Linear(), null_label=model.null_label)  # type: ignore[arg-type]
        outcome = train(
            model,
            objective,
            samples,
            config.train,
            out,
            processes=processes,
            quiet=quiet,
            hooks=[sample_grids(out, checkpoint, config.train.sample_every)],
        )
        if processes.main and outcome.finished:
            save_model(
                out / f"{checkpoint}.safetensors", outcome.model, config.architecture, weights="ema", step=outcome.step
            )
        if processes.main:
            _say(checkpoint, out, outcome.step, outcome.finished, quiet)
        return outcome.finished
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
    click.echo(f"draw with them: hastezoo sample --model {checkpoint} --weights {weights}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--checkpoint", type=click.Choice(CHECKPOINTS), default=CHECKPOINTS[0], show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run [runs/CHECKPOINT].")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML or JSON with settings.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting, such as train.steps=2000.")
@click.option("--device", default="auto", show_default=True)
@click.option("--fresh", is_flag=True, help="Discard the run in the folder and start over.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def main(
    checkpoint: str,
    out: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    device: str,
    fresh: bool,
    quiet: bool,
) -> None:
    """Train a checkpoint of 8x8 digits from nothing; run again to go on."""
    config = configure(DigitsConfig(), file, settings)
    out = out or Path("runs") / checkpoint
    if not run(checkpoint, config, out, device=device, fresh=fresh, quiet=quiet):
        raise SystemExit(130)


if __name__ == "__main__":
    main()
