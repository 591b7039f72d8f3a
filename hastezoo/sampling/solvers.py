"""Solvers from noise (t = 1) to data (t = 0), registered by name.

A solver is a plain function `(velocity, x, times, *, interpolant, noise, diffusion, last_step, last_step_size,
callback) -> x` that takes what it needs of these and passes over the rest. It keeps its state in the dtype of `x` and
evaluates `velocity(x, t)` with t a Python float. `integrate` is the usual way in: it makes the times and moves the
state to float64.

The reverse SDE with diffusion g^2 is dx = (v - g^2 score / 2) dt + g dW, run with dt < 0 (SiT, REPA).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hastezoo.sampling import interpolants
from hastezoo.sampling.diffusions import Diffusion
from hastezoo.sampling.interpolants import Interpolant
from hastezoo.sampling.steps import Callback, Cancelled, Noise, Recorder, StepInfo, Velocity

__all__ = ["SOLVERS", "Callback", "Cancelled", "StepInfo", "find_solver", "integrate", "register_solver", "time_grid"]

LAST_STEPS = ("mean", "euler", "tweedie", "none")


Solver = Callable[..., Tensor]


@dataclass(frozen=True)
class SolverEntry:
    """A registered solver and what distinguishes it.

    Attributes:
        stochastic: It follows the SDE: it draws noise at each step and may end with a special last step.
        adaptive: It chooses its own steps and ignores `steps`.
    """

    name: str
    solve: Solver
    stochastic: bool = False
    adaptive: bool = False


SOLVERS: dict[str, SolverEntry] = {}


def register_solver(name: str, *, stochastic: bool = False, adaptive: bool = False) -> Callable[[Solver], Solver]:
    """Decorator that makes a solver known to `integrate`, the CLI and the app."""

    def add(solve: Solver) -> Solver:
        SOLVERS[name] = SolverEntry(name, solve, stochastic, adaptive)
        return solve

    return add


def find_solver(name: str) -> SolverEntry:
    """The solver of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}: one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


@register_solver("euler")
def euler(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    interpolant: Interpolant,
    callback: Callback | None = None,
    **_: Any,
) -> Tensor:
    """First order, one evaluation a step."""
    evaluate = Recorder(velocity, interpolant, len(times) - 1, callback)
    for t, t_next in itertools.pairwise(times):
        v = evaluate(x, t)
        x_next = x + (t_next - t) * v
        evaluate.step_done(x, v, t)
        x = x_next
    return x


@register_solver("heun")
def heun(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    interpolant: Interpolant,
    callback: Callback | None = None,
    **_: Any,
) -> Tensor:
    """Second order, two evaluations a step; a last step to t = 0 is Euler's, as in REPA."""
    evaluate = Recorder(velocity, interpolant, len(times) - 1, callback)
    for t, t_next in itertools.pairwise(times):
        v = evaluate(x, t)
        x_next = x + (t_next - t) * v
        if t_next > 0:
            x_next = x + (t_next - t) * (v + evaluate(x_next, t_next)) / 2
        evaluate.step_done(x, v, t)
        x = x_next
    return x


class _AcceptedSteps:
    """The velocity as torchdiffeq wants it, which calls back at every step that dopri5 accepts.

    Dopri5's last stage is the velocity at the end of the step, so the one at the start of the next comes for free.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.at_start: Tensor | None = None
        self.latest: Tensor | None = None

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.latest = self.recorder(x, min(max(float(t), 0.0), 1.0))
        if self.at_start is None:
            self.at_start = self.latest
        return self.latest

    def callback_accept_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        assert self.at_start is not None
        self.recorder.step_done(x, self.at_start, float(t))
        self.at_start = self.latest


@register_solver("dopri5", adaptive=True)
def dopri5(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    interpolant: Interpolant,
    callback: Callback | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    jumps: Sequence[float] = (),
    **_: Any,
) -> Tensor:
    """Adaptive fifth order (torchdiffeq); only the ends of `times` matter.

    The steps are chosen for the batch as a whole, so an image agrees between batch sizes as far as the tolerances go.
    `jumps` are times where the velocity is not continuous, such as the ends of a guidance interval: told of them, the
    solver stops there instead of losing its accuracy.
    """
    from torchdiffeq import odeint

    steps = _AcceptedSteps(Recorder(velocity, interpolant, None, callback))
    ends = torch.tensor([times[0], times[-1]], dtype=torch.float64, device=x.device)
    inside = sorted({t for t in jumps if times[-1] < t < times[0]}, reverse=True)
    # Without `step_t` the solver would step past t = 0 and interpolate back.
    options = {"step_t": ends[-1:], "jump_t": ends.new_tensor(inside)}
    return odeint(steps, x, ends, rtol=rtol, atol=atol, method="dopri5", options=options)[-1]


def _sde_drift(path: Interpolant, x: Tensor, v: Tensor, t: float, g2: float) -> Tensor:
    return v - 0.5 * g2 * interpolants.score(path, x, v, t)


def _last(kind: str, path: Interpolant, x: Tensor, v: Tensor, t: float, t_next: float, g2: float) -> Tensor:
    """The step that ends an SDE without noise (SiT, `sample_sde`)."""
    if kind == "tweedie":  # the posterior mean of x_0
        return interpolants.clean(path, x, v, t)
    return x + (t_next - t) * (v if kind == "euler" else _sde_drift(path, x, v, t, g2))


@register_solver("euler-maruyama", stochastic=True)
def euler_maruyama(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    interpolant: Interpolant,
    noise: Noise,
    diffusion: str | Diffusion = "linear",
    last_step: str = "mean",
    callback: Callback | None = None,
    **_: Any,
) -> Tensor:
    """The SDE, first order, one evaluation a step; the last step takes no noise unless `last_step` is "none"."""
    g = Diffusion.of(diffusion)
    evaluate = Recorder(velocity, interpolant, len(times) - 1, callback)
    for index, (t, t_next) in enumerate(itertools.pairwise(times)):
        v, g2, dt = evaluate(x, t), g.squared(t, interpolant), t_next - t
        if last_step != "none" and index == len(times) - 2:
            x_next = _last(last_step, interpolant, x, v, t, t_next, g2)
        else:
            fresh = noise.step(index, x.shape).to(x)
            x_next = x + dt * _sde_drift(interpolant, x, v, t, g2) + math.sqrt(g2 * -dt) * fresh
        evaluate.step_done(x, v, t)
        x = x_next
    return x


@register_solver("stochastic-heun", stochastic=True)
def stochastic_heun(
    velocity: Velocity,
    x: Tensor,
    times: Sequence[float],
    *,
    interpolant: Interpolant,
    noise: Noise,
    diffusion: str | Diffusion = "linear",
    last_step: str = "mean",
    callback: Callback | None = None,
    **_: Any,
) -> Tensor:
    """The SDE with SiT's Heun: the noise first, then a Heun step of the drift; two evaluations a step.

    A step to t = 0 takes Euler's drift, because the score has no value there.
    """
    g = Diffusion.of(diffusion)
    evaluate = Recorder(velocity, interpolant, len(times) - 1, callback)
    for index, (t, t_next) in enumerate(itertools.pairwise(times)):
        g2, dt, start = g.squared(t, interpolant), t_next - t, x
        if last_step != "none" and index == len(times) - 2:
            v = evaluate(x, t)
            x = _last(last_step, interpolant, x, v, t, t_next, g2)
        else:
            x = x + math.sqrt(g2 * -dt) * noise.step(index, x.shape).to(x)
            v = evaluate(x, t)
            drift, churned = _sde_drift(interpolant, x, v, t, g2), x
            x = churned + dt * drift
            if t_next > 0:
                ahead = _sde_drift(interpolant, x, evaluate(x, t_next), t_next, g.squared(t_next, interpolant))
                x = churned + dt * (drift + ahead) / 2
            start = churned
        evaluate.step_done(start, v, t)
    return x


def time_grid(steps: int, *, start: float = 1.0, last_step_size: float | None = None) -> list[float]:
    """`steps` integration steps from `start` to 0, as steps + 1 times.

    Args:
        steps: At least 1.
        start: The first time, 1 but for diffusions that are infinite there.
        last_step_size: Length of a special last step: N points linearly from `start` to it, then 0 (REPA, HASTE).

    Raises:
        ValueError: If steps < 1 or a time is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not 0 < start <= 1:
        raise ValueError(f"start must be in (0, 1], not {start}")
    if last_step_size is None:
        return torch.linspace(start, 0, steps + 1, dtype=torch.float64).tolist()
    if not 0 < last_step_size < start:
        raise ValueError(f"last_step_size must be in (0, {start}), not {last_step_size}")
    return [*torch.linspace(start, last_step_size, steps, dtype=torch.float64).tolist(), 0.0]


def integrate(
    solver: str,
    velocity: Velocity,
    x: Tensor,
    *,
    steps: int,
    interpolant: Interpolant,
    noise: Noise | None = None,
    diffusion: str | Diffusion = "linear",
    last_step: str = "mean",
    last_step_size: float = 0.04,
    start: float = 1.0,
    callback: Callback | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    jumps: Sequence[float] = (),
) -> Tensor:
    """Carry noise to data.

    Args:
        solver: Registered name: euler, heun, dopri5, euler-maruyama, stochastic-heun.
        velocity: v(x, t), t a float in [0, 1].
        x: (B, C, H, W) noise at t = `start`. The state is float64 (float32 on MPS, which has no float64).
        steps: Integration steps; Euler and Euler-Maruyama evaluate the velocity as often, Heun twice but for a last
            step to 0 (2 steps - 1). dopri5 ignores it.
        interpolant: The path the velocity belongs to.
        noise: For the SDE solvers.
        diffusion: Form of g^2: a name or a `Diffusion`.
        last_step: How an SDE ends: mean, euler, tweedie, or none for an ordinary noisy step.
        last_step_size: Length of that last step in time.
        start: First time; below 1 for `sbdm`.
        callback: Called after every step; raise `Cancelled` in it to stop.
        rtol, atol: Tolerances of dopri5.
        jumps: Times where the velocity is not continuous, for dopri5.

    Returns:
        (B, C, H, W) at t = 0, in the state's dtype.

    Raises:
        ValueError: If the solver, a form or a number is not valid.
        Cancelled: If the callback raised it.
    """
    entry = find_solver(solver)
    if last_step not in LAST_STEPS:
        raise ValueError(f"unknown last step {last_step!r}: one of {', '.join(LAST_STEPS)}")
    if entry.stochastic:
        if noise is None:
            raise ValueError(f"{solver} needs a noise source")
        if math.isinf(Diffusion.of(diffusion).squared(start, interpolant)):
            raise ValueError(f"the diffusion is infinite at t = {start}: choose a start below 1, such as 0.999")
    size = last_step_size if entry.stochastic and last_step != "none" else None
    times = time_grid(steps, start=start, last_step_size=size)

    state = x.to(torch.float32 if x.device.type == "mps" else torch.float64)
    return entry.solve(
        velocity,
        state,
        times,
        interpolant=interpolant,
        noise=noise,
        diffusion=diffusion,
        last_step=last_step,
        last_step_size=last_step_size,
        callback=callback,
        rtol=rtol,
        atol=atol,
        jumps=jumps,
    )
