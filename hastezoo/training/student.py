"""What an optimizer trains: the model and, while there is alignment, the projector of its features."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from hastezoo.models.taps import Captured, Taps


class Answer(NamedTuple):
    """A student's velocity, and what its taps gave, where there were any.

    Attributes:
        velocity: (B, C, H, W).
        captured: Features, queries and keys.
        projected: (B, N, D), its features in the teacher's width.
    """

    velocity: Tensor
    captured: Captured | None = None
    projected: Tensor | None = None


class Student(nn.Module):
    """One module for both, so that gradients of several processes are averaged for both."""

    def __init__(self, model: nn.Module, projector: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.projector = model, projector

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, taps: Taps | None = None) -> Answer:
        if taps is None:
            return Answer(self.model(x, t, condition))
        velocity, captured = self.model(x, t, condition, taps)
        projected = None if self.projector is None else self.projector(captured.features)
        return Answer(velocity, captured, projected)
