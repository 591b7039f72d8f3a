"""Where a sampling job keeps its images: a file each, or one npz that is joined from a file a batch.

Both stream: neither ever holds more than a batch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from hastezoo import pictures
from hastezoo.files import atomic_open, atomic_write, remove_partials


class Store(Protocol):
    """What a job needs of a store. Indices count the images of the request."""

    def names(self) -> list[str]:
        """The file that holds each image."""

    def tidy(self) -> None:
        """Remove what a killed process left half-written."""

    def has(self, indices: range) -> bool:
        """Whether a batch is all there."""

    def write(self, indices: range, pixels: np.ndarray) -> None:
        """Keep a batch, uint8 (B, H, W, C); what is there already stays."""

    def finish(self) -> None:
        """Called when every batch is there."""

    def first(self, count: int) -> np.ndarray:
        """The first images, uint8 (count, H, W, C), read back."""


class ImageFiles:
    """`00000_class7_seed0.png`, or `.webp` without loss.

    Args:
        folder: Theirs.
        marks: What each image is of, in a word fit for a file's name: `class7`, `a-red-bus`.
        seeds: Of each image.
        format: png or webp.
        text: Given an index, what the PNG file of that image carries; webp files carry nothing.
    """

    def __init__(
        self,
        folder: Path,
        marks: Sequence[str],
        seeds: Sequence[int],
        format: str,
        text: Callable[[int], dict[str, str]] | None = None,
    ) -> None:
        self.folder, self.marks, self.seeds, self.format = folder, marks, seeds, format
        self.text = text if format == "png" else None
        self.digits = max(5, len(str(len(seeds) - 1)))

    def path(self, index: int) -> Path:
        """Where image `index` is."""
        name = f"{index:0{self.digits}d}_{self.marks[index]}_seed{self.seeds[index]}.{self.format}"
        return self.folder / name

    def names(self) -> list[str]:
        return [self.path(index).name for index in range(len(self.seeds))]

    def tidy(self) -> None:
        remove_partials(self.folder)

    def has(self, indices: range) -> bool:
        return all(self.path(index).exists() for index in indices)

    def write(self, indices: range, pixels: np.ndarray) -> None:
        for index, image in zip(indices, pixels, strict=True):
            if not self.path(index).exists():
                text = self.text(index) if self.text is not None else None
                atomic_write(self.path(index), pictures.encode(pictures.to_pil(image), self.format, text))

    def finish(self) -> None:
        pass

    def first(self, count: int) -> np.ndarray:
        images = [np.asarray(Image.open(self.path(index))) for index in range(count)]
        grey = self.format == "webp" and all((image[..., :1] == image).all() for image in images)
        if grey or images[0].ndim == 2:  # WebP knows no grey images
            images = [image[..., :1] if image.ndim == 3 else image[..., None] for image in images]
        return np.stack(images)


class ArrayFile:
    """`samples.npz` in the format of the ADM evaluator: arr_0 uint8 (N, H, W, C), arr_1 labels, or prompts' numbers."""

    def __init__(self, folder: Path, labels: Sequence[int]) -> None:
        self.folder, self.labels = folder, labels
        self.path = folder / "samples.npz"
        self.parts = folder / "parts"

    def part(self, indices: range) -> Path:
        """Where a batch waits to be joined."""
        return self.parts / f"{indices.start:09d}.npy"

    def names(self) -> list[str]:
        return [self.path.name] * len(self.labels)

    def tidy(self) -> None:
        remove_partials(self.folder)
        remove_partials(self.parts)

    def has(self, indices: range) -> bool:
        return self.path.exists() or self.part(indices).exists()

    def write(self, indices: range, pixels: np.ndarray) -> None:
        if not self.has(indices):
            self.parts.mkdir(exist_ok=True)
            with atomic_open(self.part(indices)) as stream:
                np.save(stream, pixels)

    def finish(self) -> None:
        if not self.path.exists():
            self._join()
        if self.parts.exists():
            for part in self.parts.glob("*.npy"):
                part.unlink()
            self.parts.rmdir()

    def _join(self) -> None:
        parts = sorted(self.parts.glob("*.npy"))
        shape = (len(self.labels), *np.load(parts[0], mmap_mode="r").shape[1:])
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with atomic_open(self.path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            # ZipInfo has a fixed date, so that the same images give the same bytes.
            with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)
                for part in parts:
                    member.write(np.load(part).tobytes())
            with archive.open(zipfile.ZipInfo("arr_1.npy"), "w") as member:
                np.lib.format.write_array(member, np.array(self.labels, dtype=np.int64))

    def first(self, count: int) -> np.ndarray:
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as member:
            np.lib.format.read_magic(member)
            shape, _, _ = np.lib.format.read_array_header_2_0(member)
            data = member.read(count * int(np.prod(shape[1:])))
        return np.frombuffer(data, dtype=np.uint8).reshape(count, *shape[1:])
