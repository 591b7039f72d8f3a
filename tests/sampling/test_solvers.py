"""Solvers against closed forms and the reference samplers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.sampling import guidance, solvers
from hastezoo.sampling.diffusions import FORMS, Diffusion
from hastezoo.sampling.interpolants import INTERPOLANTS, Cosine, Linear, find_interpolant
from hastezoo.sampling.noise import NoiseSource
from tests.sampling.mixture import CENTRES, SPREADS, WEIGHTS, Mixture, OneGenerator

SAMPLES = 16_000
# One standard deviation of the Monte Carlo error at 16,000 samples is 0.014 for the means, 0.035 for the covariances
# and 0.004 for the weights; about three of each, and the bias of the discretisation on top.
MEAN_ERROR, COVARIANCE_ERROR, WEIGHT_ERROR = 0.05, 0.13, 0.015


def check_mixture(x: Tensor, mixture: Mixture) -> None:
    assert (x.mean(0) - mixture.mean).abs().max() < MEAN_ERROR
    assert (torch.cov(x.T) - mixture.covariance).abs().max() < COVARIANCE_ERROR
    nearest = (x[:, None] - CENTRES).square().sum(-1) / SPREADS**2
    first = x[nearest.argmin(1) == 0]
    assert len(first) / len(x) == pytest.approx(float(WEIGHTS[0]), abs=WEIGHT_ERROR)
    assert (first.mean(0) - CENTRES[0]).abs().max() < MEAN_ERROR


@pytest.mark.parametrize("path_name", INTERPOLANTS)
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_every_solver_reaches_the_mixture(solver: str, path_name: str) -> None:
    path, noise = find_interpolant(path_name), OneGenerator()
    mixture = Mixture(path)
    x = solvers.integrate(
        solver, mixture.velocity, noise.initial((SAMPLES, 2)), steps=150, interpolant=path, noise=noise,
        last_step_size=0.005,
    )  # fmt: skip
    check_mixture(x, mixture)


@pytest.mark.parametrize("last_step", solvers.LAST_STEPS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("solver", ["euler-maruyama", "stochastic-heun"])
def test_every_diffusion_and_last_step_reaches_the_mixture(solver: str, form: str, last_step: str) -> None:
    path, noise = Linear(), OneGenerator()
    mixture = Mixture(path)
    # Near t = 1 sbdm is 2 / (1 - t): it needs a start below 1, and the finest steps of all.
    start = 0.98 if form == "sbdm" else 1.0
    x = solvers.integrate(
        solver, mixture.velocity, noise.initial((SAMPLES, 2)), steps=150, interpolant=path, noise=noise,
        diffusion=form, last_step=last_step, last_step_size=0.005, start=start,
    )  # fmt: skip
    check_mixture(x, mixture)


def test_a_biased_field_would_be_noticed() -> None:
    """The tolerances above are not so wide that anything passes."""
    mixture, noise = Mixture(Linear()), OneGenerator()
    x = solvers.integrate(
        "heun", lambda x, t: 1.1 * mixture.velocity(x, t), noise.initial((SAMPLES, 2)), steps=100, interpolant=Linear()
    )
    with pytest.raises(AssertionError):
        check_mixture(x, mixture)


@pytest.mark.parametrize("path_name", INTERPOLANTS)
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int, path_name: str) -> None:
    """One Gaussian N(m, s^2): the flow takes x_1 to m + s x_1 exactly."""
    path, centre, spread = find_interpolant(path_name), 1.5, 0.4
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def velocity(x: Tensor, t: float) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        apart = (x - alpha * centre) / (alpha**2 * spread**2 + sigma**2)
        return path.alpha_dot(t) * (centre + alpha * spread**2 * apart) + path.sigma_dot(t) * sigma * apart

    errors = [
        float(
            (solvers.integrate(solver, velocity, x, steps=steps, interpolant=path) - (centre + spread * x)).abs().max()
        )
        for steps in (128, 256, 512)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


def test_dopri5_is_as_exact_as_asked() -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    mixture = Mixture(Linear())
    fine = solvers.integrate("heun", mixture.velocity, x.expand(-1, 2), steps=4000, interpolant=Linear())
    errors = [
        float((solvers.integrate(
            "dopri5", mixture.velocity, x.expand(-1, 2), steps=1, interpolant=Linear(), rtol=tolerance, atol=tolerance
        ) - fine).abs().max())
        for tolerance in (1e-3, 1e-7)
    ]  # fmt: skip
    assert errors[0] < 5e-2 and errors[1] < 2e-6


def test_dopri5_stops_at_a_jump() -> None:
    """dx/dt = 1 above t = 0.3 and 3 below: the exact end is x - 0.7 - 0.9, reached in a handful of steps."""
    evaluated: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        evaluated.append(t)
        return torch.full_like(x, 3.0 if t <= 0.3 else 1.0)

    x = solvers.integrate("dopri5", velocity, torch.ones(1, 1), steps=1, interpolant=Linear(), jumps=(0.0, 0.3))
    assert float(x) == pytest.approx(1 - 0.7 - 0.9, abs=1e-12)
    with_jump, evaluated = len(evaluated), []
    solvers.integrate("dopri5", velocity, torch.ones(1, 1), steps=1, interpolant=Linear())
    assert with_jump < len(evaluated)


def golden_velocity(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    slope = (0.2 + labels.double() / 1000).view(-1, 1, 1, 1)
    t = t.view(-1, 1, 1, 1)
    return torch.tanh(x * slope + t) - 0.5 * x * t


class Recorded:
    """The reference's noise, step by step."""

    def __init__(self, latents: Tensor, noise: Tensor) -> None:
        self.latents, self.noise = latents, noise

    def initial(self, shape: Any) -> Tensor:
        return self.latents

    def step(self, index: int, shape: Any) -> Tensor:
        return self.noise[index]


GUIDANCE: dict[str, dict[str, Any]] = {
    "plain": {"scale": 1.0},
    "cfg": {"scale": 1.65},
    "interval": {"scale": 1.65, "interval": (0.1, 0.72)},
}


@pytest.mark.parametrize("mode", GUIDANCE)
@pytest.mark.parametrize("name", ["euler", "heun", "euler_maruyama.linear", "euler_maruyama.cosine"])
def test_golden_samplers(golden: Any, name: str, mode: str) -> None:
    if (name, mode) == ("heun", "interval"):
        pytest.skip("the reference decides guidance by the step's start, we by the time of the evaluation")
    tensors = golden("samplers")
    path = Cosine() if name.endswith("cosine") else Linear()
    field = guidance.guided(golden_velocity, tensors["y"], torch.tensor([1000]), **GUIDANCE[mode])
    x = solvers.integrate(
        name.split(".")[0].replace("_", "-"), field, tensors["latents"], steps=12, interpolant=path,
        noise=Recorded(tensors["latents"], tensors["noise"]),
    )  # fmt: skip
    assert (x - tensors[f"{name}.{mode}"]).abs().max() <= 1e-9


def test_euler_maruyama_by_hand() -> None:
    """Two steps written out: 1 -> 0.04 with noise, 0.04 -> 0 with the drift alone."""
    x, noise = torch.tensor([[0.7]], dtype=torch.float64), torch.tensor([[[0.3]]], dtype=torch.float64)

    def v(x: Tensor, t: float) -> Tensor:
        return torch.sin(x) + t

    def drift(x: Tensor, t: float) -> Tensor:
        score = ((t - 1) * v(x, t) - x) / (t**2 + (1 - t) * t)  # alpha = 1 - t, alpha' = -1, sigma = t
        return v(x, t) - 0.5 * (2 * t) * score

    first = x + drift(x, 1.0) * (0.04 - 1) + math.sqrt(2 * 1.0 * 0.96) * 0.3
    wanted = first + drift(first, 0.04) * (0 - 0.04)
    got = solvers.integrate("euler-maruyama", v, x, steps=2, interpolant=Linear(), noise=Recorded(x, noise))
    assert float((got - wanted).abs().max()) < 1e-14


@pytest.mark.parametrize(
    ("solver", "options", "evaluations"),
    [
        ("euler", {}, 10),
        ("heun", {}, 19),
        ("euler-maruyama", {}, 10),
        ("euler-maruyama", {"last_step": "none"}, 10),
        ("stochastic-heun", {}, 19),
        ("stochastic-heun", {"last_step": "none"}, 19),
    ],
)
def test_steps_are_what_they_cost(solver: str, options: dict[str, Any], evaluations: int) -> None:
    times: list[float] = []
    seen: list[solvers.StepInfo] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        times.append(t)
        return -x

    source = NoiseSource([1, 2])
    solvers.integrate(
        solver, velocity, source.initial((2, 3)), steps=10, interpolant=Linear(), noise=source, callback=seen.append,
        **options,
    )  # fmt: skip
    assert len(times) == evaluations == seen[-1].evaluations
    assert min(times) > 0, "the score has no value at t = 0"
    assert [info.index for info in seen] == list(range(10)) and {info.steps for info in seen} == {10}
    draws = 10 if options.get("last_step") == "none" else 9
    assert source.drawn == (1 + draws if solver in ("euler-maruyama", "stochastic-heun") else 1)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_callback_sees_the_clean_image_and_can_stop(solver: str) -> None:
    path, goal = Cosine(), torch.tensor([[0.25, -1.5]], dtype=torch.float64)

    def velocity(x: Tensor, t: float) -> Tensor:  # of the single image `goal`
        sigma = max(float(path.sigma(t)), 1e-12)
        return path.alpha_dot(t) * goal + path.sigma_dot(t) * (x - path.alpha(t) * goal) / sigma

    seen: list[solvers.StepInfo] = []

    def callback(info: solvers.StepInfo) -> None:
        seen.append(info)
        if len(seen) == 3:
            raise solvers.Cancelled

    with pytest.raises(solvers.Cancelled):
        solvers.integrate(
            solver, velocity, torch.randn(1, 2), steps=20, interpolant=path, noise=OneGenerator(), callback=callback,
            **({"rtol": 1e-9, "atol": 1e-9} if solver == "dopri5" else {}),
        )  # fmt: skip
    assert len(seen) == 3 and seen[0].t == 1
    for info in seen:
        assert torch.allclose(info.clean, goal, atol=1e-8)
        assert info.x.dtype == torch.float64 and info.evaluations >= info.index + 1


def test_dopri5_stays_between_noise_and_data() -> None:
    times: list[float] = []

    def velocity(x: Tensor, t: float) -> Tensor:
        times.append(t)
        return -x

    seen: list[solvers.StepInfo] = []
    solvers.integrate("dopri5", velocity, torch.ones(1, 1), steps=50, interpolant=Linear(), callback=seen.append)
    assert min(times) >= 0 and max(times) <= 1
    assert seen[0].steps is None and [info.index for info in seen] == list(range(len(seen)))
    assert sorted((info.t for info in seen), reverse=True) == [info.t for info in seen]


@pytest.mark.parametrize("path_name", INTERPOLANTS)
def test_diffusion_forms(path_name: str) -> None:
    path, t = find_interpolant(path_name), 0.3
    sbdm = 2 * (path.sigma(t) * path.sigma_dot(t) - path.sigma(t) ** 2 * path.alpha_dot(t) / path.alpha(t))
    wanted = {"linear": 2 * t, "sigma": 2 * path.sigma(t), "sbdm": sbdm, "constant": 2.0}
    for form, value in wanted.items():
        assert Diffusion(form).squared(t, path) == pytest.approx(value)
        assert Diffusion(form, 0.5).squared(t, path) == pytest.approx(value / 2)
    assert Diffusion("sbdm").squared(1.0, path) == math.inf
    assert Diffusion("sbdm").squared(0.3, Linear()) == pytest.approx(2 * 0.3 / 0.7)


def test_time_grid_of_the_protocols() -> None:
    assert solvers.time_grid(4) == [1, 0.75, 0.5, 0.25, 0]
    assert solvers.time_grid(4, last_step_size=0.04) == pytest.approx([1, 0.68, 0.36, 0.04, 0])
    assert solvers.time_grid(1, last_step_size=0.04) == [1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "eler"}, "unknown solver"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"noise": None}, "needs a noise source"),
        ({"diffusion": "quadratic"}, "unknown diffusion"),
        ({"diffusion": "sbdm"}, "infinite at t = 1"),
        ({"last_step": "nothing"}, "unknown last step"),
        ({"last_step_size": 1.0}, "last_step_size"),
        ({"start": 0.0}, "start"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    settings = {"solver": "euler-maruyama", "steps": 3, "noise": OneGenerator(), **changes}
    with pytest.raises(ValueError, match=message):
        solvers.integrate(
            settings.pop("solver"), lambda x, t: -x, torch.ones(1, 1), interpolant=Linear(), **settings
        )  # fmt: skip
