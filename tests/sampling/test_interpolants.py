"""Interpolants against automatic differentiation and each other."""

from __future__ import annotations

import pytest
import torch

from hastezoo.sampling import interpolants
from hastezoo.sampling.interpolants import INTERPOLANTS, Interpolant, find_interpolant


@pytest.fixture(params=INTERPOLANTS)
def path(request: pytest.FixtureRequest) -> Interpolant:
    return find_interpolant(request.param)


def test_derivatives_are_the_derivatives(path: Interpolant) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64, requires_grad=True)
    for value, derivative in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        (wanted,) = torch.autograd.grad(value(t).sum(), t)
        assert torch.allclose(derivative(t), wanted, atol=1e-14)


def test_ends_are_data_and_noise(path: Interpolant) -> None:
    ends = [path.alpha(0.0), path.sigma(0.0), path.alpha(1.0), path.sigma(1.0)]
    assert ends == pytest.approx([1, 0, 0, 1], abs=1e-15)


def test_floats_and_tensors_agree(path: Interpolant) -> None:
    for function in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot):
        assert float(function(torch.tensor(0.3, dtype=torch.float64))) == pytest.approx(function(0.3), abs=1e-15)


@pytest.mark.parametrize("t", [0.01, 0.5, 0.99])
def test_velocity_determines_clean_noise_and_score(path: Interpolant, t: float) -> None:
    torch.manual_seed(0)
    data, eps = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    x, v = interpolants.noisy(path, data, eps, t), interpolants.velocity(path, data, eps, t)
    score = interpolants.score(path, x, v, t)
    assert torch.allclose(interpolants.clean(path, x, v, t), data, atol=1e-11)
    assert torch.allclose(interpolants.noise(path, x, v, t), eps, atol=1e-11)
    assert torch.allclose(score, -eps / path.sigma(t), atol=1e-9)
    assert torch.allclose(interpolants.velocity_from_clean(path, x, data, t), v, atol=1e-9)
    assert torch.allclose(interpolants.velocity_from_noise(path, x, eps, t), v, atol=1e-9)
    assert torch.allclose(interpolants.velocity_from_score(path, x, score, t), v, atol=1e-9)


@pytest.mark.parametrize("t", [0.04, 0.5, 1.0])
def test_score_is_the_one_sit_writes(path: Interpolant, t: float) -> None:
    torch.manual_seed(0)
    x, v = torch.randn(7, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    ratio = path.alpha(t) / path.alpha_dot(t)
    wanted = (ratio * v - x) / (path.sigma(t) ** 2 - ratio * path.sigma_dot(t) * path.sigma(t))
    assert torch.allclose(interpolants.score(path, x, v, t), wanted, atol=1e-12)


def test_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="one of linear, cosine"):
        find_interpolant("quadratic")
