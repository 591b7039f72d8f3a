"""What a solver meets on its way: noise, the count of evaluations, and the callback that watches and stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from hastezoo.sampling import interpolants
from hastezoo.sampling.interpolants import Interpolant
from hastezoo.sampling.stopping import Cancelled

__all__ = ["Callback", "Cancelled", "Noise", "Recorder", "StepInfo", "Velocity"]

Velocity = Callable[[Tensor, float], Tensor]


class Noise(Protocol):
    """Where noise comes from: `NoiseSource`, or recorded noise in a test."""

    def initial(self, shape: Sequence[int]) -> Tensor: ...
    def step(self, index: int, shape: Sequence[int]) -> Tensor: ...


@dataclass
class StepInfo:
    """What a callback sees after each step.

    Attributes:
        index: 0-based number of the step that was just done.
        steps: How many there will be; None where the solver chooses (dopri5; its progress is 1 - t).
        evaluations: Velocities evaluated so far, of the whole batch.
        t: Time at which the step began.
        x: (B, C, H, W), the state there.
        clean: (B, C, H, W), the clean image that the velocity there predicts.
    """

    index: int
    steps: int | None
    evaluations: int
    t: float
    x: Tensor
    clean: Tensor


Callback = Callable[[StepInfo], None]


@dataclass
class Recorder:
    """Counts velocity evaluations and tells the callback of each step."""

    velocity: Velocity
    path: Interpolant
    steps: int | None
    callback: Callback | None
    evaluations: int = 0
    index: int = 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.evaluations += 1
        return self.velocity(x, t)

    def step_done(self, x: Tensor, v: Tensor, t: float) -> None:
        """Report a step that began at (x, t) with velocity v."""
        if self.callback is not None:
            clean = interpolants.clean(self.path, x, v, t)
            self.callback(StepInfo(self.index, self.steps, self.evaluations, t, x, clean))
        self.index += 1
