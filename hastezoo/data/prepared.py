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
        self._opened: datasets.Dataset | None = None
        self._owner = 0
        open_shards(folder, self.manifest)  # what is damaged is said now

    def __len__(self) -> int:
        return self.manifest.samples * (2 if self.flip else 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def _rows(self) -> datasets.Dataset:
        """The rows, opened once in each process."""
        if self._opened is None or self._owner != os.getpid():
            self._opened, self._owner = open_shards(self.folder, self.manifest), os.getpid()
        return self._opened

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
            UserError: If a sample is damaged.
        """
        rows, _ = self._places(indices)
        mean, std = self._moments(indices)
        labels = torch.from_numpy(self._column("label", rows).to_numpy().astype(np.int64))
        images = self.pictures(indices) if self.images else None
        return Batch(mean, labels, images, std)

    def _column(self, name: str, rows: np.ndarray) -> Any:
        table: pa.Table = self._rows.select_columns([name])[rows.tolist()]
        return table.column(0).combine_chunks()

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
                moments[chosen] = self._floats(self._column(name, rows[chosen]), int(chosen.sum()))
        return moments

    def _moments(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(mean, deviation), each (B, C, h, w) and scaled."""
        mean, std = torch.from_numpy(self.stored(indices)).float().mul_(self.scale).unbind(1)
        if std.min() < 0:
            raise UserError(
                f"{self.folder} holds negative standard deviations: its moments are not what its manifest says "
                "(log-variances?); prepare it again"
            )
        return mean + self.bias if self.bias else mean, std

    def _floats(self, column: Any, count: int) -> np.ndarray:
        """A binary column as numbers (count, 2, C, h, w), without a copy."""
        size = 4 * int(np.prod(self.shape))
        offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + count + 1]
        if column.null_count or offsets[-1] - offsets[0] != count * size or (np.diff(offsets) != size).any():
            raise UserError(damaged(self.folder, ValueError(f"a sample's moments are not {size} bytes")))
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
                raise UserError(self._bad_image(int(rows[place]), error)) from None
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _bad_image(self, row: int, error: Exception) -> str:
        name = self._column("id", np.array([row]))[0].as_py()
        before = 0
        for shard in self.manifest.shards:
            if row < before + shard.rows:
                break
            before += shard.rows
        return damaged(self.folder / shard.file, ValueError(f"image {name}: {error}"))
