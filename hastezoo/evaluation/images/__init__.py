"""Images to measure, wherever they are: what an evaluation needs of samples and of references alike."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from hastezoo.errors import UserError, nearest


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

        There is one exception: where levels lie between bytes, as the 17 of scikit-learn's digits do, they are floats
        on the scale of bytes, 0..255. Raw pixels are measured as they are; a network gets what `suited` makes of them.

        Raises:
            UserError: If one cannot be read, or is not like the others.
        """


DIGITS: dict[str, Literal["all", "train", "test"]] = {"digits": "all", "digits-train": "train", "digits-test": "test"}
KINDS = "an npz with images in arr_0, a folder of images, a prepared data set"


def open_images(text: str, *, size: int | None = None) -> Images:
    """Images by what a user types: one of DIGITS, an npz, a folder of images or of `hastezoo sample`, a data set.

    Args:
        text: A name, or a path. A name means itself even where a folder is called so; that folder is `./digits`.
        size: Crop each image of a folder to this side, as ADM does; images that are cropped already must have it.

    Raises:
        UserError: If it is nothing of the kind, or cannot be used as it is.
    """
    images = _open(text, size)
    if size is not None and images.shape[:2] != (size, size):
        height, width, _ = images.shape
        raise UserError(f"{text} holds images of {width} x {height} pixels; only a folder's are cropped to a size")
    return images


def _open(text: str, size: int | None) -> Images:
    if text in DIGITS:
        from hastezoo.evaluation.images.digits import DigitImages

        return DigitImages(text)
    path = Path(text).expanduser()
    if path.is_dir():
        return _open_folder(path, size)
    if path.is_file():
        from hastezoo.evaluation.images.arrays import NpzImages

        check_ending(path)
        return NpzImages(path)
    raise unknown(text, DIGITS, KINDS)


def _open_folder(path: Path, size: int | None) -> Images:
    if any((path / name).exists() for name in ("manifest.json", "prepare.json")):
        from hastezoo.evaluation.images.prepared import PreparedImages

        return PreparedImages(path)
    from hastezoo.evaluation.images.folder import FolderImages
    from hastezoo.evaluation.images.sample_folders import ARRAYS, read_samples

    samples = read_samples(path)
    if samples is not None and set(samples.files) == {ARRAYS}:
        from hastezoo.evaluation.images.arrays import NpzImages

        return NpzImages(path / ARRAYS)
    return FolderImages(path, size=size, samples=samples)


def check_ending(path: Path) -> None:
    """Refuse a file that by its name is no archive of images, with what to do instead."""
    from hastezoo.data.folders import ENDINGS

    if path.name.lower().endswith(ENDINGS):
        raise UserError(f"{path} is one image; name the folder that it lies in")
    if path.suffix == ".safetensors":
        raise UserError(f"{path} is no file of images; they are {KINDS}")


def unknown(text: str, names: Iterable[str], kinds: str) -> UserError:
    """The error about what is neither a path nor a name."""
    near = nearest(text, names, 1)
    hint = f"; nearest: {near[0]}" if near else ""
    known = ", ".join(names)
    return UserError(f"there is no file, folder or name {text!r}: it may be {kinds}, or one of {known}{hint}")


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Levels between bytes, rounded to them; bytes as they are."""
    return images if images.dtype == np.uint8 else np.rint(images).clip(0, 255).astype(np.uint8)


def suited(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Images (B, H, W, C) as an extractor wants them: bytes, and grey ones as RGB where it wants three channels.

    Args:
        images: As `Images.read` gives them.
        channels: The extractor's; None for one that takes all images, and levels between bytes, as they are.

    Raises:
        ValueError: If they are in colour and it wants them grey.
    """
    if channels is None:
        return images
    if images.shape[-1] not in (1, channels):
        raise ValueError(f"images of {images.shape[-1]} channels cannot be shown to what wants {channels}")
    return as_bytes(images) if images.shape[-1] == channels else np.repeat(as_bytes(images), channels, axis=-1)
