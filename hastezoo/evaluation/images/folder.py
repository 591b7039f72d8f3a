"""A folder of image files, of one size or cropped to one."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hastezoo.data.folders import ENDINGS, image_names
from hastezoo.data.images import centre_crop, to_rgb
from hastezoo.errors import UserError
from hastezoo.evaluation.images.sample_folders import Samples

THREADS = 8
HEADERS = 256  # looked at by a thread in one go: a header takes less time than handing it out
GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
WIDE_MODES = ("I", "F")  # of 32 bits, which Pillow would clip


class FolderImages:
    """The image files below a folder, hidden ones left out, in the natural order of their names: 2.png before 10.png.

    The images are grey where all files are, else RGB; an alpha channel is dropped. Every header is read at once, so
    that an odd file is found before an hour's work and not after.

    The identity is a digest of the folder's place and of every file's name, size and time of change. It misses a file
    whose bytes were changed with its size kept and its time set back.

    Args:
        folder: Where they are.
        size: Crop each to this side, as ADM does. Without it all must be of one size.
        samples: What `hastezoo sample` made there: then these files, in their order.

    Raises:
        UserError: If there are none, one is unreadable, or their sizes differ.
    """

    def __init__(self, folder: Path, *, size: int | None = None, samples: Samples | None = None) -> None:
        self.folder, self.size = folder, size
        self._files = samples.files if samples else sorted(image_names(folder), key=_natural)
        if not self._files:
            raise UserError(f"{folder} holds no images ({', '.join(ENDINGS[:4])}, ...)")
        headers = self._headers()
        self.count = len(self._files)
        self._grey = all(header.grey for header in headers) or (samples is not None and self._grey_webp(headers))
        width, height = (size, size) if size else self._one_size(headers)
        self.shape = (height, width, 1 if self._grey else 3)
        self.lossy = _any([header.lossy_at(size) for header in headers])
        self.labels = samples.labels if samples else None
        self.description = f"{folder}, drawn by {samples.model}" if samples else str(folder)
        self.identity = {"kind": "folder", "digest": self._digest(), "crop": f"adm-centre {size}" if size else "none"}

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS)

    def _headers(self) -> list[_Header]:
        parts = [self._files[start : start + HEADERS] for start in range(0, len(self._files), HEADERS)]
        found = self._threads.map(lambda names: [_read_header(self.folder / name) for name in names], parts)
        return [header for part in found for header in part]

    def _one_size(self, headers: list[_Header]) -> tuple[int, int]:
        first = headers[0].size
        for name, header in zip(self._files, headers, strict=True):
            if header.size != first:
                one, other = (f"{width} x {height}" for width, height in (first, header.size))
                raise UserError(
                    f"the images in {self.folder} differ in size: {self._files[0]} has {one} pixels, {name} {other}; "
                    "measure images of one size, or give a size to crop them to"
                )
        return first

    def _grey_webp(self, headers: list[_Header]) -> bool:
        """WebP knows no grey images, so that of samples only the pixels tell. Those in colour are found out early."""
        if any(header.format != "WEBP" for header in headers):
            return False
        return all((pixels[..., :1] == pixels).all() for pixels in map(self._load, self._files))

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{self.folder.resolve()}\n".encode())
        for name in self._files:
            facts = (self.folder / name).stat()
            digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:32]

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.stack(list(self._threads.map(self._checked, self._files[start:stop])))

    def _checked(self, name: str) -> np.ndarray:
        pixels = self._load(name)
        pixels = pixels[..., :1] if self._grey else pixels
        if pixels.shape != self.shape:
            raise UserError(f"{self.folder / name} has changed: its pixels are {pixels.shape}, not {self.shape}")
        return pixels

    def _load(self, name: str) -> np.ndarray:
        """uint8 (H, W, 3)."""
        try:
            with Image.open(self.folder / name) as image:
                return centre_crop(image, self.size) if self.size else np.asarray(to_rgb(image))
        except Exception as error:  # damage shows in many ways
            raise UserError(_unreadable(self.folder / name, error)) from None


def _natural(name: str) -> tuple[list[str | int], str]:
    """Numbers in names count as numbers. Texts and numbers take turns, so that like is compared with like."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split("([0-9]+)", name))], name


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    grey: bool
    format: str
    lossy: bool | None

    def lossy_at(self, size: int | None) -> bool | None:
        """Of a photograph that is made smaller nobody can tell how much of its compression remains."""
        resized = size is not None and self.size != (size, size)
        return None if resized and self.lossy else self.lossy


def _read_header(path: Path) -> _Header:
    try:
        with path.open("rb") as stream, Image.open(stream) as image:
            if image.mode in WIDE_MODES:
                raise ValueError(f"its pixels are of 32 bits, mode {image.mode}")
            lossy = _lossy_webp(path) if image.format == "WEBP" else _lossy(image)
            return _Header(image.size, image.mode in GREY_MODES, image.format or "", lossy)
    except Exception as error:
        raise UserError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return f"{path} cannot be read as an image ({reason}); mend it, or take it away"


def _lossy(image: Image.Image) -> bool | None:
    if image.format in ("JPEG", "MPO") or "jpeg" in str(image.info.get("compression", "")):
        return True
    return None if image.format == "GIF" else False  # 256 colours may be all that there were


def _lossy_webp(path: Path) -> bool | None:
    """From the chunks of the file: `VP8 ` is lossy and `VP8L` is not; frames of animations are not looked into."""
    with path.open("rb") as stream:
        stream.seek(12)
        while len(chunk := stream.read(8)) == 8:
            if chunk[:4] in (b"VP8 ", b"VP8L"):
                return chunk[:4] == b"VP8 "
            size = int.from_bytes(chunk[4:], "little")
            stream.seek(size + size % 2, os.SEEK_CUR)
    return None


def _any(values: list[bool | None]) -> bool | None:
    """True where one is, else None where one is not known."""
    return True if True in values else None if None in values else False
