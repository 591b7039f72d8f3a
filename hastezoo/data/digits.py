"""The UCI handwritten digits of scikit-learn: 1797 grey images of 8x8, values 0..16, ten classes.

The split is data (`digits_split.json`), so that it outlives changes in how libraries shuffle.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hastezoo.data.batch import Batch

Split = Literal["train", "test", "all"]
WHITE = 16.0


@functools.cache
def _everything() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    return np.asarray(data, dtype=np.float64), np.asarray(target, dtype=np.int64)


def split_indices(split: Split) -> np.ndarray:
    """Sorted indices into the 1797 digits: 1437 for train, 360 for test.

    Raises:
        ValueError: If the split is unknown.
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f"unknown split {split!r}: train, test or all")
    every = np.arange(1797)
    test = json.loads((Path(__file__).parent / "digits_split.json").read_text(encoding="utf-8"))["test"]
    return {"all": every, "test": np.array(test), "train": np.setdiff1d(every, test)}[split]


def load(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64) float64 in 0..16, and labels (N,) int64."""
    pixels, labels = _everything()
    indices = split_indices(split)
    return pixels[indices], labels[indices]


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """The digits as a model sees them: (1, 8, 8) float32 in [-1, 1], with an int64 label."""

    shape: tuple[int, ...] = (1, 8, 8)
    variants = 1

    def __init__(self, split: Split = "train") -> None:
        pixels, labels = load(split)
        self.images = torch.from_numpy(pixels / WHITE * 2 - 1).float().view(-1, *self.shape)
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def without_images(self) -> Self:
        """Itself: what a teacher would see costs nothing."""
        return self

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch at once: data (B, 1, 8, 8), labels (B,), and for a teacher the images in [0, 1]."""
        chosen = torch.as_tensor(indices)
        data = self.images[chosen]
        return Batch(data, self.labels[chosen], (data + 1) / 2)


def from_bytes(images: np.ndarray) -> np.ndarray:
    """uint8 images (N, 8, 8, 1) -> pixels (N, 64) on the digits' scale of 0..16."""
    return images.reshape(len(images), -1).astype(np.float64) * (WHITE / 255)
