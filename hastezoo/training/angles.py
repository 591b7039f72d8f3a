"""The angle between what alignment and what denoising want of one block's parameters (HASTE's trigger), made exact."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hastezoo.alignment.config import TerminationConfig
from hastezoo.data.batch import Batch
from hastezoo.data.order import generator, permutation
from hastezoo.processes import Processes
from hastezoo.training.objective import Draws, Objective
from hastezoo.training.samples import Samples
from hastezoo.training.student import Student


def gradient_cosines(
    objective: Objective,
    student: Student,
    samples: Samples,
    config: TerminationConfig,
    *,
    seed: int,
    batch_size: int,
    processes: Processes,
    precision: str = "fp32",
) -> list[float]:
    """The cosine between the gradients of the alignment and the denoising loss, at each of `config.times`.

    Both gradients are summed over all images first, and each time has one cosine. Images, noise and labels are the
    same for both losses and at every look; no label is dropped. Alignment is its weighted sum, as it is descended.

    Args:
        student: Not wrapped; every process takes its share of the images, and all get the same answer.
        batch_size: Images at once, of all processes together.

    Returns:
        One cosine per time; 0 where a gradient vanishes, as it does in the first steps of a zero-initialised model.
    """
    block = list(student.model.blocks[config.block].parameters())  # type: ignore[index, union-attr]
    device = processes.device
    cosines = []
    for t in config.times:
        sums = [[torch.zeros_like(parameter) for parameter in block] for _ in range(2)]
        for batch, noise, latents in _portions(samples, min(config.images, len(samples)), batch_size, seed, processes):
            kept_labels = torch.zeros(len(batch), dtype=torch.bool)
            draws = Draws(torch.full((len(batch),), t), noise, kept_labels, latents).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                denoising, aligned, _ = objective.parts(student, batch.to(device), draws)
            assert aligned is not None
            for loss, total in zip((aligned, denoising), sums, strict=True):
                kept = loss is aligned  # the graph, for the other
                found = torch.autograd.grad(loss * len(batch), block, retain_graph=kept, materialize_grads=True)
                torch._foreach_add_(total, list(found))
        first, second = (processes.mean(torch.cat([part.flatten() for part in total])) for total in sums)
        cosines.append(_cosine(first.double(), second.double()))
    return cosines


def _cosine(a: Tensor, b: Tensor) -> float:
    size = float(a.norm() * b.norm())
    return float(torch.dot(a, b)) / size if size else 0.0


def _portions(
    samples: Samples, count: int, batch_size: int, seed: int, processes: Processes
) -> Iterator[tuple[Batch, Tensor, Tensor | None]]:
    """This process' share of the first `count` images of a fixed order, with noise, and what their latents are drawn
    with, that are functions of the image."""
    chosen = permutation(seed, -1, len(samples))[:count].tolist()
    mine = chosen[processes.rank :: processes.count]
    share = max(1, batch_size // processes.count)
    for start in range(0, len(mine), share):
        indices = mine[start : start + share]
        batch = samples.__getitems__(indices)
        latents = None if batch.std is None else _normals(samples.shape, seed, "angle posterior", indices)
        yield batch, _normals(samples.shape, seed, "angle", indices), latents


def _normals(shape: tuple[int, ...], seed: int, what: str, indices: list[int]) -> Tensor:
    return torch.stack([torch.randn(shape, generator=generator(seed, what, index)) for index in indices])
