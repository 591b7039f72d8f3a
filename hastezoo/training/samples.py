"""What the training loop asks of a data set."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol

from hastezoo.data.batch import Batch


class Samples(Sized, Protocol):
    """A data set that hands out whole batches of data of one `shape` (C, H, W)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitems__(self, indices: Sequence[int]) -> Batch: ...
