"""How much noise the reverse SDE carries: the forms of g(t)^2 (SiT).

Any g^2 >= 0 leaves the distributions unchanged in continuous time; with finitely many steps they differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hastezoo.sampling.interpolants import Interpolant


def _sbdm(t: float, path: Interpolant) -> float:
    alpha, sigma = float(path.alpha(t)), float(path.sigma(t))
    if alpha <= 1e-12:  # cos(pi/2) is 6e-17 in floating point, not 0
        return math.inf
    return 2 * (sigma * float(path.sigma_dot(t)) - sigma**2 * float(path.alpha_dot(t)) / alpha)


FORMS: dict[str, Callable[[float, Interpolant], float]] = {
    "linear": lambda t, path: 2 * t,  # whatever the interpolant: REPA and HASTE use it on the cosine path too
    "sigma": lambda t, path: 2 * float(path.sigma(t)),
    "sbdm": _sbdm,  # what makes the forward process a diffusion; 2 t / (1 - t) on the linear path
    "constant": lambda t, path: 2.0,
}


@dataclass(frozen=True)
class Diffusion:
    """g(t)^2 as a named form times a constant.

    Attributes:
        form: linear (2t), sigma (2 sigma), sbdm (infinite at t = 1) or constant (2).
        norm: Factor of the whole.
    """

    form: str = "linear"
    norm: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"unknown diffusion {self.form!r}: one of {', '.join(FORMS)}")
        if not self.norm >= 0:
            raise ValueError(f"the diffusion's norm must be at least 0, not {self.norm}")

    @classmethod
    def of(cls, value: str | Diffusion) -> Diffusion:
        """A form's name, or a Diffusion as it is."""
        return cls(value) if isinstance(value, str) else value

    def squared(self, t: float, path: Interpolant) -> float:
        """g(t)^2."""
        return self.norm * FORMS[self.form](t, path)
