"""Holistic alignment (HASTE): the teacher, the projector, the two losses and their end, as one thing.

REPA is the same without attention; attention alone is the same without features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hastezoo.alignment.config import AlignmentConfig
from hastezoo.alignment.frequencies import low_pass
from hastezoo.alignment.grids import Grid, resize_tokens
from hastezoo.alignment.losses import attention_alignment, feature_alignment
from hastezoo.alignment.projector import Projector, create_projector
from hastezoo.alignment.teachers import Lesson, Teacher, create_teacher
from hastezoo.alignment.termination import Termination
from hastezoo.devices import find_dtype
from hastezoo.errors import UserError
from hastezoo.models.taps import Captured, Taps


class HolisticAlignment:
    """What a frozen teacher asks of a student, until it ends.

    Args:
        config: Weights, layers, pairs, termination.
        width, grid: The student's width and grid of patches.
        teach: Makes the teacher. It is called when alignment begins and not at all in a run resumed after the end.

    Attributes:
        teacher, projector: None before `begin`, and again after `end`: the memory is given back.
    """

    def __init__(self, config: AlignmentConfig, *, width: int, grid: Grid, teach: Callable[[], Teacher]) -> None:
        self.config, self.width, self.grid = config, width, grid
        self.teach = teach
        self.termination = Termination(config.termination)
        self.teacher: Teacher | None = None
        self.projector: Projector | None = None

    @property
    def active(self) -> bool:
        """Whether there is something to align."""
        return self.teacher is not None

    @property
    def taps(self) -> Taps:
        """What the student must hand out."""
        config = self.config
        return Taps(config.feature_layer if config.feature_weight else None, config.student_blocks)

    def begin(self, seed: int) -> None:
        """Make the teacher and a projector that is a function of the seed, unless alignment has ended."""
        if not self.termination.active:
            return
        self.teacher = self.teach()
        if self.config.feature_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projector = create_projector(
                    self.config.projector,
                    self.width,
                    self.teacher.width,
                    self.grid,
                    self.teacher.grid,
                    self.config.projector_width,
                )

    def end(self) -> None:
        """Let go of the teacher and the projector."""
        self.teacher = self.projector = None

    def lesson(self, images: Tensor, t: Tensor) -> Lesson:
        """What the teacher says of clean images (B, C, H, W), uint8 or in [0, 1], for noise at times t (B,)."""
        assert self.teacher is not None
        experiment = self.config.low_pass
        if experiment is not None:
            images = images.float() / 255 if images.dtype == torch.uint8 else images
            low, high = experiment.interval
            chosen = ((t >= low) & (t <= high)).view(-1, 1, 1, 1)
            images = torch.where(chosen, low_pass(images, experiment.cutoff).clamp(0, 1), images)
        return self.teacher(images)

    def losses(self, captured: Captured, projected: Tensor | None, lesson: Lesson) -> dict[str, Tensor]:
        """The losses by name, before their weights: `feature` and `attention`, where they are asked for.

        Args:
            captured: What the student's taps gave.
            projected: (B, N, D) of the projector, on the teacher's grid.
            lesson: What the teacher said of the same images.
        """
        losses = {}
        if self.config.feature_weight:
            assert self.projector is not None and projected is not None
            target = self.projector.prepare(lesson.features)
            losses["feature"] = feature_alignment(projected, target)
        if self.config.attention_weight:
            pairs = [
                attention_alignment(
                    resize_tokens(captured.queries[student], self.grid, lesson.grid),
                    resize_tokens(captured.keys[student], self.grid, lesson.grid),
                    lesson.queries[teacher],
                    lesson.keys[teacher],
                    heads=self.config.heads,
                )
                for student, teacher in self.config.attention_pairs
            ]
            losses["attention"] = torch.stack(pairs).mean()
        return losses

    def weighted(self, losses: dict[str, Tensor]) -> Tensor:
        """Their sum by the configured weights."""
        weights = {"feature": self.config.feature_weight, "attention": self.config.attention_weight}
        return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the projector's parameters are saved by whoever trains them."""
        return self.termination.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's values; called before `begin`."""
        self.termination.load_state_dict(state)


def create_alignment(config: AlignmentConfig, model: Any, device: torch.device) -> HolisticAlignment:
    """Alignment of a model with the teacher that the config names; the teacher is made when it begins.

    Args:
        model: A student with `config.width`, `config.grid` and `config.depth`.

    Raises:
        UserError: If the config names a block that the model does not have.
    """
    seen, named = model.config, config.teacher

    def teach() -> Teacher:
        return create_teacher(
            named.name,
            grid=seen.grid,
            attention_layers=config.teacher_blocks,
            weights=named.weights,
            device=device,
            dtype=find_dtype(named.dtype),
        )

    alignment = HolisticAlignment(config, width=seen.width, grid=seen.grid, teach=teach)
    try:
        alignment.taps.check(seen.depth)
    except ValueError as error:
        raise UserError(f"alignment: {error}") from None
    return alignment
