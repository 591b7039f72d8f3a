"""Which sample comes when: a function of (seed, epoch, position), whatever the number of processes or workers.

Step s of a run with global batch B takes positions s B to (s + 1) B - 1 of an endless sequence of permutations of the
data set; a batch may straddle two epochs. Each process takes its contiguous part of the batch. Where a data set has
variants of its samples, such as captions of an image, each visit draws one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator that is a function of the keys, such as (seed, "noise", step)."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def permutation(seed: int, epoch: int, size: int) -> Tensor:
    """The order of one epoch."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def process_slice(batch_size: int, rank: int, processes: int) -> slice:
    """The rows of a global batch that belong to one process.

    Raises:
        ValueError: If the batch does not divide evenly.
    """
    if batch_size % processes:
        raise ValueError(f"batch_size {batch_size} does not divide over {processes} processes")
    share = batch_size // processes
    return slice(rank * share, (rank + 1) * share)


def variant(seed: int, epoch: int, size: int, variants: int) -> Tensor:
    """(size,) numbers below `variants`, one for each place of an epoch's order."""
    return torch.randint(variants, (size,), generator=generator(seed, "variant", epoch))


class StepOrder(Sampler[list[int]]):
    """A batch sampler for the steps start..stop-1 of a run.

    Args:
        size: Samples in the data set.
        batch_size: Global batch.
        seed: Of the run.
        start, stop: Steps, 0-based; resuming is starting at another step.
        rank, processes: Which part of each batch.
        variants: Of each sample. Variant u of sample i has the number i + size * u.

    Raises:
        ValueError: If there is no sample or the batch does not divide evenly.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        processes: int = 1,
        variants: int = 1,
    ) -> None:
        if size < 1:
            raise ValueError("the data set is empty")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.start, self.stop, self.variants = start, stop, variants
        self.part = process_slice(batch_size, rank, processes)

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        order, current = torch.empty(0), -1
        for step in range(self.start, self.stop):
            positions = range(step * self.batch_size, (step + 1) * self.batch_size)[self.part]
            batch = []
            for position in positions:
                epoch, place = divmod(position, self.size)
                if epoch != current:
                    order, current = self._epoch(epoch), epoch
                batch.append(int(order[place]))
            yield batch

    def _epoch(self, epoch: int) -> Tensor:
        """The numbers of one epoch, in order."""
        order = permutation(self.seed, epoch, self.size)
        if self.variants == 1:
            return order
        return order + self.size * variant(self.seed, epoch, self.size, self.variants)
