"""The noise of an image depends on its seed alone."""

from __future__ import annotations

import pytest
import torch

from hastezoo.sampling.noise import NoiseSource

SHAPE = (4, 8, 8)


def draws(seeds: list[int], steps: int = 5) -> torch.Tensor:
    source = NoiseSource(seeds)
    shape = (len(seeds), *SHAPE)
    return torch.stack([source.initial(shape), *(source.step(index, shape) for index in range(steps))], dim=1)


def test_bit_identical_alone_in_a_batch_and_in_any_order() -> None:
    together = draws(list(range(16)))
    for seed in range(16):
        assert torch.equal(draws([seed])[0], together[seed])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).tolist()
    assert torch.equal(draws(order), together[order])


def test_different_seeds_and_steps_differ() -> None:
    values = draws([0, 1]).flatten(0, 1).flatten(1)
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 0.25
    assert values.dtype == torch.float32


def test_standard_normal() -> None:
    values = draws(list(range(200)), steps=1)
    assert abs(float(values.mean())) < 0.01 and float(values.std()) == pytest.approx(1, abs=0.01)


def test_global_random_state_plays_no_part() -> None:
    torch.manual_seed(1)
    before, state = draws([7]), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(before, draws([7]))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_draws_out_of_order_are_refused() -> None:
    source = NoiseSource([0])
    with pytest.raises(RuntimeError, match="in order"):
        source.step(0, (1, 2))
    source.initial((1, 2))
    with pytest.raises(RuntimeError, match="in order"):
        source.step(1, (1, 2))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_impossible_seeds_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seeds"):
        NoiseSource([seed])


def test_wrong_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="batch"):
        NoiseSource([0, 1]).initial((3, 2))
