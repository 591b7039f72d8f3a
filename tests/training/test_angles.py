"""The gradients' angle against one pass over all images, and that the settings of alignment reach its losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hastezoo.alignment.losses import attention_alignment
from hastezoo.data.digits import Digits
from hastezoo.data.order import generator, permutation
from hastezoo.models.registry import create_model
from hastezoo.processes import Processes
from hastezoo.recipes.digits import ARMS, align
from hastezoo.sampling.interpolants import Linear
from hastezoo.training.angles import gradient_cosines
from hastezoo.training.objective import Draws, Objective
from hastezoo.training.student import Student

CPU = torch.device("cpu")


def aligned(**changes: Any) -> tuple[Objective, Student]:
    """A small student with weights that are nowhere zero, and its objective."""
    torch.manual_seed(0)
    model = create_model("sit_ti_2", input_size=8, in_channels=1, num_classes=10, width=32, heads=2, depth=3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = ARMS["haste"]
    assert config is not None
    alignment = align(config.model_copy(update={"projector_width": 16, **changes}), model, CPU)
    alignment.begin(0)
    return Objective(Linear(), 10, alignment), Student(model, alignment.projector)


@pytest.mark.parametrize("batch_size", [90, 40, 7])
def test_cosines_are_those_of_one_pass_over_all_images(batch_size: int) -> None:
    """However the images are cut, also where the last portion is smaller."""
    objective, student = aligned()
    assert objective.alignment is not None
    config = objective.alignment.config.termination.model_copy(update={"images": 90, "times": (0.1, 0.7)})
    samples = Digits("train")
    found = gradient_cosines(
        objective, student, samples, config, seed=3, batch_size=batch_size, processes=Processes(0, 1, CPU)
    )
    chosen = permutation(3, -1, len(samples))[:90].tolist()
    noise = torch.stack([torch.randn(1, 8, 8, generator=generator(3, "angle", index)) for index in chosen])
    block = list(student.model.blocks[1].parameters())  # type: ignore[index]
    for t, cosine in zip(config.times, found, strict=True):
        draws = Draws(torch.full((90,), t), noise, torch.zeros(90, dtype=torch.bool))
        denoising, alignment, _ = objective.parts(student, samples.__getitems__(chosen), draws)
        assert alignment is not None
        both = [torch.autograd.grad(loss, block, retain_graph=True) for loss in (alignment, denoising)]
        a, b = (torch.cat([part.flatten() for part in grads]).double() for grads in both)
        assert cosine == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-4)


@pytest.mark.parametrize("heads", ["index", "mean"])
def test_the_pairing_of_heads_reaches_the_loss(heads: Any) -> None:
    objective, student = aligned(heads=heads)
    alignment, batch = objective.alignment, Digits("train").__getitems__(range(8))
    assert alignment is not None and batch.images is not None
    t = torch.full((8,), 0.5)
    answer = student(batch.data, t, batch.condition, alignment.taps)
    assert answer.captured is not None
    lesson = alignment.lesson(batch.images, t)
    found = alignment.losses(answer.captured, answer.projected, lesson)["attention"]
    wanted = [
        attention_alignment(
            answer.captured.queries[s], answer.captured.keys[s], lesson.queries[t], lesson.keys[t], heads=heads
        )
        for s, t in alignment.config.attention_pairs
    ]
    assert found.item() == pytest.approx((sum(wanted) / len(wanted)).item(), rel=1e-6)
