"""What a data set hands to a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Batch:
    """Some samples.

    Attributes:
        data: (B, C, H, W), what the model learns to draw: pixels in [-1, 1], or latents.
        condition: (B, ...), such as labels (B,) int64.
        images: (B, C', H', W'), the same samples as a teacher sees them: uint8, or floats in [0, 1]. None where the
            data set has none.
    """

    data: Tensor
    condition: Tensor
    images: Tensor | None = None

    def __len__(self) -> int:
        return len(self.data)

    def to(self, device: torch.device) -> Batch:
        images = None if self.images is None else self.images.to(device)
        return Batch(self.data.to(device), self.condition.to(device), images)
