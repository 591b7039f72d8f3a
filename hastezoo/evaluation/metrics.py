"""Metrics from statistics, in float64."""

from __future__ import annotations

import numpy as np

from hastezoo.evaluation.statistics import Moments


def _half(covariance: np.ndarray) -> np.ndarray:
    """L with covariance = L L^T; eigenvalues that are zero but for rounding are set to zero."""
    values, vectors = np.linalg.eigh(covariance)
    floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return vectors * np.sqrt(np.where(values < floor, 0.0, values))


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2).

    The last trace is the nuclear norm of L1^T L2 with S = L L^T: no square root of a product that is not symmetric,
    no imaginary part, and exact where a covariance is singular.

    Raises:
        ValueError: If the dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {a.mean.shape[0]} and {b.mean.shape[0]} dimensions cannot be compared")
    cross = np.linalg.svd(_half(a.covariance).T @ _half(b.covariance), compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    return float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)
