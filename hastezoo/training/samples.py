"""What the training loop asks of a data set."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol, Self

from hastezoo.data.batch import Batch


class Samples(Sized, Protocol):
    """A data set that hands out whole batches of data of one `shape` (C, H, W).

    Each sample has so many `variants`, such as the captions of an image: variant u of sample i is asked for as number
    i + len * u, so that the numbers below len are the samples themselves. Most data sets have 1.

    `without_images` is the same data set for steps without a teacher, which need not pay for decoding.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def variants(self) -> int: ...
    def without_images(self) -> Self: ...
    def __getitems__(self, indices: Sequence[int]) -> Batch: ...
