"""Metrics from statistics and from features, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hastezoo.evaluation.statistics import Moments

ROWS = 1024  # samples at a time, where more would only take memory


@dataclass(frozen=True)
class Score:
    """A mean over parts of the samples.

    Attributes:
        value: The mean.
        error: How uncertain or how spread it is, as each metric says; None where there is only one part.
        splits: How many parts.
    """

    value: float
    error: float | None
    splits: int


class Rows(Protocol):
    """Features (N, D) of which rows are taken by number: an array, a memory map, a reader of files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray, /) -> np.ndarray: ...


def _half(covariance: np.ndarray) -> np.ndarray:
    """L with covariance = L L^T; eigenvalues that are zero but for rounding are set to zero."""
    values, vectors = np.linalg.eigh(covariance)
    floor = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return vectors * np.sqrt(np.where(values < floor, 0.0, values))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """L with covariance = L L^T, by Cholesky in a tenth of the time where no pivot comes near zero.

    Rounding leaves up to D eps / p of a pivot that is zero when another is p, in parts of the largest: so both are told
    apart from zero above the square root of D eps.
    """
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return _half(covariance)
    floor = np.sqrt(len(factor) * np.finfo(np.float64).eps) * np.diag(covariance).max()
    return factor if np.square(np.diag(factor)).min() > floor else _half(covariance)


def _check_widths(a: Moments, b: Moments) -> None:
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {a.mean.shape[0]} and {b.mean.shape[0]} dimensions cannot be compared")


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr sqrt(S1 S2).

    The last trace is the nuclear norm of L1^T L2 with S = L L^T: no square root of a product that is not symmetric,
    no imaginary part, and exact where a covariance is singular.

    Raises:
        ValueError: If the dimensions differ.
    """
    _check_widths(a, b)
    cross = np.linalg.svd(_factor(a.covariance).T @ _factor(b.covariance), compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    # Of equal moments rounding may leave less than nothing.
    return max(0.0, float(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross))


def frechet_gradient(samples: Moments, reference: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The derivatives of the Fréchet distance by the mean (D,) and by the covariance (D, D) of the samples.

    They are 2 (mu_s - mu_r) and I - T, where T is the optimal transport from the one covariance to the other,
    T S_s T = S_r: with S = L L^T and L_s^T L_r = U S V^T it is L_s^-T U S U^T L_s^-1. Directions in which the samples
    do not vary are left out of T (a pseudo-inverse).

    Raises:
        ValueError: If the dimensions differ.
    """
    _check_widths(samples, reference)
    half = _half(samples.covariance)
    squares, left = np.linalg.eigh(half.T @ reference.covariance @ half)
    # L is orthonormal columns times lengths: dividing by the squares of the lengths makes it L^-T.
    lengths = np.square(half).sum(0)
    inverse = half / np.where(lengths > 0, lengths, np.inf)
    root = inverse @ (left * np.clip(squares, 0, None) ** 0.25)
    return 2 * (samples.mean - reference.mean), np.eye(len(half)) - root @ root.T


def frechet_error(samples: Moments, reference: Moments, chunks: Iterable[np.ndarray]) -> float | None:
    """The standard error of the Fréchet distance that comes from the finite number of samples.

    By the infinitesimal jackknife: the influence of a sample is the derivative of the distance along the change of the
    moments when that sample gets more weight; the error is the standard deviation of the influences over sqrt(N). It is
    the spread of the distance between sets of samples from other seeds, with the reference as given. It says nothing of
    the bias: the distance of N samples is too large by about a constant over N, for which see `extrapolate`. It is of
    first order, so rough (up to twofold in trials) with few more samples than dimensions, or where bias is most of the
    distance.

    Args:
        samples: Moments of the samples.
        reference: What they are held against.
        chunks: The features that the samples' moments are of, once more, (B, D) each.

    Returns:
        The error, or None where there are no more samples than dimensions: the covariance is singular then, and the
        distance not smooth in the samples.

    Raises:
        ValueError: If the dimensions differ, or the chunks hold another number of features.
    """
    _check_widths(samples, reference)
    if samples.count <= len(samples.mean):
        return None
    slope, curvature = frechet_gradient(samples, reference)
    level = np.vdot(curvature, samples.covariance)
    count, total, squares = 0, 0.0, 0.0
    for chunk in chunks:
        for start in range(0, len(chunk), ROWS):
            x = chunk[start : start + ROWS] - samples.mean
            influence = x @ slope + np.einsum("bd,bd->b", x @ curvature, x) - level
            count, total = count + len(x), total + float(influence.sum())
            squares += float(np.square(influence).sum())
    if count != samples.count:
        raise ValueError(f"the moments are of {samples.count} features, and {count} came")
    return float(np.sqrt(max(squares / count - (total / count) ** 2, 0.0) / count))


def extrapolate(counts: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """(limit, slope) of the least-squares line of values against 1 / N; the limit is that of infinitely many samples.

    For the Fréchet distance, whose bias goes with 1 / N (Chong & Forsyth, CVPR 2020).

    Raises:
        ValueError: If there are fewer than two different counts, or not a value to each.
    """
    if len(counts) != len(values) or len(set(counts)) < 2:
        raise ValueError(f"a line takes values at two counts at least, not {len(values)} values at {list(counts)}")
    inverse, heights = 1 / np.asarray(counts, np.float64), np.asarray(values, np.float64)
    apart = inverse - inverse.mean()
    slope = float(apart @ heights / (apart @ apart))
    return float(heights.mean() - slope * inverse.mean()), slope


def probabilities(pool: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """softmax(pool @ classifier^T), without a bias as in the ADM evaluator: (B, D) and (K, D) -> float64 (B, K)."""
    logits = pool.astype(np.float64) @ classifier.astype(np.float64).T
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


class _Split:
    """Sums over one split of the Inception Score."""

    def __init__(self) -> None:
        self.count = 0
        self._mass: np.ndarray | float = 0.0
        self._inner = 0.0

    def add(self, part: np.ndarray) -> None:
        part = part.astype(np.float64)
        # A sum that is not 1 is what logits or log-probabilities would have.
        if part.ndim != 2 or not (part >= 0).all() or not np.allclose(part.sum(1), 1, atol=1e-3):
            raise ValueError(f"the Inception Score takes probabilities (B, K) whose rows sum to 1; got {part.shape}")
        self.count += len(part)
        self._mass = self._mass + part.sum(0)
        self._inner += float(_p_log_p(part).sum())

    def score(self) -> float:
        """exp of the mean over samples of sum p log p, less sum q log q of their mean q."""
        return float(np.exp(self._inner / self.count - _p_log_p(self._mass / self.count).sum()))


def _p_log_p(p: np.ndarray | float) -> np.ndarray:
    return p * np.log(np.where(p == 0, 1, p))


def inception_score(chunks: Iterable[np.ndarray], split: int = 5000) -> Score:
    """exp of the mean KL(p(y|x) || p(y)) in consecutive splits of the samples, averaged over the splits.

    As in the ADM evaluator, samples are taken in the order in which they come, and a short last split counts as much as
    the others. An order by class ruins the score.

    Args:
        chunks: Probabilities (B, K) of consecutive samples, in chunks of any sizes; only one is held at a time.
        split: Samples a split.

    Returns:
        The mean with its standard error: the standard deviation between the splits (with n - 1) over the square root of
        their number n.

    Raises:
        ValueError: If there are no samples, or rows that are no probabilities.
    """
    scores, sums = [], _Split()
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            stop = start + min(split - sums.count, ROWS)
            sums.add(chunk[start:stop])
            start = stop
            if sums.count == split:
                scores.append(sums.score())
                sums = _Split()
    if sums.count:
        scores.append(sums.score())
    if not scores:
        raise ValueError("no samples, no Inception Score")
    error = float(np.std(scores, ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None
    return Score(float(np.mean(scores)), error, len(scores))


def kernel_distance(samples: Rows, reference: Rows, *, subsets: int = 100, size: int = 1000, seed: int = 2020) -> Score:
    """Kernel Inception Distance as torch-fidelity has it: the squared MMD of a cubic kernel, averaged over subsets.

    The kernel is (x . y / D + 1)^3; the estimator is the unbiased one, with all pairs between the sets. Subsets are
    drawn as torch-fidelity draws them, so that the numbers agree.

    Args:
        samples: (N, D) of any float dtype; `size` rows at a time are taken, in float64.
        reference: (R, D) likewise.
        subsets: How many.
        size: Of each.
        seed: Of the draws.

    Returns:
        The mean, and as its error what torch-fidelity reports: the standard deviation over the subsets (with n), which
        is the spread of one subset and not the standard error of the mean.

    Raises:
        ValueError: If one side has fewer than `size`, or the widths differ.
    """
    if min(len(samples), len(reference)) < size:
        raise ValueError(f"no subsets of {size} in {len(samples)} samples and {len(reference)} references")
    random, found = np.random.RandomState(seed), []
    for _ in range(subsets):
        # In ascending order, which changes no sum and is how files are read.
        x, y = (
            rows[np.sort(random.choice(len(rows), size, replace=False))].astype(np.float64)
            for rows in (samples, reference)
        )
        if x.shape[1] != y.shape[1]:
            raise ValueError(f"features of {x.shape[1]} and {y.shape[1]} dimensions cannot be compared")
        within = sum(kernel.sum() - np.trace(kernel) for kernel in (_cubic(x, x), _cubic(y, y)))
        found.append(within / (size * (size - 1)) - 2 * _cubic(x, y).mean())
    return Score(float(np.mean(found)), float(np.std(found)) if subsets > 1 else None, subsets)


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    kernel = x @ y.T / x.shape[1] + 1
    return kernel * kernel * kernel
