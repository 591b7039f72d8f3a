"""Images -> named features. What is measured with, behind one small protocol: Inception, DINOv2, raw pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from hastezoo.errors import UserError, nearest
from hastezoo.zoo.download import Progress

POOL = "pool"  # of which FID, KID, precision and recall are
SPATIAL = "spatial"  # of which sFID is


class Extractor(Protocol):
    """What an evaluation needs of a feature extractor.

    Attributes:
        name: What the user types: inception, dinov2, pixels.
        identity: All that its numbers depend on, such as the sha256 of its weights, as words.
        channels: How many channels an image must have; None where any will do.
        classifier: float32 (classes, D): softmax(pool @ classifier.T) are the probabilities of the Inception Score;
            None where there is no such score.
    """

    name: str
    identity: dict[str, str]
    channels: int | None
    classifier: np.ndarray | None

    def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
        """The number of dimensions of each feature of images (H, W, C)."""

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 images (B, H, W, C) -> float32 features (B, D) by name; always `pool`, and `spatial` where it has one.

        Raises:
            ValueError: If the array is something else.
        """


class Pixels:
    """Every pixel is a feature, on the digits' scale: bytes x 16 / 255. It sees levels between bytes too.

    For images of a few pixels, whose statistics are then a matter of milliseconds; needs no weights.
    """

    def __init__(self) -> None:
        self.name = "pixels"
        self.identity = {"features": "pixels", "scale": "bytes x 16 / 255"}
        self.channels: int | None = None
        self.classifier: np.ndarray | None = None

    def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
        return {POOL: int(np.prod(shape))}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if images.ndim != 4:
            raise ValueError(f"images are (B, H, W, C), not {images.shape}")
        return {POOL: (images.reshape(len(images), -1).astype(np.float64) * (16 / 255)).astype(np.float32)}


def digest(identity: dict[str, str]) -> str:
    """A name for an identity: 16 hex digits."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


EXTRACTORS = ("inception", "dinov2", "pixels")


def create_extractor(
    name: str, *, weights: Path | None = None, device: str = "auto", progress: Progress = lambda done, total: None
) -> Extractor:
    """An extractor by name.

    Args:
        name: inception, dinov2 or pixels.
        weights: A file instead of the one that belongs there.
        device: Where its network runs.
        progress: Told of the bytes of a direct download.

    Raises:
        UserError: If there is no such extractor, or its weights are not to be had or are not what they should be.
    """
    check_extractor(name)
    if name == "pixels":
        if weights is not None:
            raise UserError(f"pixels have no weights; leave out {weights}")
        return Pixels()
    if name == "inception":
        from hastezoo.evaluation.extractors.inception import Inception

        return Inception.from_file(weights, device=device, progress=progress)
    from hastezoo.evaluation.extractors.dinov2 import Dinov2

    return Dinov2.from_pretrained(weights, device=device)


def own_weights(name: str, files: Mapping[str, Path | None]) -> Path | None:
    """The file of weights that is given for an extractor; None for the one that belongs there.

    Args:
        name: Of the extractor.
        files: By the extractor that each is for.

    Raises:
        UserError: If there is one for another extractor, which is a mistake and not to be passed over.
    """
    for other, file in files.items():
        if file is not None and other != name:
            raise UserError(f"--{other} goes with --features {other}, not {name}; leave it out")
    return files.get(name)


def check_extractor(name: str) -> None:
    """Refuse what is no extractor.

    Raises:
        UserError: If there is none of that name.
    """
    if name in EXTRACTORS:
        return
    near = nearest(name, EXTRACTORS, 1)
    raise UserError(
        f"unknown features {name!r}: one of {', '.join(EXTRACTORS)}" + (f"; nearest: {near[0]}" if near else "")
    )
