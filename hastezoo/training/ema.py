"""An exponential moving average of a model's parameters."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """Keeps `model`, a frozen copy whose parameters follow the trained ones: ema += (1 - decay) (trained - ema)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the parameters; buffers do not train and are equal from the start."""
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - self.decay)
