"""Statistics in an npz as the ADM evaluator keeps them: mu, sigma, mu_s, sigma_s, and images in arr_0."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL
from hastezoo.evaluation.images import Images, suited
from hastezoo.evaluation.images.arrays import IMAGES, LABELS
from hastezoo.evaluation.npz import Archive, Writer
from hastezoo.evaluation.references.reference import PAIRS, Reference, subset
from hastezoo.evaluation.statistics import Moments
from hastezoo.files import atomic_open

COUNT = "count"  # a key that only our own files have, and others pass over
SYMMETRY = 1e-4  # of the largest variance; published covariances were summed in float32 and float64
BLOCK = 64  # images written at a time


def has_statistics(archive: Archive) -> bool:
    """Whether an npz is more than images."""
    return any(key in archive.keys for key in PAIRS[POOL])


def read_count(archive: Archive) -> int | None:
    """How many images are behind the statistics, where the file says so."""
    if COUNT not in archive.keys:
        return None
    member = archive.member(COUNT)
    if member.shape != () or member.dtype.kind not in "iu":
        return None
    return int(member.whole()) or None


def read_moments(archive: Archive, widths: dict[str, int], count: int | None) -> dict[str, Moments]:
    """The statistics of an npz by the feature's name; of the features in `widths`, those that it has.

    Args:
        archive: The npz.
        widths: Dimensions that each feature must have.
        count: Images behind them.

    Raises:
        UserError: If some are missing their other half, or cannot be a mean and a covariance.
    """
    found = {}
    for feature, width in widths.items():
        pair = PAIRS[feature]
        held = [key for key in pair if key in archive.keys]
        if len(held) == 1:
            raise UserError(f"{archive.path} has {held[0]} and no {next(key for key in pair if key not in held)}")
        if held:
            mean, covariance = (_read(archive, key, (width,) * (1 + place)) for place, key in enumerate(pair))
            _check_symmetric(archive.path, pair[1], covariance)
            found[feature] = Moments(mean, covariance, count or 0)
    return found


def _read(archive: Archive, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array in float64; only a shape that fits is read."""
    member = archive.member(key)
    if member.dtype.kind != "f" or member.shape != shape:
        raise UserError(
            f"{archive.path}: {key} is {member.dtype} {member.shape}, and for these features it must be floats {shape}"
        )
    values = member.whole().astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{archive.path}: {key} has values that are not finite")
    return values


def _check_symmetric(path: Path, key: str, covariance: np.ndarray) -> None:
    largest = np.abs(np.diagonal(covariance)).max()
    apart = np.abs(covariance - covariance.T).max()
    if apart > SYMMETRY * largest:
        raise UserError(f"{path}: {key} is not symmetric (by {apart:.3g}, with variances up to {largest:.3g})")


def write_npz(path: Path, reference: Reference, images: Images, channels: int | None) -> None:
    """Write a reference as the ADM evaluator reads it, whole or not at all; images go from source to file in blocks.

    Args:
        path: Its final name.
        reference: What was computed of the images.
        images: All of them; those in `subset` become arr_0, and their labels, where known, arr_1.
        channels: How many channels the file's images have; None for what they have.

    Raises:
        UserError: If an image cannot be read.
    """
    chosen = subset(images.count)
    height, width, own = images.shape
    shape = (len(chosen), height, width, channels or own)
    with atomic_open(path) as stream, Writer(stream) as writer:
        for feature, moments in reference.moments.items():
            for key, array in zip(PAIRS[feature], (moments.mean, moments.covariance), strict=True):
                writer.array(key, array)
        if reference.count is not None:
            writer.array(COUNT, np.array(reference.count, np.int64))
        writer.rows(IMAGES, shape, np.dtype(np.uint8), _blocks(images, chosen, shape[3]))
        if images.labels is not None:
            writer.array(LABELS, images.labels[chosen])


def _blocks(images: Images, chosen: np.ndarray, channels: int) -> Iterator[np.ndarray]:
    """The images of those numbers, sorted ones, in bytes."""
    for start in range(0, len(chosen), BLOCK):
        numbers = chosen[start : start + BLOCK].tolist()
        whole = numbers[-1] - numbers[0] + 1 == len(numbers)
        parts = [(numbers[0], numbers[-1] + 1)] if whole else [(number, number + 1) for number in numbers]
        yield suited(np.concatenate([images.read(*part) for part in parts]), channels)
