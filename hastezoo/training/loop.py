"""The training loop. Reads from top to bottom; what varies comes in as an argument.

A run is a function of its configuration. Order, times, noise and label dropout are functions of the step, and a
checkpoint holds parameters, EMA, optimizer, projector and whether alignment has ended, so a run that was stopped, or
killed after a checkpoint, goes on as if nothing had happened: on one CPU, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hastezoo.processes import Processes
from hastezoo.training.config import TrainConfig
from hastezoo.training.feeding import batches, check_batch, known_errors
from hastezoo.training.objective import Objective
from hastezoo.training.run import Run, What
from hastezoo.training.samples import Samples
from hastezoo.training.stopping import Stop, stop_signals
from hastezoo.training.tracking import TrainingBar


@dataclass(frozen=True)
class Hook:
    """Something the recipe wants done by the main process, every so many steps (0 for never) and at chosen ones.

    What is done every so many steps is done after the last one too.

    Attributes:
        every, at: When.
        call: What.
        sees: Which of the run's networks it looks at, whole: `run.average`, or `run.trained`.
        doing: In words.
    """

    every: int
    call: Callable[[Run], None]
    at: tuple[int, ...] = ()
    sees: What = "average"
    doing: str = "looking at the average"

    def due(self, step: int, last: bool) -> bool:
        return step in self.at or (self.every > 0 and (last or step % self.every == 0))


def shared(hooks: Sequence[Hook], processes: Processes) -> list[Hook]:
    """The main process' hooks; on others, hooks at the same times that do nothing, for all must lend their shares."""
    times = processes.from_main([(hook.every, hook.at, hook.sees, hook.doing) for hook in hooks])
    if processes.main:
        return list(hooks)
    return [Hook(every, lambda run: None, tuple(at), sees, doing) for every, at, sees, doing in times]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        model: The EMA, whole, on the main process; None on others, and where the run did not finish.
        step: Steps done.
        stop: Why it did not finish, if it did not; running it again goes on.
        seconds: Spent by this call.
    """

    model: nn.Module | None
    step: int
    stop: Stop
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.stop == Stop.NOT


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
        hooks: Periodic work such as sample grids, of the main process.
        quiet: No progress on the terminal.

    Raises:
        UserError: If the loss is not finite or a checkpoint cannot be written (the last one stays), data cannot be
            read, or the batch does not divide over the processes.
    """
    check_batch(config, len(samples), processes.count)
    hooks = shared(hooks, processes)
    stopped = Stop.NOT
    with (
        stop_signals() as stopping,
        known_errors(processes),
        closing(Run(model, objective, config, out, processes)) as run,
        closing(batches(run, samples)) as feed,
        TrainingBar(run.step, config.steps, quiet=quiet or not processes.main) as bar,
    ):
        run.consider_ending_alignment(samples)  # where a run was forked at the step at which it ends
        for batch in feed:
            run.advance(batch, samples.shape)
            if run.consider_ending_alignment(samples):
                bar.say(f"step {run.step}: alignment ended; the teacher has left")
            last = run.step == config.steps
            stopped = Stop.NOT if last else Stop(processes.most(stopping.asked))
            _record(run, bar, ending=last or stopped != Stop.NOT)
            _look(run, hooks, last)
            if stopped:
                break
            run.at("reading data")
        if not stopped:
            run.gather({"average"})
    return Outcome(None if stopped else run.average, run.step, stopped, time.perf_counter() - run.began)


def _record(run: Run, bar: TrainingBar, *, ending: bool) -> None:
    """After a step: a line of metrics and a checkpoint, where they are due. At the end a checkpoint is waited for."""
    config = run.config
    run.saver.look()
    reporting = run.step == config.steps or run.step % config.log_every == 0
    saving = ending or run.step % config.checkpoint_every == 0 or run.checkpoints.is_milestone(run.step)
    if reporting or saving:
        run.check_finite()
    bar.update(run.step, run.report() if reporting else None)
    if saving:
        run.at("saving")
        run.save(wait=ending)


def _look(run: Run, hooks: Sequence[Hook], last: bool) -> None:
    """What hooks are due. The others wait in the next step, however long it takes."""
    due = [hook for hook in hooks if hook.due(run.step, last)]
    if not due:
        return
    run.gather({hook.sees for hook in due})
    for hook in due:
        with run.processes.heart.unhurried(hook.doing):
            hook.call(run)
