"""The path x_t = alpha(t) x_0 + sigma(t) eps from data (t = 0) to noise (t = 1), and what a velocity says about it.

Everything is a closed form. A velocity v = alpha' x_0 + sigma' eps together with x_t determines x_0, eps and the
score; these are two linear equations in two unknowns, with determinant alpha sigma' - alpha' sigma.
Times are Python floats, or tensors that broadcast against x.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

Time = float | Tensor


class Interpolant(Protocol):
    """alpha, sigma and their derivatives, as functions of time."""

    def alpha(self, t: Time) -> Time: ...
    def sigma(self, t: Time) -> Time: ...
    def alpha_dot(self, t: Time) -> Time: ...
    def sigma_dot(self, t: Time) -> Time: ...


class Linear:
    """alpha = 1 - t, sigma = t (SiT's linear path, rectified flow)."""

    def alpha(self, t: Time) -> Time:
        return 1 - t

    def sigma(self, t: Time) -> Time:
        return t

    def alpha_dot(self, t: Time) -> Time:
        return -torch.ones_like(t) if isinstance(t, Tensor) else -1.0

    def sigma_dot(self, t: Time) -> Time:
        return torch.ones_like(t) if isinstance(t, Tensor) else 1.0


def _cos(t: Time) -> Time:
    return t.cos() if isinstance(t, Tensor) else math.cos(t)


def _sin(t: Time) -> Time:
    return t.sin() if isinstance(t, Tensor) else math.sin(t)


class Cosine:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (SiT's generalised variance-preserving path)."""

    def alpha(self, t: Time) -> Time:
        return _cos(t * (math.pi / 2))

    def sigma(self, t: Time) -> Time:
        return _sin(t * (math.pi / 2))

    def alpha_dot(self, t: Time) -> Time:
        return -_sin(t * (math.pi / 2)) * (math.pi / 2)

    def sigma_dot(self, t: Time) -> Time:
        return _cos(t * (math.pi / 2)) * (math.pi / 2)


INTERPOLANTS: dict[str, type[Linear] | type[Cosine]] = {"linear": Linear, "cosine": Cosine}


def find_interpolant(name: str) -> Interpolant:
    """The interpolant of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in INTERPOLANTS:
        raise ValueError(f"unknown interpolant {name!r}: one of {', '.join(INTERPOLANTS)}")
    return INTERPOLANTS[name]()


def expand(t: Tensor, x: Tensor) -> Tensor:
    """Times (B,) shaped to broadcast against x (B, ...)."""
    return t.view(-1, *[1] * (x.ndim - 1))


def noisy(path: Interpolant, data: Tensor, noise: Tensor, t: Time) -> Tensor:
    """x_t."""
    return path.alpha(t) * data + path.sigma(t) * noise


def velocity(path: Interpolant, data: Tensor, noise: Tensor, t: Time) -> Tensor:
    """dx_t / dt, what a model learns."""
    return path.alpha_dot(t) * data + path.sigma_dot(t) * noise


def _determinant(path: Interpolant, t: Time) -> Time:
    return path.alpha(t) * path.sigma_dot(t) - path.alpha_dot(t) * path.sigma(t)


def clean(path: Interpolant, x: Tensor, v: Tensor, t: Time) -> Tensor:
    """The clean image that (x_t, v) predict: (sigma' x - sigma v) / (alpha sigma' - alpha' sigma)."""
    return (path.sigma_dot(t) * x - path.sigma(t) * v) / _determinant(path, t)


def noise(path: Interpolant, x: Tensor, v: Tensor, t: Time) -> Tensor:
    """The noise that (x_t, v) predict: (alpha v - alpha' x) / (alpha sigma' - alpha' sigma)."""
    return (path.alpha(t) * v - path.alpha_dot(t) * x) / _determinant(path, t)


def score(path: Interpolant, x: Tensor, v: Tensor, t: Time) -> Tensor:
    """grad log p_t(x) = -noise / sigma.

    SiT writes ((alpha / alpha') v - x) / (sigma^2 - (alpha / alpha') sigma' sigma): the same, multiplied through by
    alpha' so that it also holds where alpha' = 0 (the cosine path at t = 0). It has no value at t = 0.
    """
    return -noise(path, x, v, t) / path.sigma(t)


def velocity_from_clean(path: Interpolant, x: Tensor, data: Tensor, t: Time) -> Tensor:
    """The velocity of a model that predicts the clean image; sigma(t) must not be 0."""
    return velocity(path, data, (x - path.alpha(t) * data) / path.sigma(t), t)


def velocity_from_noise(path: Interpolant, x: Tensor, eps: Tensor, t: Time) -> Tensor:
    """The velocity of a model that predicts the noise; alpha(t) must not be 0."""
    return velocity(path, (x - path.sigma(t) * eps) / path.alpha(t), eps, t)


def velocity_from_score(path: Interpolant, x: Tensor, score: Tensor, t: Time) -> Tensor:
    """The velocity of a model that predicts the score; alpha(t) must not be 0."""
    return velocity_from_noise(path, x, -path.sigma(t) * score, t)
