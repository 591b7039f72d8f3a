"""Batches for a run, from its step on; and what can go wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from hastezoo.data.batch import Batch
from hastezoo.data.order import StepOrder
from hastezoo.errors import UserError
from hastezoo.training.config import TrainConfig
from hastezoo.training.run import Run
from hastezoo.training.samples import Samples

PREFETCHED = 4  # batches ready, of each worker


def check_batch(config: TrainConfig, samples: int, processes: int) -> None:
    """Whether a step's batch can be had and shared out.

    Raises:
        UserError: If not, with the arithmetic.
    """
    size, parts = config.batch_size, processes * config.accumulation
    if size % parts:
        shown = f"{processes} processes" + (f" x accumulation {config.accumulation}" if config.accumulation > 1 else "")
        near = [at for at in range(1, size + 1) if size % (processes * at) == 0][:4]
        hint = f"; with {processes} processes accumulation can be {', '.join(map(str, near))}" if near else ""
        raise UserError(f"batch_size {size} does not divide over {shown}: {size} / {parts} = {size / parts:g}{hint}")
    if samples < size:
        raise UserError(
            f"the data set has {samples:,} samples, fewer than a batch of {size}; set train.batch_size to {samples} or "
            "less, or prepare more"
        )


def batches(run: Run, samples: Samples) -> Iterator[Batch]:
    """This process' part of each batch until the run's last step. Images are read as long as there is a teacher."""
    config, processes = run.config, run.processes
    while run.step < config.steps:
        taught = run.taught
        order = StepOrder(
            len(samples), config.batch_size, config.seed, run.step, config.steps, processes.rank, processes.count
        )
        loader: DataLoader[Any] = DataLoader(
            samples if taught else samples.without_images(),  # type: ignore[arg-type]
            batch_sampler=order,
            collate_fn=_as_it_is,
            num_workers=config.workers,
            prefetch_factor=PREFETCHED if config.workers else None,
            pin_memory=processes.device.type == "cuda",
        )
        for batch in loader:
            yield batch
            if run.taught != taught:
                break


def _as_it_is(batch: Any) -> Any:
    """Collate nothing: `__getitems__` hands out whole batches."""
    return batch


def _is_of_a_reader(error: Exception) -> bool:
    """Whether a process that reads data is gone: torch says so, or the connection to it breaks first."""
    if isinstance(error, RuntimeError):
        return "DataLoader worker" in str(error)
    if isinstance(error, FileNotFoundError):  # its socket; of a file the name would be known
        return error.filename is None
    return isinstance(error, ConnectionError | EOFError)


@contextmanager
def reading_errors() -> Iterator[None]:
    """What goes wrong in the processes that read data, as one line."""
    try:
        yield
    except UserError as error:
        if "in DataLoader worker" not in str(error):
            raise
        # torch sends an exception with its whole traceback for a message; ours is the last line of it.
        raise UserError(str(error).rstrip().splitlines()[-1].partition("UserError: ")[2]) from None
    except (RuntimeError, EOFError, OSError) as error:
        if not _is_of_a_reader(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"a process that reads data has died ({reason}); out of memory? The last checkpoint is good, and the same "
            "command goes on from it, perhaps with fewer train.workers"
        ) from None
