"""Batches for a run, from its step on; and what can go wrong on the way."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from hastezoo.data.batch import Batch
from hastezoo.data.order import StepOrder
from hastezoo.errors import UserError
from hastezoo.processes import Processes
from hastezoo.training.config import TrainConfig
from hastezoo.training.run import Run
from hastezoo.training.samples import Samples

PREFETCHED = 4  # batches ready, of each worker
GRACE = 60  # seconds that a reader goes on after SIGTERM


def counted(processes: int) -> str:
    """So many processes, in words."""
    return f"{processes} process" + ("" if processes == 1 else "es")


def check_batch(config: TrainConfig, samples: int, processes: int) -> None:
    """Whether a step's batch can be had and shared out.

    Raises:
        UserError: If not, with the arithmetic.
    """
    size, parts = config.batch_size, processes * config.accumulation
    if size % parts:
        shown = counted(processes) + (f" x accumulation {config.accumulation}" if config.accumulation > 1 else "")
        near = [at for at in range(1, size + 1) if size % (processes * at) == 0][:4]
        hint = f"; with {counted(processes)} accumulation can be {', '.join(map(str, near))}" if near else ""
        raise UserError(f"batch_size {size} does not divide over {shown}: {size} / {parts} = {size / parts:g}{hint}")
    if samples < size:
        raise UserError(
            f"the data set has {samples:,} samples, fewer than a batch of {size}; set train.batch_size to {samples} or "
            "less, or prepare more"
        )


def batches(run: Run, samples: Samples) -> Generator[Batch]:
    """This process' part of each batch until the run's last step. Images are read as long as there is a teacher."""
    config, processes = run.config, run.processes
    while run.step < config.steps:
        taught = run.taught
        order = StepOrder(
            len(samples), config.batch_size, config.seed, run.step, config.steps, processes.rank, processes.count,
            samples.variants,
        )  # fmt: skip
        loader: DataLoader[Any] = DataLoader(
            samples if taught else samples.without_images(),  # type: ignore[arg-type]
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=config.workers,
            prefetch_factor=PREFETCHED if config.workers else None,
            pin_memory=processes.device.type == "cuda",
            worker_init_fn=_outlive_the_step,
        )
        with closing_readers(iter(loader)) as iterator:
            for batch in iterator:
                yield batch
                if run.taught != taught:
                    break


@contextmanager
def closing_readers(iterator: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
    """End a loader's processes with the block. Torch ends them when the iterator is forgotten, and an exception, which
    holds on to it, may be remembered for long."""
    try:
        yield iterator
    finally:
        end = getattr(iterator, "_shutdown_workers", None)
        if end is not None:
            end()


def _as_it_is(batch: Any) -> Any:
    """Collate nothing: `__getitems__` hands out whole batches."""
    return batch


def _outlive_the_step(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process; the step under way still needs its readers, for a while."""

    def wait(number: int, frame: Any) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(GRACE)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, wait)


def _is_of_a_reader(error: Exception) -> bool:
    """Whether a process that reads data is gone: torch says so, or the connection to it breaks first."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error)
    if isinstance(error, FileNotFoundError):  # its socket; of a file the name would be known
        return error.filename is None
    return isinstance(error, ConnectionError | EOFError)


def _is_of_a_peer(error: Exception) -> bool:
    """Whether the processes of a run could not reach one another."""
    return isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextmanager
def known_errors(processes: Processes | None = None) -> Iterator[None]:
    """What goes wrong around a step, as one line: memory, and other processes, those that read and those that train."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            "a step does not fit the memory; raise train.accumulation, or set train.activation_checkpointing=true, and "
            "the same command goes on from the last checkpoint"
        ) from None
    except UserError as error:
        if "in DataLoader worker" not in str(error):
            raise
        # torch sends an exception with its whole traceback for a message; ours is the last line of it.
        raise UserError(str(error).rstrip().splitlines()[-1].partition("UserError: ")[2]) from None
    except (RuntimeError, EOFError, OSError) as error:
        if _is_of_a_peer(error):
            ended = "another process of this run has ended, and this one with it; see what it says"
            line = ended if processes is None else processes.heart.whodunit(ended)
            if line is None:  # another process says it
                raise SystemExit(UserError.exit_code) from None
            raise UserError(line) from None
        if not _is_of_a_reader(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"a process that reads data has died ({reason}); out of memory? The last checkpoint is good, and the same "
            "command goes on from it, perhaps with fewer train.workers"
        ) from None
