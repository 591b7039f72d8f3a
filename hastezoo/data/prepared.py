"""A prepared data set as training reads it: latents' moments, labels, and images for a teacher."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from hastezoo.data.batch import Batch
from hastezoo.data.images import decode
from hastezoo.data.manifest import Manifest
from hastezoo.data.shards import damaged, open_shards
from hastezoo.errors import UserError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

ALL = ""  # the name of the view of all columns


class Prepared:
    """Samples of a folder that `hastezoo prepare` made. It can be handed to other processes.

    Args:
        folder: The data set.
        scale, bias: What a model sees is `scale * latent + bias`.
        images: Hand out the images too; decoding them is what takes time.
        flip: Mirrored images are further samples: sample N + i is the mirror of sample i.

    Attributes:
        manifest: What the data set says of itself.
        shape: (C, h, w) of a latent.

    Raises:
        UserError: If there is no such data set, a file of it is damaged, or it has no mirrored moments.
    """

    def __init__(
        self, folder: Path, *, scale: float = 0.18215, bias: float = 0.0, images: bool = True, flip: bool = False
    ) -> None:
        self.folder, self.scale, self.bias, self.images, self.flip = folder, scale, bias, images, flip
        self.manifest = Manifest.read(folder)
        if flip and not self.manifest.flip:
            raise UserError(f"{folder} has no moments of mirrored images; prepare it with --flip, or train without")
        self.shape: tuple[int, ...] = self.manifest.latents.shape
        self._views: dict[str, datasets.Dataset] = {}
        self._owner = 0
        self._columns()  # what is damaged is said now

    def __len__(self) -> int:
        return self.manifest.samples * (2 if self.flip else 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}}

    def _columns(self) -> dict[str, datasets.Dataset]:
        """The rows, and views of single columns, which cost more to make than to read; opened once in each process."""
        if not self._views or self._owner != os.getpid():
            self._views, self._owner = {ALL: open_shards(self.folder, self.manifest)}, os.getpid()
        return self._views

    def without_images(self) -> Self:
        """The same samples, but nothing for a teacher."""
        if not self.images:
            return self
        other = copy.copy(self)
        other.images = False
        return other

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Samples by number.

        Returns:
            data: (B, C, h, w) float32, the posterior's mean as a model sees it; std: its deviation; condition: labels
            (B,) int64; images: (B, 3, H, W) uint8, or None.

        Raises:
            IndexError: If there is no such sample.
            UserError: If one is damaged.
        """
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"there is no sample {index}; there are {len(self)}")
        rows, _ = self._places(indices)
        mean, std = self._moments(indices)
        labels = torch.from_numpy(self._column("label", rows).to_numpy().astype(np.int64))
        images = self.pictures(indices) if self.images else None
        return Batch(mean, labels, images, std)

    def _column(self, name: str, rows: np.ndarray) -> Any:
        """A column of some rows, as one Arrow array without nulls."""
        if name not in self._columns():
            self._views[name] = self._views[ALL].select_columns([name])
        try:
            table: pa.Table = self._views[name][rows.tolist()]
            column = table.column(0).combine_chunks()
            if column.null_count:
                raise ValueError(f"a sample has no {name}")
            return column
        except Exception as error:  # damage shows in many ways
            for row in rows if len(rows) > 1 else ():
                self._column(name, np.array([row]))  # the one that fails names its file
            raise UserError(damaged(self._file_of(int(rows[0])), error)) from None

    def _places(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of samples, and which of them are mirrored."""
        places = np.asarray(indices, dtype=np.int64)
        return places % self.manifest.samples, places >= self.manifest.samples

    def stored(self, indices: Sequence[int]) -> np.ndarray:
        """Moments as they are in the files: float16 (B, 2, C, h, w), mean and deviation, unscaled."""
        rows, mirrored = self._places(indices)
        moments = np.empty((len(rows), 2, *self.shape), np.float16)
        for name, chosen in (("moments", ~mirrored), ("mirrored", mirrored)):
            if chosen.any():
                moments[chosen] = self._floats(name, rows[chosen])
        return moments

    def _moments(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(mean, deviation), each (B, C, h, w) and scaled."""
        stored = self.stored(indices)
        if stored[:, 1].view(np.int16).min() < 0:  # the sign bit, without turning them into floats
            raise UserError(
                f"{self.folder} holds negative standard deviations: its moments are not what its manifest says "
                "(log-variances?); prepare it again"
            )
        mean, std = torch.from_numpy(stored).float().mul_(self.scale).unbind(1)
        return mean + self.bias if self.bias else mean, std

    def _floats(self, name: str, rows: np.ndarray) -> np.ndarray:
        """A binary column as numbers (B, 2, C, h, w), without a copy."""
        column, count, size = self._column(name, rows), len(rows), 4 * int(np.prod(self.shape))
        offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + count + 1]
        if offsets[-1] - offsets[0] != count * size or (np.diff(offsets) != size).any():
            row = next(row for row in rows.tolist() if len(self._column(name, np.array([row]))[0].as_py()) != size)
            raise UserError(self._bad(row, f"its moments are not {size} bytes"))
        data = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        return data.view("<f2").reshape(count, 2, *self.shape)

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """The images: uint8 (B, 3, H, W).

        Raises:
            UserError: If one is damaged.
        """
        rows, mirrored = self._places(indices)
        files = self._column("image", rows).field("bytes")
        side = self.manifest.resolution
        pixels = np.empty((len(rows), side, side, 3), np.uint8)
        for place, file in enumerate(files):
            try:
                pixels[place] = decode(file.as_buffer())[:, :: -1 if mirrored[place] else 1]
            except Exception as error:
                raise UserError(self._bad(int(rows[place]), f"its image: {error}")) from None
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _bad(self, row: int, problem: str) -> str:
        name = self._column("id", np.array([row]))[0].as_py()
        return damaged(self._file_of(row), ValueError(f"sample {name}: {problem}"))

    def _file_of(self, row: int) -> Path:
        ends = np.cumsum([shard.rows for shard in self.manifest.shards])
        return self.folder / self.manifest.shards[int(np.searchsorted(ends, row, side="right"))].file
