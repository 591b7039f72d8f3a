"""The training loop. Reads from top to bottom; what varies comes in as an argument.

A run is a function of its configuration. Order, times, noise and label dropout are functions of the step, and a
checkpoint holds parameters, EMA, optimizer, projector and whether alignment has ended, so a run that was stopped, or
killed after a checkpoint, goes on as if nothing had happened: on one CPU, bit for bit.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from hastezoo.processes import Processes
from hastezoo.training.config import TrainConfig
from hastezoo.training.feeding import batches, check_batch, known_errors
from hastezoo.training.objective import Objective
from hastezoo.training.run import Run
from hastezoo.training.samples import Samples
from hastezoo.training.tracking import TrainingBar

ASKED_EVERY = 10  # steps after which several processes agree on whether to stop


@dataclass(frozen=True)
class Hook:
    """Something the recipe wants done by the main process, every so many steps (0 for never) and at chosen ones.

    What is done every so many steps is done after the last one too.
    """

    every: int
    call: Callable[[Run], None]
    at: tuple[int, ...] = ()

    def due(self, step: int, last: bool) -> bool:
        return step in self.at or (self.every > 0 and (last or step % self.every == 0))


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
        UserError: If the loss is not finite or a checkpoint cannot be written (the last one stays), data cannot be
            read, or the batch does not divide over the processes.
    """
    check_batch(config, len(samples), processes.count)
    run = Run(model, objective, config, out, processes)
    with (
        _stop_signals() as stop,
        closing(run),
        known_errors(),
        closing(batches(run, samples)) as feed,
        TrainingBar(run.step, config.steps, quiet=quiet or not processes.main) as bar,
    ):
        run.consider_ending_alignment(samples)  # where a run was forked at the step at which it ends
        for batch in feed:
            run.advance(batch, samples.shape)
            if run.consider_ending_alignment(samples):
                bar.say(f"step {run.step}: alignment ended; the teacher has left")
            last = run.step == config.steps
            reporting = last or run.step % config.log_every == 0
            # Several processes agree on stopping now and then: asking makes a GPU wait for its CPU.
            asking = processes.count == 1 or reporting or run.step % ASKED_EVERY == 0
            stopping = asking and processes.any(stop.is_set())
            saving = last or stopping or run.step % config.checkpoint_every == 0
            saving = saving or run.checkpoints.is_milestone(run.step)
            if reporting or saving:
                run.check_finite()
            bar.update(run.step, run.report() if reporting else None)
            if saving:
                run.save()
            for hook in hooks if processes.main else ():
                if hook.due(run.step, last):
                    hook.call(run)
            if stopping:
                break
    return Outcome(run.ema.model, run.step, run.step >= config.steps, time.perf_counter() - run.began)


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
