"""What every recipe does around the training loop: claim the folder, train, save, say; and its options."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click
from pydantic import BaseModel

from hastezoo.errors import UserError
from hastezoo.files import alone_in
from hastezoo.training.config import TrainConfig, claim_run, discard_run, make_folder, withdraw_claim

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.processes import Processes
    from hastezoo.training.loop import Hook
    from hastezoo.training.record import RunRecord
    from hastezoo.training.samples import Samples


class RecipeConfig(Protocol):
    """What a recipe's configuration has at least."""

    @property
    def architecture(self) -> str: ...
    @property
    def model(self) -> dict[str, Any]: ...
    @property
    def train(self) -> TrainConfig: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Parts:
    """What a recipe puts together.

    Attributes:
        model: With random weights that are a function of the seed.
        samples: The data set.
        alignment: Of the model with a teacher, or none.
        record: What is written beside the settings.
        hooks: Makes the periodic work; called when the folder is the run's.
        null: The condition that means none: the null label, or the states (L, D) of the empty prompt.
    """

    model: nn.Module
    samples: Samples
    alignment: HolisticAlignment | None
    record: RunRecord
    hooks: Callable[[], Sequence[Hook]]
    null: int | Tensor


def create(config: RecipeConfig) -> nn.Module:
    """The model, initialised from the run's seed.

    Raises:
        UserError: If its settings do not fit.
    """
    import torch

    from hastezoo.models.registry import create_model

    torch.manual_seed(config.train.seed)
    try:
        return create_model(config.architecture, **config.model)
    except (ValueError, TypeError) as error:
        raise UserError(f"model: {error}") from None


def run(
    checkpoint: str,
    config: BaseModel,
    out: Path,
    assemble: Callable[[Processes], Parts],
    *,
    device: str = "auto",
    fresh: bool = False,
    quiet: bool = False,
    origin: Path | None = None,
    hooks: Sequence[Hook] = (),
) -> None:
    """Train into `out`, going on if it holds a run (or with `fresh` discarding it), until it is finished.

    Args:
        checkpoint: The name that the result gets.
        config: A `RecipeConfig`.
        assemble: Puts model, data and teacher together for these processes; nothing is written before it returns.
        origin: A checkpoint of another run to begin from.
        hooks: Periodic work beside the recipe's own.

    Raises:
        UserError: If the settings do not fit, the folder cannot be written, or the loss is not finite.
        SystemExit: If a signal stopped it: 130 after Ctrl-C, 75 (`REQUEUE`) where a scheduler did.
    """
    from hastezoo.devices import find_device
    from hastezoo.processes import end_launcher, join_processes, leave_processes
    from hastezoo.sampling.interpolants import Linear
    from hastezoo.training.checkpoints import Checkpoints, check_origin, fork
    from hastezoo.training.loop import train
    from hastezoo.training.objective import Objective

    settings: Any = config
    parallel = settings.train.parallel
    processes = join_processes(find_device(device), silence=parallel.silence, stall=parallel.stall)
    new, held = False, ExitStack()
    try:
        parts = assemble(processes)
        if origin is not None and (fresh or not Checkpoints(out / "checkpoints").paths()):
            check_origin(origin)
        if processes.main:
            make_folder(out)
            held.enter_context(alone_in(out, "training in"))
            new = fresh or not (out / "config.json").exists()
            if fresh:
                discard_run(out, checkpoint)
            claim_run(out, config)
            parts.record.write(out)
            if origin is not None:
                fork(origin, out)
        processes.wait()
        objective = Objective(Linear(), parts.null, parts.alignment)
        every = [*parts.hooks(), *hooks] if processes.main else []
        outcome = train(
            parts.model, objective, parts.samples, settings.train, out, processes=processes, quiet=quiet, hooks=every
        )
        if processes.main:
            _conclude(checkpoint, settings.architecture, out, outcome, quiet)
    except UserError:
        # A run that never began (no such teacher, say) leaves no claim that the mended command would run into.
        begun = (out / "metrics.jsonl").exists() or Checkpoints(out / "checkpoints").paths()
        if new and not begun:
            withdraw_claim(out)
        raise
    finally:
        processes.heart.close(error=sys.exc_info()[0] is not None)
        held.close()
        leave_processes()
    if not outcome.finished:
        end_launcher()
        raise SystemExit(outcome.stop.exit_code)


def _conclude(checkpoint: str, architecture: str, out: Path, outcome: Any, quiet: bool) -> None:
    """Save the average of a finished run, and say what to do next."""
    from hastezoo.zoo.modelfile import save_model

    weights = out / f"{checkpoint}.safetensors"
    if outcome.finished:
        save_model(weights, outcome.model, architecture, weights="ema", step=outcome.step)
    if quiet:
        return
    if not outcome.finished:
        click.echo(
            f"stopped at step {outcome.step}; the checkpoint is in {out / 'checkpoints'}, the same command goes on"
        )
        return
    click.echo(f"done: {outcome.step} steps; EMA weights in {weights}")
    click.echo(f"draw with them: hastezoo export {out} --as NAME, then hastezoo sample --model NAME")


Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run [runs/NAME]."),
    click.option("--config", "file", type=click.Path(path_type=Path), help="TOML or JSON with settings."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting, such as optimizer.lr=2e-4; repeatable.",
    ),
    click.option("--fork", "origin", type=click.Path(path_type=Path), help="Begin from another run's checkpoint."),
    click.option("--device", default="auto", show_default=True),
    click.option("--fresh", is_flag=True, help="Discard the run in the folder and start over."),
    click.option("--quiet", is_flag=True, help="No progress."),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)


def recipe_options(command: Command) -> Command:
    """The options that all recipes have."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
