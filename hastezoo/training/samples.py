"""What the training loop asks of a data set."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol, Self

from hastezoo.data.batch import Batch


class Samples(Sized, Protocol):
    """A data set that hands out whole batches of data of one `shape` (C, H, W).

    `without_images` is the same data set for steps without a teacher, which need not pay for decoding.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    def without_images(self) -> Self: ...
    def __getitems__(self, indices: Sequence[int]) -> Batch: ...
