"""A mixture of Gaussians, whose velocity field is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hastezoo.sampling.interpolants import Interpolant

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
CENTRES = torch.tensor([[-2.0, 1.0], [1.5, -0.5]], dtype=torch.float64)
SPREADS = torch.tensor([0.5, 0.8], dtype=torch.float64)


class Mixture:
    """x_0 ~ sum_k w_k N(m_k, s_k^2 I) in two dimensions.

    Given the component, (x_0, x_t) is jointly Gaussian with var x_t = alpha^2 s^2 + sigma^2 =: q, so
    E[x_0 | x_t, k] = m + alpha s^2 / q (x_t - alpha m) and E[eps | x_t, k] = sigma / q (x_t - alpha m);
    the velocity is alpha' E[x_0 | x_t, k] + sigma' E[eps | x_t, k], weighted by the posterior of k.
    """

    mean = (WEIGHTS[:, None] * CENTRES).sum(0)
    covariance = (
        torch.diag_embed((WEIGHTS * SPREADS**2).sum().expand(2))
        + (WEIGHTS[:, None, None] * CENTRES[:, :, None] * CENTRES[:, None, :]).sum(0)
        - torch.outer(mean, mean)
    )

    def __init__(self, path: Interpolant) -> None:
        self.path = path

    def velocity(self, x: Tensor, t: float) -> Tensor:
        # Component by component, on tensors no larger than x: it is called thousands of times on tens of thousands of
        # points, and sums over an axis of two take ten times as long.
        alpha, sigma = float(self.path.alpha(t)), float(self.path.sigma(t))
        alpha_dot, sigma_dot = float(self.path.alpha_dot(t)), float(self.path.sigma_dot(t))
        velocities, logits = [], []
        for weight, centre, spread in zip(WEIGHTS.tolist(), CENTRES, SPREADS.tolist(), strict=True):
            q = alpha**2 * spread**2 + sigma**2
            apart = x - alpha * centre
            logits.append(math.log(weight / q) - torch.linalg.vector_norm(apart, dim=-1).square() / (2 * q))
            gain = (alpha_dot * alpha * spread**2 + sigma_dot * sigma) / q
            velocities.append(alpha_dot * centre + gain * apart)
        posterior = torch.sigmoid(logits[1] - logits[0])[:, None]  # of the second of the two
        return torch.lerp(velocities[0], velocities[1], posterior)


class OneGenerator:
    """Noise of a whole batch from one generator: faster than a generator a sample, for tens of thousands of them."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def initial(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def step(self, index: int, shape: Sequence[int]) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)
