"""Small files of images and statistics, and an extractor that needs no weights."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, SPATIAL


class Eye:
    """Six pool features, means and deviations of the channels, and four spatial ones. `calls` counts images seen.

    Args:
        name: As which it passes; the statistics in an npz count as Inception's.
        version: Of its weights, as it were.
    """

    def __init__(self, name: str = "inception", version: str = "1") -> None:
        self.name = name
        self.identity = {"features": name, "weights_sha256": version * 64}
        self.channels: int | None = 3
        self.classifier: np.ndarray | None = None
        self.calls = 0

    def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
        return {POOL: 6, SPATIAL: 4}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert images.dtype == np.uint8 and images.shape[3] == 3
        self.calls += len(images)
        values = images.astype(np.float64)
        half = values.shape[1] // 2, values.shape[2] // 2
        corners = [values[:, i::2, j::2][:, : half[0], : half[1], 0].mean((1, 2)) for i in (0, 1) for j in (0, 1)]
        pool = np.concatenate([values.mean((1, 2)), values.std((1, 2))], axis=1)
        return {POOL: pool.astype(np.float32), SPATIAL: np.stack(corners, 1).astype(np.float32)}


def pixels(count: int, side: int = 8, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random images, uint8 (count, side, side, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance by numpy alone."""
    exact = features.astype(np.float64)
    return exact.mean(0), np.cov(exact.T)


def adm(path: Path, images: np.ndarray | None = None, **changes: Any) -> Path:
    """A file with the keys of the ADM evaluator; statistics that are no image's."""
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {}
    for end, width in (("", 6), ("_s", 4)):
        arrays["mu" + end], arrays["sigma" + end] = statistics(rng.normal(size=(50, width)))
    if images is not None:
        arrays["arr_0"] = images
    arrays |= changes
    return save(path, **{key: value for key, value in arrays.items() if value is not None})


def write_files(folder: Path, images: np.ndarray, ending: str = "png", **options: Any) -> Path:
    """0.png, 1.png, ... of images (N, H, W, C)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        picture.save(folder / f"{number}.{ending}", **options)
    return folder


def flip(path: Path, place: int) -> None:
    """Change one byte of a file, counted from the end where negative."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def member_start(path: Path, name: str) -> int:
    """Where a member's first byte is in the archive's file."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    local = path.read_bytes()[info.header_offset : info.header_offset + 30]
    return info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")


def refusal(error: pytest.ExceptionInfo[UserError]) -> str:
    """The one line of an error."""
    assert "\n" not in str(error.value)
    return str(error.value)
