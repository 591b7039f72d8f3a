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
        UserError: If the loss is not finite; the last checkpoint stays.
    """
    device, began = processes.device, time.perf_counter()
    model = model.to(device)
    ema = Ema(model, config.ema_decay)
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    checkpoints = Checkpoints(out / "checkpoints", config.keep)
    start = _restore(checkpoints, model, ema, optimizer)
    saved = start
    wrapped = (
        model
        if processes.count == 1
        else DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    )

    def save(step: int) -> int:
        state = {
            "step": step,
            "model": model.state_dict(),
            "ema": ema.model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        if processes.main:
            checkpoints.save(step, state)
        processes.wait()
        return step

    order = StepOrder(
        len(samples), config.batch_size, config.seed, start, config.steps, processes.rank, processes.count
    )
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(samples, batch_sampler=order, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    metrics = JsonLines(out / "metrics.jsonl", start) if processes.main else None
    window: list[Tensor] = []
    step = start
    with _stop_signals() as stop, TrainingBar(start, config.steps, quiet=quiet or not processes.main) as bar:
        for data, condition in loader:
            draws = draw(
                config.seed,
                step,
                config.batch_size,
                samples.shape,
                config.label_dropout,
                rank=processes.rank,
                processes=processes.count,
            ).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                loss = objective(wrapped, data.to(device), condition.to(device), draws)
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))
            optimizer.step()
            ema.update(model)
            step += 1
            window.append(loss.total.detach())
            logging = step % config.log_every == 0 or step == config.steps
            if logging:
                mean = float(processes.mean(torch.stack(window).mean()))
                window.clear()
                if not math.isfinite(mean):
                    raise UserError(
                        f"the loss became {mean} by step {step}; the checkpoint of step {saved} is good. "
                        "Lower optimizer.lr or use precision fp32"
                    )
                if metrics is not None:
                    terms = {name: float(value) for name, value in loss.terms.items()}
                    metrics.log(
                        step=step,
                        loss=mean,
                        grad_norm=float(norm),
                        lr=optimizer.param_groups[0]["lr"],
                        seconds=round(time.perf_counter() - began, 2),
                        **terms,
                    )
            bar.update(step, mean if logging else None)
            # Several processes agree on stopping where they meet anyway, not at every step.
            stopping = processes.any(stop.is_set()) if processes.count == 1 or logging else False
            if stopping or step % config.checkpoint_every == 0 or step == config.steps:
                saved = save(step)
            if processes.main:
                for hook in hooks:
                    if hook.every and (step % hook.every == 0 or step == config.steps):
                        hook.call(step, ema.model)
            if stopping:
                break
    return Outcome(ema.model, step, step >= config.steps, time.perf_counter() - began)


def _restore(checkpoints: Checkpoints, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> int:
    """Put a run back where its newest checkpoint was; its step, or 0 for a new run."""
    state = checkpoints.load_latest()
    if state is None:
        return 0
    model.load_state_dict(state["model"])
    ema.model.load_state_dict(state["ema"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


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
