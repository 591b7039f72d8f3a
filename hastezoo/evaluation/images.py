"""Images to measure, wherever they are: what an evaluation needs of samples and of references alike."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Images(Protocol):
    """A number of images of one size, read a few at a time.

    Attributes:
        description: Where they are from, for people.
        identity: All that decides which images these are, as words: digests, settings.
        count: How many there are.
        shape: (H, W, C) of each.
        lossy: Whether they went through a lossy format such as JPEG; None where nobody can tell.
        labels: int64 (N,), where they are known.
    """

    description: str
    identity: dict[str, str]
    count: int
    shape: tuple[int, int, int]
    lossy: bool | None
    labels: np.ndarray | None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Images start..stop - 1: uint8 (B, H, W, C).

        Raises:
            UserError: If one cannot be read, or is not like the others.
        """
