"""What a data set hands to a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """Some samples.

    Attributes:
        data: (B, C, H, W), what the model learns to draw: pixels in [-1, 1], or the means of latents.
        condition: (B, ...), such as labels (B,) int64.
        images: (B, C', H', W'), the same samples as a teacher sees them: uint8, or floats in [0, 1]. None where the
            data set has none.
        std: (B, C, H, W), the standard deviations that latents have beside their means; None where data is all.
    """

    data: Tensor
    condition: Tensor
    images: Tensor | None = None
    std: Tensor | None = None

    def __len__(self) -> int:
        return len(self.data)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        images, std = (None if part is None else change(part) for part in (self.images, self.std))
        return Batch(change(self.data), change(self.condition), images, std)

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """In memory that a GPU copies from by itself; called by torch's DataLoader."""
        return self._each(Tensor.pin_memory)

    def rows(self, part: slice) -> Batch:
        """Some of the samples."""
        return self._each(lambda whole: whole[part])
