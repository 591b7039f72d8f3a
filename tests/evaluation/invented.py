"""Images that are a function of their number, for tests of what is done with images."""

from __future__ import annotations

import numpy as np


class Invented:
    """`count` images of random bytes; `asked` lists what was read."""

    def __init__(self, count: int, shape: tuple[int, int, int] = (4, 4, 1), seed: int = 0) -> None:
        self.count, self.shape, self.seed = count, shape, seed
        self.description = "invented"
        self.identity = {"images": f"invented {seed}"}
        self.lossy: bool | None = False
        self.labels: np.ndarray | None = np.arange(count) % 10
        self.asked: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> np.ndarray:
        self.asked.append((start, stop))
        every = [np.random.default_rng((self.seed, index)).integers(0, 256, self.shape) for index in range(start, stop)]
        return np.stack(every).astype(np.uint8)


class Toy:
    """An extractor with all that Inception has, in 6 and 4 dimensions: fixed random projections of the bytes."""

    def __init__(self) -> None:
        self.name = "inception"
        self.identity = {"features": "toy"}
        self.channels: int | None = None
        self.classifier: np.ndarray | None = np.random.default_rng(7).normal(size=(5, 6)).astype(np.float32)

    def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
        return {"pool": 6, "spatial": 4}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        flat = images.reshape(len(images), -1).astype(np.float64)
        random = np.random.default_rng(flat.shape[1])
        matrices = [random.normal(size=(flat.shape[1], width)) / 100 for width in (6, 4)]
        # Row by row, so that an image's features do not depend on its neighbours by a rounding.
        pool, spatial = (np.stack([row @ matrix for row in flat]) for matrix in matrices)
        return {"pool": pool.astype(np.float32), "spatial": spatial.astype(np.float32)}
