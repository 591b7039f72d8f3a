"""The training loop. Reads from top to bottom; what varies comes in as an argument.

A run is a function of its configuration. Order, times, noise and label dropout are functions of the step, and a
checkpoint holds parameters, EMA and optimizer, so a run that was stopped, or killed after a checkpoint, goes on as if
nothing had happened: on one CPU, bit for bit.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from hastezoo.data.order import StepOrder
from hastezoo.errors import UserError
from hastezoo.training.checkpoints import Checkpoints
from hastezoo.training.config import TrainConfig
from hastezoo.training.ema import Ema
from hastezoo.training.objective import Draws, Loss, draw
from hastezoo.training.processes import Processes
from hastezoo.training.tracking import JsonLines, TrainingBar


class Samples(Sized, Protocol):
    """A data set that hands out whole batches: data (B, C, H, W) and conditions (B, ...)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]: ...


Objective = Callable[[nn.Module, Tensor, Tensor, Draws], Loss]


@dataclass(frozen=True)
class Hook:
    """Something the recipe wants done every so many steps, by the main process: `call(step, ema_model)`."""

    every: int
    call: Callable[[int, nn.Module], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        model: The EMA.
        step: Steps done.
        finished: False if it was interrupted; running it again goes on.
        seconds: Spent by this call.
    """

    model: nn.Module
    step: int
    finished: bool
    seconds: float


class _Run:
    """What changes while a run goes on: parameters, EMA, optimizer and the number of the step."""

    def __init__(self, model: nn.Module, objective: Objective, config: TrainConfig, out: Path, processes: Processes):
        self.objective, self.config, self.processes = objective, config, processes
        self.model = model.to(processes.device)
        self.ema = Ema(self.model, config.ema_decay)
        adamw = config.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=adamw.lr, betas=adamw.betas, eps=adamw.eps, weight_decay=adamw.weight_decay
        )
        self.checkpoints = Checkpoints(out / "checkpoints", config.keep)
        self.step = self.saved = self._restore()
        self.metrics = JsonLines(out / "metrics.jsonl", self.step) if processes.main else None
        self.began = time.perf_counter()
        self.window: list[Tensor] = []  # losses since the last report
        self.loss, self.grad_norm = Loss(torch.zeros(())), torch.zeros(())
        self.wrapped: nn.Module = self.model
        if processes.count > 1:
            devices = [processes.device] if processes.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.model, device_ids=devices)

    def _restore(self) -> int:
        """Put a run back where its newest checkpoint was; its step, or 0 for a new run."""
        state = self.checkpoints.load_latest()
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def advance(self, data: Tensor, condition: Tensor, shape: tuple[int, ...]) -> None:
        """One optimizer step on this process' part of the batch."""
        config, processes, device = self.config, self.processes, self.processes.device
        draws = draw(
            config.seed, self.step, config.batch_size, shape, config.label_dropout,
            rank=processes.rank, processes=processes.count,
        ).to(device)  # fmt: skip
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            self.loss = self.objective(self.wrapped, data.to(device), condition.to(device), draws)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss.total.backward()
        self.grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip or math.inf)
        for group in self.optimizer.param_groups:
            group["lr"] = config.optimizer.lr * min(1.0, (self.step + 1) / max(1, config.optimizer.warmup_steps))
        self.optimizer.step()
        self.ema.update(self.model)
        self.step += 1
        self.window.append(self.loss.total.detach())

    def check_finite(self) -> None:
        """Stop before anything that is not finite is reported or saved.

        Raises:
            UserError: If a loss since the last report, the gradient or a parameter is not finite.
        """
        size = nn.utils.get_total_norm([parameter.detach() for parameter in self.model.parameters()], math.inf)
        health = torch.stack([*self.window, self.loss.total.detach(), self.grad_norm, size]).sum()
        if not bool(torch.isfinite(self.processes.mean(health))):
            terms = ", ".join(f"{name} {float(value):g}" for name, value in self.loss.terms.items())
            kept = f"the checkpoint of step {self.saved} is good" if self.saved else "nothing was saved yet"
            raise UserError(
                f"the loss, its gradient or a parameter is not finite by step {self.step} ({terms}); {kept}. "
                "Lower optimizer.lr, or use precision fp32"
            )

    def report(self) -> float:
        """Write a line of metrics; the mean loss since the last."""
        mean = float(self.processes.mean(torch.stack(self.window).mean()))
        self.window.clear()
        if self.metrics is not None:
            self.metrics.log(
                step=self.step,
                loss=mean,
                **{name: float(value) for name, value in self.loss.terms.items()},
                grad_norm=float(self.grad_norm),
                lr=self.optimizer.param_groups[0]["lr"],
                seconds=round(time.perf_counter() - self.began, 2),
            )
        return mean

    def save(self) -> None:
        """Write a checkpoint; every process waits until it is safe."""
        if self.processes.main:
            parts: dict[str, Any] = {"model": self.model, "ema": self.ema.model, "optimizer": self.optimizer}
            states = {name: part.state_dict() for name, part in parts.items()}
            self.checkpoints.save(self.step, {"step": self.step, **states})
        self.processes.wait()
        self.saved = self.step


def train(
    model: nn.Module,
    objective: Objective,
    samples: Samples,
    config: TrainConfig,
    out: Path,
    *,
    processes: Processes,
    hooks: Sequence[Hook] = (),
    quiet: bool = False,
) -> Outcome:
    """Train until `config.steps`, going on from the newest checkpoint in `out` if there is one.

    Args:
        model: The network, initialised from the run's seed.
        objective: The loss.
        samples: The data set; positions are (seed, epoch, place).
        config: The settings.
        out: The run's folder: checkpoints/, metrics.jsonl.
        processes: This process among those of torchrun.
        hooks: Periodic work such as sample grids.
        quiet: No progress on the terminal.

    Raises:
        UserError: If the loss is not finite (the last checkpoint stays), or the batch does not divide over the
            processes.
    """
    if config.batch_size % processes.count:
        raise UserError(f"batch_size {config.batch_size} does not divide over {processes.count} processes")
    run = _Run(model, objective, config, out, processes)
    order = StepOrder(
        len(samples), config.batch_size, config.seed, run.step, config.steps, processes.rank, processes.count
    )
    loader: DataLoader[Any] = DataLoader(samples, batch_sampler=order, collate_fn=_as_it_is)  # type: ignore[arg-type]
    with _stop_signals() as stop, TrainingBar(run.step, config.steps, quiet=quiet or not processes.main) as bar:
        for data, condition in loader:
            run.advance(data, condition, samples.shape)
            last = run.step == config.steps
            reporting = last or run.step % config.log_every == 0
            # Several processes agree on stopping where they meet anyway, not at every step.
            stopping = processes.any(stop.is_set()) if processes.count == 1 or reporting else False
            saving = last or stopping or run.step % config.checkpoint_every == 0
            if reporting or saving:
                run.check_finite()
            bar.update(run.step, run.report() if reporting else None)
            if saving:
                run.save()
            for hook in hooks if processes.main else ():
                if hook.every and (last or run.step % hook.every == 0):
                    hook.call(run.step, run.ema.model)
            if stopping:
                break
    return Outcome(run.ema.model, run.step, run.step >= config.steps, time.perf_counter() - run.began)


def _as_it_is(batch: Any) -> Any:
    """Collate nothing: `__getitems__` hands out whole batches."""
    return batch


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that a run ends between two steps; a second Ctrl-C is not caught."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def request(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, request)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
