"""What samples are held against: statistics of real images, and features of some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hastezoo.evaluation.extractors import POOL, SPATIAL
from hastezoo.evaluation.statistics import Moments

Say = Callable[[str], None]
"""Told in a line what is done, or was found done."""
Progress = Callable[[int, int], None]
"""Called with the number of images seen, and of those there are."""

FEATURES = "features"
# By the ADM evaluator's names for them, which our own file uses too.
PAIRS = {POOL: ("mu", "sigma"), SPATIAL: ("mu_s", "sigma_s")}


@dataclass(frozen=True)
class Reference:
    """Statistics of real images.

    Attributes:
        name: What the user typed.
        description: Where they are from, for people.
        identity: All that decides which images or which file they are of, as words.
        count: Images behind the statistics; None where the file does not say.
        moments: By the feature's name, `pool` or `spatial`.
        features: float32 (M, D) pool features, for precision, recall and KID: of all images of an ADM file, else of at
            most 10,000; None where there are no images to take them of.
        missing: What is not there (`spatial`, `features`) and why, in words.
        shape: (H, W, C) of the images; None where nobody knows.
        lossy: Whether they went through a lossy format; None where nobody can tell.
        stated: Whether the moments are as the file states them, and so of the published Inception weights.
        verified: Of a published file, whether it is known to be that one: by its sha256 or size; None where nothing
            was published under the name.
    """

    name: str
    description: str
    identity: dict[str, str]
    count: int | None
    moments: dict[str, Moments]
    features: np.ndarray | None
    missing: dict[str, str]
    shape: tuple[int, int, int] | None
    lossy: bool | None
    stated: bool = False
    verified: bool | None = None


def silent(line: str) -> None:
    """Says nothing."""


def still(done: int, total: int) -> None:
    """Shows nothing."""


def subset(count: int, size: int = 10_000) -> np.ndarray:
    """Which of `count` images stand for all of them: sorted; all up to `size`, else a seeded draw."""
    return np.sort(np.random.default_rng(0).permutation(count)[:size])
