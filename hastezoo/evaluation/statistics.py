"""Features -> their mean and covariance, in float64, a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

ROWS = 2048  # features a product: enough to be worth a pass over the sums; 34 MB at 2048 dimensions


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D) of features, and how many there were; a count of 0 says that nobody knows."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """The moments of features (N, D), with N - 1 in the covariance.

        Raises:
            ValueError: If there are fewer than two, or the array has another shape.
        """
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"moments need features (N, D) with N of at least 2, not {features.shape}")
        features = features.astype(np.float64)
        return cls(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)), len(features))


class RunningMoments:
    """Moments of features that come a chunk at a time: float64 sums of x and of x x^T, and ROWS features in waiting.

    The sums are of x less the mean of the first ROWS features, so that a large mean costs no digits. Features are
    always summed up in the same groups of ROWS: how they were cut into chunks does not change a bit, nor does asking
    for the moments on the way.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting = np.empty((0, 0))
        self._centre: np.ndarray | None = None
        self._sum: np.ndarray | float = 0.0
        self._products: np.ndarray | float = 0.0

    def add(self, features: np.ndarray) -> None:
        """Take in features (B, D) of any float dtype.

        Raises:
            ValueError: If the array has another shape or width, or not every feature is a finite number.
        """
        if features.ndim != 2 or (self.count and features.shape[1] != self._waiting.shape[1]):
            width = self._waiting.shape[1] if self.count else "D"
            raise ValueError(f"features are (B, {width}), not {features.shape}")
        if not np.isfinite(features).all():
            raise ValueError("features that are not finite numbers have no moments")
        if not self.count:
            self._waiting = np.empty((ROWS, features.shape[1]))
        taken = 0
        while taken < len(features):
            there = self.count % ROWS
            part = features[taken : taken + ROWS - there]
            self._waiting[there : there + len(part)] = part
            self.count += len(part)
            taken += len(part)
            if self.count % ROWS == 0:
                self._centre, self._sum, self._products = self._with(self._waiting)

    def moments(self) -> Moments:
        """The moments of all features so far, with N - 1 in the covariance.

        Raises:
            ValueError: If there are fewer than two.
        """
        if self.count < 2:
            raise ValueError(f"moments need at least 2 features, not {self.count}")
        centre, total, products = self._with(self._waiting[: self.count % ROWS])
        mean = total / self.count
        covariance = (products - np.outer(total, total) / self.count) / (self.count - 1)
        return Moments(centre + mean, covariance, self.count)

    def _with(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(centre, sum, products) with these rows."""
        centre = rows.mean(0) if self._centre is None else self._centre
        rows = rows - centre
        # numpy sees that both factors are one array, computes one triangle, and mirrors it.
        return centre, self._sum + rows.sum(0), self._products + rows.T @ rows
