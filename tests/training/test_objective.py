"""The denoising loss and the randomness of a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.data.batch import Batch
from hastezoo.sampling.interpolants import Cosine, Linear
from hastezoo.training.config import TimeLaw
from hastezoo.training.objective import Draws, Objective, draw
from hastezoo.training.student import Student


class Recorder(torch.nn.Module):
    """Returns half its input and remembers what it was called with."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.seen = (x, t, condition)
        return x / 2


def test_golden_denoising(golden: Any) -> None:
    tensors = golden("losses")
    x_t, t, images, velocity = (tensors[name] for name in ("x_t", "t", "images", "velocity"))
    share = t.view(-1, 1, 1, 1)
    noise = (x_t - (1 - share) * images) / share

    class Answer(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            assert (x - x_t).abs().max() < 1e-5
            return velocity

    draws = Draws(t, noise, torch.zeros(2, dtype=torch.bool))
    batch = Batch(images, torch.zeros(2, dtype=torch.int64))
    loss = Objective(Linear(), 10).per_sample(Student(Answer()), batch, draws)
    assert (loss - tensors["denoising"]).abs().max() <= 1e-5


@pytest.mark.parametrize("path", [Linear(), Cosine()])
def test_against_the_formula_sample_by_sample(path: Any) -> None:
    torch.manual_seed(0)
    data, labels = torch.randn(4, 1, 2, 2, dtype=torch.float64), torch.arange(4)
    draws = Draws(torch.rand(4, dtype=torch.float64), torch.randn_like(data), torch.tensor([True, False, False, True]))
    model = Recorder()
    loss = Objective(path, 9)(Student(model), Batch(data, labels), draws)
    total = 0.0
    for x0, eps, t in zip(data, draws.noise, draws.t, strict=True):
        x = path.alpha(t) * x0 + path.sigma(t) * eps
        target = path.alpha_dot(t) * x0 + path.sigma_dot(t) * eps
        total += float(((x / 2 - target) ** 2).mean()) / 4
    assert float(loss.total) == pytest.approx(total, rel=1e-6)
    assert model.seen[2].tolist() == [9, 1, 2, 9] and torch.equal(model.seen[1], draws.t)
    assert float(loss.terms["denoising"]) == float(loss.total)


def test_a_dropped_caption_becomes_the_empty_ones_states() -> None:
    """Whole rows of float16 states, which reach the model as they are."""
    torch.manual_seed(0)
    data, states, null = torch.randn(3, 1, 2, 2), torch.randn(3, 5, 4).half(), torch.randn(5, 4).half()
    draws = Draws(torch.rand(3), torch.randn_like(data), torch.tensor([False, True, False]))
    model = Recorder()
    Objective(Linear(), null)(Student(model), Batch(data, states), draws)
    assert torch.equal(model.seen[2], torch.stack([states[0], null, states[2]]))


def test_draws_are_a_function_of_seed_and_step_and_shared_out_by_rows() -> None:
    whole = draw(1, 7, 8, (2, 3), 0.5)
    parts = [draw(1, 7, 8, (2, 3), 0.5, rank=rank, processes=4) for rank in range(4)]
    for name in ("t", "noise", "dropped"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    first = {float(draw(seed, step, 8, (2, 3), 0.5).noise[0, 0, 0]) for seed in range(3) for step in range(10)}
    assert len(first) == 30, "every seed and step has noise of its own"


def test_draws_have_the_stated_laws() -> None:
    many = draw(0, 0, 40_000, (2,), 0.1)
    assert float(many.t.mean()) == pytest.approx(0.5, abs=0.01) and float(many.t.var()) == pytest.approx(
        1 / 12, abs=0.01
    )
    assert float(many.dropped.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(many.noise.std()) == pytest.approx(1, abs=0.01) and abs(float(many.noise.mean())) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([many.t, many.noise[:, 0]]))[0, 1])) < 0.02
    assert not draw(0, 0, 1000, (1,), 0.0).dropped.any()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.0, 1.0), (-0.5, 0.5)])
def test_lognormal_times(mean: float, std: float) -> None:
    """sigma = t / (1 - t) is log-normal."""
    t = draw(0, 0, 40_000, (1,), 0.1, law=TimeLaw(kind="lognormal", mean=mean, std=std)).t.double()
    z = (t / (1 - t)).log()
    assert float(z.mean()) == pytest.approx(mean, abs=0.02) and float(z.std()) == pytest.approx(std, abs=0.02)
    assert float(t.min()) > 0 and float(t.max()) < 1


def test_the_law_of_times_changes_nothing_else() -> None:
    plain, other = draw(3, 5, 8, (2,), 0.5), draw(3, 5, 8, (2,), 0.5, law=TimeLaw())
    assert torch.equal(plain.t, other.t) and torch.equal(plain.noise, other.noise)
