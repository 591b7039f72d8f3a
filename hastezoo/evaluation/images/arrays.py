"""Images in an npz as the ADM evaluator reads them: `arr_0` uint8 (N, H, W, C), and perhaps labels in `arr_1`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError
from hastezoo.evaluation.npz import Archive, Member

IMAGES, LABELS = "arr_0", "arr_1"
LOOKED_AT = 16  # images whose range is looked at


class NpzImages:
    """Images of an npz, streamed out of it.

    Args:
        path: The file.

    Raises:
        UserError: If it is no such file, in one line that says what it holds instead.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        archive = Archive(path)
        if IMAGES not in archive.keys:
            raise UserError(f"{path} has no images ({IMAGES}); it holds {', '.join(archive.keys) or 'no arrays'}")
        self._images = archive.member(IMAGES)
        _check_form(path, self._images)
        _check_range(path, self._images)
        self.count, height, width, channels = self._images.shape
        self.shape = (height, width, channels)
        self.labels = _labels(archive, self.count)
        self.lossy: bool | None = None
        self.description = str(path)
        self.identity = {"kind": "npz", "sha256": recorded_sha256(path)}

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._images.read(start, stop)


def _check_form(path: Path, images: Member) -> None:
    shape = images.shape
    if images.dtype.kind == "f":
        raise UserError(f"{path}: {IMAGES} is {images.dtype}; images must be uint8: scale to 0..255, round, cast")
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {IMAGES} is {images.dtype}; images must be uint8, 0..255")
    if len(shape) != 4:
        raise UserError(f"{path}: {IMAGES} is of shape {shape}; images are (N, H, W, C)")
    if shape[3] not in (1, 3) and shape[1] in (1, 3):
        raise UserError(f"{path}: {IMAGES} is (N, C, H, W), {shape}; it must be (N, H, W, C): transpose(0, 2, 3, 1)")
    if shape[3] not in (1, 3):
        raise UserError(f"{path}: {IMAGES} is of shape {shape}; its images have {shape[3]} channels, not 1 or 3")
    if 0 in shape:
        raise UserError(f"{path}: {IMAGES} is of shape {shape}: there are no images in it")
    if images.in_columns:
        raise UserError(f"{path}: {IMAGES} is in Fortran order; save np.ascontiguousarray of it")


def _check_range(path: Path, images: Member) -> None:
    looked_at = min(LOOKED_AT, images.shape[0])
    if images.read(0, looked_at).max() <= 1:
        raise UserError(
            f"{path}: the first {looked_at} images of {IMAGES} hold nothing above 1 (values 0..1?); they must be 0..255"
        )


def _labels(archive: Archive, count: int) -> np.ndarray | None:
    """What else somebody keeps in arr_1 is none of our business."""
    if LABELS not in archive.keys:
        return None
    member = archive.member(LABELS)
    fits = member.shape == (count,) and member.dtype.kind in "iu"
    return member.whole().astype(np.int64) if fits else None
