"""One training loss: a time law, denoising, and what a teacher asks while alignment is active."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hastezoo.alignment.holistic import HolisticAlignment
from hastezoo.data.batch import Batch
from hastezoo.data.order import generator, process_slice
from hastezoo.sampling import interpolants
from hastezoo.sampling.interpolants import Interpolant
from hastezoo.training.config import TimeLaw
from hastezoo.training.student import Answer, Student


@dataclass
class Draws:
    """The randomness of one step.

    Attributes:
        t: (B,) times.
        noise: (B, C, H, W).
        dropped: (B,) bool, whose condition becomes the null condition.
        posterior: (B, C, H, W), what latents are drawn from their posteriors with; None where data is all.
    """

    t: Tensor
    noise: Tensor
    dropped: Tensor
    posterior: Tensor | None = None

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draws:
        posterior = None if self.posterior is None else change(self.posterior)
        return Draws(change(self.t), change(self.noise), change(self.dropped), posterior)

    def to(self, device: torch.device) -> Draws:
        return self._each(lambda part: part.to(device, non_blocking=True))

    def rows(self, part: slice) -> Draws:
        """Those of some of the samples."""
        return self._each(lambda whole: whole[part])


def draw(
    seed: int,
    step: int,
    batch_size: int,
    shape: tuple[int, ...],
    label_dropout: float,
    *,
    law: TimeLaw | None = None,
    posterior: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> Draws:
    """One process' part of a step's randomness.

    Every process draws for the whole global batch and keeps its rows, so a row is a function of (seed, global sample
    index) and a run does not depend on the number of processes, nor on where it was interrupted.

    Args:
        shape: (C, H, W).
        law: How times are drawn; uniformly where it is None.
        posterior: Draw for latents too.
    """
    source = generator(seed, "draws", step)
    if law is None or law.kind == "uniform":
        t = torch.rand(batch_size, generator=source)
    else:  # sigma = exp(z), t = sigma / (1 + sigma)
        t = torch.sigmoid(law.mean + law.std * torch.randn(batch_size, generator=source))
    dropped = torch.rand(batch_size, generator=source) < label_dropout
    noise = torch.randn(batch_size, *shape, generator=source)
    latents = torch.randn(noise.shape, generator=generator(seed, "posterior", step)) if posterior else None
    return Draws(t, noise, dropped, latents).rows(process_slice(batch_size, rank, processes))


def clean(batch: Batch, draws: Draws) -> Tensor:
    """The data x_0 (B, C, H, W) of a step: latents are drawn from their posteriors anew each time."""
    if batch.std is None:
        return batch.data
    assert draws.posterior is not None
    return batch.data + batch.std * draws.posterior


@dataclass
class Loss:
    """What an objective returns.

    Attributes:
        total: The scalar to descend.
        terms: Its named parts before their weights, detached, for the log.
    """

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective:
    """Velocity matching (SiT): mean squared error against alpha' x_0 + sigma' eps, with a teacher's losses beside it.

    Args:
        path: The interpolant.
        null: What a dropped condition becomes: the null label, or the states (L, D) of the empty prompt.
        alignment: REPA's or HASTE's; None for a plain model.
    """

    def __init__(self, path: Interpolant, null: int | Tensor, alignment: HolisticAlignment | None = None) -> None:
        self.path, self.null, self.alignment = path, null, alignment

    def __call__(self, student: torch.nn.Module, batch: Batch, draws: Draws) -> Loss:
        """The loss of a `Student`, or of one wrapped for several processes.

        Raises:
            ValueError: If there is alignment and the batch has no images for the teacher.
        """
        denoising, aligned, terms = self.parts(student, batch, draws)
        total = denoising if aligned is None else denoising + aligned
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    def parts(
        self, student: torch.nn.Module, batch: Batch, draws: Draws
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The denoising loss, the weighted sum of the alignment losses (None without), and each loss by name."""
        alignment = self.alignment if self.alignment is not None and self.alignment.active else None
        answer, error = self._errors(student, batch, draws, alignment)
        terms = {"denoising": error.mean()}
        if alignment is None:
            return terms["denoising"], None, terms
        if batch.images is None:
            raise ValueError("alignment needs the images themselves, and this data set hands out none")
        assert answer.captured is not None
        lesson = alignment.lesson(batch.images, draws.t)
        losses = alignment.losses(answer.captured, answer.projected, lesson)
        return terms["denoising"], alignment.weighted(losses), {**terms, **losses}

    def per_sample(self, student: Student, batch: Batch, draws: Draws) -> Tensor:
        """(B,) mean squared errors of the velocity, in float32."""
        return self._errors(student, batch, draws, None)[1]

    def _errors(
        self, student: torch.nn.Module, batch: Batch, draws: Draws, alignment: HolisticAlignment | None
    ) -> tuple[Answer, Tensor]:
        data = clean(batch, draws)
        t = interpolants.expand(draws.t, data)
        x = interpolants.noisy(self.path, data, draws.noise, t)
        target = interpolants.velocity(self.path, data, draws.noise, t)
        condition = self._condition(batch.condition, draws.dropped)
        answer: Answer = student(x, draws.t, condition, alignment.taps if alignment else None)
        return answer, (answer.velocity.float() - target).square().flatten(1).mean(1)

    def _condition(self, condition: Tensor, dropped: Tensor) -> Tensor:
        """The condition (B, ...) with the null condition where it is dropped (B,)."""
        null = torch.as_tensor(self.null, dtype=condition.dtype, device=condition.device)
        return torch.where(dropped.view(-1, *[1] * (condition.ndim - 1)), null, condition)
