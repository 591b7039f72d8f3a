"""Features -> their mean and covariance, in float64, a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np


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
