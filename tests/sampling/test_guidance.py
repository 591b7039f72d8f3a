"""Guidance: what it mixes, and what it costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hastezoo.sampling.guidance import guided


class Counting:
    """A model that remembers the batches it was called on."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        assert len(x) == len(t) == len(condition)
        self.batches.append(len(x))
        return x + condition.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1)


X = torch.zeros(2, 3, 1, 1, dtype=torch.float64)
CONDITION, NULL = torch.tensor([1, 2]), torch.tensor([10])


def test_mixes_condition_and_null() -> None:
    v = guided(Counting(), CONDITION, NULL, scale=1.5)(X, 0.5)
    assert v[:, 0, 0, 0].tolist() == [10.5 + 1.5 * (1 - 10), 10.5 + 1.5 * (2 - 10)]


@pytest.mark.parametrize(
    ("t", "batch"), [(0.09, 2), (0.1, 4), (0.5, 4), (0.72, 4), (0.73, 2)], ids=["below", "low", "in", "high", "above"]
)
def test_one_batched_call_inside_the_interval_and_one_plain_call_outside(t: float, batch: int) -> None:
    model = Counting()
    v = guided(model, CONDITION, NULL, scale=3.0, interval=(0.1, 0.72))(X, t)
    assert model.batches == [batch]
    plain = CONDITION.view(-1, 1, 1, 1) + t + X
    assert torch.allclose(v, plain) == (batch == 2)


def test_scale_one_never_calls_the_null() -> None:
    model = Counting()
    guided(model, CONDITION, NULL, scale=1.0)(X, 0.5)
    assert model.batches == [2]


def test_channels_that_are_not_guided_stay_conditional() -> None:
    v = guided(Counting(), CONDITION, NULL, scale=2.0, channels=2)(X, 0.0)
    assert v[0, :, 0, 0].tolist() == [10 + 2 * (1 - 10)] * 2 + [1]


def test_a_null_of_batch_one_equals_a_null_for_each() -> None:
    one = guided(Counting(), CONDITION, NULL, scale=2.0)(X, 0.3)
    each = guided(Counting(), CONDITION, NULL.expand(2), scale=2.0)(X, 0.3)
    assert torch.equal(one, each)


def test_nothing_is_cast() -> None:
    seen = []

    def model(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append((x.dtype, t.dtype, condition.dtype))
        return x

    guided(model, CONDITION, NULL, scale=2.0)(X, 0.3)
    assert seen == [(torch.float64, torch.float64, torch.int64)]


@pytest.mark.parametrize("interval", [(0.7, 0.1), (-0.1, 0.5), (0.0, 1.5)])
def test_impossible_intervals_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="interval"):
        guided(Counting(), CONDITION, NULL, scale=2.0, interval=interval)


def test_golden_three_channels(golden) -> None:  # type: ignore[no-untyped-def]
    """Original SiT's guided call: each sample at its own time, fourth channel conditional."""
    from tests.models.test_sit import load_golden

    tensors = golden("sit_original")
    model = load_golden(tensors, learn_sigma=True)
    for index in range(2):
        field = guided(model, tensors["cfg_y"][index : index + 1], tensors["cfg_y"][2:3], scale=1.5, channels=3)
        v = field(tensors["cfg_x"][index : index + 1], float(tensors["cfg_t"][index]))
        assert (v - tensors["cfg_velocity"][index : index + 1]).abs().max() <= 1e-5
