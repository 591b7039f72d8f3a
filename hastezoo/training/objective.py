"""One training loss: a time law and denoising. Alignment joins here as further terms."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hastezoo.data.order import generator, process_slice
from hastezoo.sampling import interpolants
from hastezoo.sampling.interpolants import Interpolant


@dataclass
class Draws:
    """The randomness of one step.

    Attributes:
        t: (B,) times.
        noise: (B, C, H, W).
        dropped: (B,) bool, whose label becomes the null label.
    """

    t: Tensor
    noise: Tensor
    dropped: Tensor

    def to(self, device: torch.device) -> Draws:
        return Draws(self.t.to(device), self.noise.to(device), self.dropped.to(device))


def draw(
    seed: int,
    step: int,
    batch_size: int,
    shape: tuple[int, ...],
    label_dropout: float,
    *,
    rank: int = 0,
    processes: int = 1,
) -> Draws:
    """One process' part of a step's randomness.

    Every process draws for the whole global batch and keeps its rows, so a row is a function of (seed, global sample
    index) and a run does not depend on the number of processes, nor on where it was interrupted.

    Args:
        shape: (C, H, W).
    """
    source = generator(seed, "draws", step)
    t = torch.rand(batch_size, generator=source)
    dropped = torch.rand(batch_size, generator=source) < label_dropout
    noise = torch.randn(batch_size, *shape, generator=source)
    part = process_slice(batch_size, rank, processes)
    return Draws(t[part], noise[part], dropped[part])


@dataclass
class Loss:
    """What an objective returns.

    Attributes:
        total: The scalar to descend.
        terms: Its named parts, detached, for the log.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Denoising:
    """Velocity matching with t uniform in [0, 1]: mean squared error against alpha' x_0 + sigma' eps (SiT).

    Args:
        path: The interpolant.
        null_label: What a dropped label becomes.
    """

    def __init__(self, path: Interpolant, null_label: int) -> None:
        self.path, self.null_label = path, null_label

    def __call__(self, model: nn.Module, data: Tensor, condition: Tensor, draws: Draws) -> Loss:
        """The loss of `model` on data (B, C, H, W) with labels (B,)."""
        per_sample = self.per_sample(model, data, condition, draws)
        total = per_sample.mean()
        return Loss(total, {"denoising": total.detach()})

    def per_sample(self, model: nn.Module, data: Tensor, condition: Tensor, draws: Draws) -> Tensor:
        """(B,) mean squared errors in float32."""
        t = interpolants.expand(draws.t, data)
        x = interpolants.noisy(self.path, data, draws.noise, t)
        target = interpolants.velocity(self.path, data, draws.noise, t)
        labels = torch.where(draws.dropped, self.null_label, condition)
        error = model(x, draws.t, labels).float() - target
        return error.square().flatten(1).mean(1)
