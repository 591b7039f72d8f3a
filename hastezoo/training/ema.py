"""An exponential moving average of a model's parameters."""

from __future__ import annotations

import copy

import torch
from torch import nn

from hastezoo.training.engines import own_share


class Ema:
    """Keeps `model`, a frozen copy whose parameters follow the trained ones: ema += (1 - decay) (trained - ema)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Follow the parameters, which lie over processes as the average does; buffers do not train and are equal."""
        mine, trained = ([own_share(parameter) for parameter in one.parameters()] for one in (self.model, model))
        torch._foreach_lerp_(mine, trained, 1 - self.decay)
