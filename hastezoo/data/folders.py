"""A folder of images per class, as ImageNet is unpacked and torchvision's ImageFolder reads it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from hastezoo.data.images import to_rgb
from hastezoo.data.source import Item
from hastezoo.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


class ClassFolders:
    """Class = folder; labels are the folders' places in alphabetical order, which for ImageNet is the usual order.

    Images may lie deeper in a class' folder. Files with other endings, and hidden ones, are passed over.

    Args:
        path: The folder of folders.
        shard_size: Images a unit.

    Raises:
        UserError: If it holds no class with an image.
    """

    has_moments = False

    def __init__(self, path: Path, shard_size: int) -> None:
        self.path, self.shard_size = path, shard_size
        self.description = str(path.resolve())
        folders = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
        if not folders:
            raise UserError(f"{path} has no folders; a class is a folder of images in it")
        files = {name: sorted(image_names(path / name)) for name in folders}
        if len(folders) == 1 and _holds_folders_alone(path / folders[0], files[folders[0]]):
            raise UserError(f"{path} has one folder, of folders; did you mean {path / folders[0]}?")
        empty = [name for name in folders if not files[name]]
        if empty:
            raise UserError(
                f"the class {path / empty[0]} has no images ({', '.join(ENDINGS[:3])}, ...)"
                + (f", nor have {len(empty) - 1} more" if empty[1:] else "")
                + "; put some in, or take the folder away"
            )
        self.classes = folders
        self.files = [(label, file) for label, name in enumerate(folders) for file in files[name]]
        self.total: int | None = len(self.files)
        self.units = -(-len(self.files) // shard_size)
        digest = hashlib.sha256()
        for label, file in self.files:
            digest.update(f"{folders[label]}/{file}\n".encode())
        self.fingerprint = digest.hexdigest()

    def items(self, unit: int) -> Iterator[Item]:
        for label, file in self.files[unit * self.shard_size : (unit + 1) * self.shard_size]:
            path = self.path / self.classes[label] / file
            yield Item(f"{self.classes[label]}/{file}", label, partial(read_image, path))


def _holds_folders_alone(folder: Path, images: list[str]) -> bool:
    return all("/" in file for file in images) and any(
        entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(folder)
    )


def image_names(folder: Path) -> Iterator[str]:
    """Paths of images below a folder, relative to it, in no order; hidden files and folders are passed over."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(place, folder)
        for name in names:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def read_image(path: Path) -> Image.Image:
    """An image, read whole."""
    with Image.open(path) as image:
        return to_rgb(image)
