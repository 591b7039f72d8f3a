"""An extractor shown images: moments of all features, and the features of some images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, Extractor
from hastezoo.evaluation.images import Images, suited
from hastezoo.evaluation.references.reference import Progress, still
from hastezoo.evaluation.statistics import Moments, RunningMoments


def see(
    images: Images,
    extractor: Extractor,
    rows: np.ndarray,
    *,
    moments: bool = True,
    batch_size: int = 64,
    progress: Progress = still,
) -> tuple[dict[str, Moments], np.ndarray]:
    """Show every image once.

    Args:
        images, extractor: Of what, and with what.
        rows: Sorted numbers of the images whose pool features are kept.
        moments: Whether moments of all features are taken.
        batch_size: Images at a time.
        progress: Told how far it is.

    Returns:
        Moments of all images by the feature's name, and float32 pool features (len(rows), D).

    Raises:
        UserError: If an image cannot be read, there are fewer than two, or a feature is not finite.
    """
    if images.count < 2:
        raise UserError(f"{images.description} has one image; statistics need two at least")
    sums: dict[str, RunningMoments] = {}
    kept, done = [], 0
    for batch in _ahead(images, batch_size):
        features = extractor(suited(batch, extractor.channels))
        _check_finite(features, images, done, len(batch))
        first, last = np.searchsorted(rows, [done, done + len(batch)])
        kept.append(features[POOL][rows[first:last] - done])
        for name, values in features.items() if moments else ():
            sums.setdefault(name, RunningMoments()).add(values)
        done += len(batch)
        progress(done, images.count)
    return {name: one.moments() for name, one in sums.items()}, np.concatenate(kept)


def _check_finite(features: dict[str, np.ndarray], images: Images, start: int, count: int) -> None:
    for name, values in features.items():
        if not np.isfinite(values).all():
            raise UserError(
                f"the {name} features of images {start}..{start + count - 1} of {images.description} are not finite"
            )


def _ahead(images: Images, size: int) -> Iterator[np.ndarray]:
    """Batches in order; the next is read while one is looked at."""
    with ThreadPoolExecutor(1) as reader:
        starts = range(0, images.count, size)
        following = reader.submit(images.read, 0, min(size, images.count))
        for start in starts:
            batch = following.result()
            begin = start + size
            if begin < images.count:
                following = reader.submit(images.read, begin, min(begin + size, images.count))
            yield batch
