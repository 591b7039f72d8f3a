"""scikit-learn's handwritten digits as images to measure."""

from __future__ import annotations

import hashlib

import numpy as np

from hastezoo.data import digits
from hastezoo.evaluation.images import DIGITS


class DigitImages:
    """The digits on the scale of bytes: level x 255 / 16, float64 (N, 8, 8, 1).

    Most of the 17 levels lie between bytes, and a real digit is not to be measured as something it is not: what
    `Pixels` makes of these are the levels themselves.

    Args:
        name: digits, digits-train or digits-test.
    """

    def __init__(self, name: str) -> None:
        split = DIGITS[name]
        levels, labels = digits.load(split)
        self.labels: np.ndarray | None = labels
        self._images = levels.reshape(-1, 8, 8, 1) * (255 / digits.WHITE)
        self.count, self.shape = len(levels), (8, 8, 1)
        self.lossy: bool | None = False
        self.description = f"scikit-learn's handwritten digits, {split} {self.count:,}"
        self.identity = {"kind": name, "sha256": hashlib.sha256(levels.tobytes()).hexdigest()}

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._images[start:stop]
