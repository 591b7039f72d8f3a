"""Noise that belongs to one image: it depends on that image's seed alone, not on its neighbours in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class NoiseSource:
    """Standard normals from one CPU generator per sample, drawn in order.

    On one machine, image i starts from the same noise, and meets the same noise at each step of an SDE, for every
    batch size, order and number of processes. The draws are float32 on the CPU, wherever the model runs.

    Args:
        seeds: One per sample, each 0 <= seed < 2**63.

    Raises:
        ValueError: If a seed is out of range.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        outside = [seed for seed in seeds if not 0 <= seed < 2**63]
        if outside:
            raise ValueError(f"seeds must be in 0..2**63-1, not {outside[0]}")
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.drawn = 0

    def initial(self, shape: Sequence[int]) -> Tensor:
        """The noise at t = 1.

        Args:
            shape: (B, ...), B the number of seeds.

        Raises:
            RuntimeError: If something was drawn before.
        """
        return self._draw(0, shape)

    def step(self, index: int, shape: Sequence[int]) -> Tensor:
        """The noise of step `index` = 0, 1, 2, ... of an SDE.

        Raises:
            RuntimeError: If a step is skipped or repeated, which would silently change the image.
        """
        return self._draw(index + 1, shape)

    def _draw(self, place: int, shape: Sequence[int]) -> Tensor:
        if place != self.drawn:
            raise RuntimeError(f"noise is drawn in order: draw {self.drawn} is next, not {place}")
        if shape[0] != len(self.generators):
            raise ValueError(f"a batch of {shape[0]} does not fit {len(self.generators)} seeds")
        self.drawn += 1
        return torch.stack([torch.randn(*shape[1:], generator=generator) for generator in self.generators])
