"""A prepared data set as training reads it: latents' moments, labels or captions' states, and images for a teacher."""

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
from hastezoo.data.captioned import VARIANTS, TextColumns, caption_of, finite, read_empty
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

    Of an image with captions, one is handed out. A sample's number says which: number i + len * u is image i with its
    caption u n // variants, of n captions, so that u drawn below `variants` draws one of any number of captions.

    Args:
        folder: The data set.
        scale, bias: What a model sees is `scale * latent + bias`.
        images: Hand out the images too; decoding them is what takes time.
        flip: Mirrored images are further samples: sample N + i is the mirror of sample i.

    Attributes:
        manifest: What the data set says of itself.
        shape: (C, h, w) of a latent.
        variants: 1 where images have classes.
        null: (L, D) float16, the states of the empty caption; None where images have classes.

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
        text = self.manifest.text
        self.variants = 1 if text is None else VARIANTS
        self.null: Tensor | None = None if text is None else read_empty(folder, text)
        self._views: dict[str, datasets.Dataset] = {}
        self._text: TextColumns | None = None
        self._owner = 0
        self._columns()  # what is damaged is said now

    def __len__(self) -> int:
        return self.manifest.samples * (2 if self.flip else 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_views": {}, "_text": None}

    def _columns(self) -> dict[str, datasets.Dataset]:
        """The rows, and views of single columns, which cost more to make than to read; opened once in each process."""
        if not self._views or self._owner != os.getpid():
            opened = open_shards(self.folder, self.manifest)
            self._text = self._open_text(opened)
            self._views, self._owner = {ALL: opened}, os.getpid()
        return self._views

    def _open_text(self, opened: datasets.Dataset) -> TextColumns | None:
        if self.manifest.text is None:
            return None
        try:
            return TextColumns(opened.data.column("captions"), opened.data.column("states"), self.manifest.text)
        except UserError as error:
            raise UserError(f"{self.folder} is damaged ({error}): copy it again, or prepare it anew") from None

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
            (B,) int64, or a caption's states (B, L, D) float16; images: (B, 3, H, W) uint8, or None.

        Raises:
            IndexError: If there is no such sample.
            UserError: If one is damaged.
        """
        for index in indices:
            if not 0 <= index < len(self) * self.variants:
                raise IndexError(f"there is no sample {index}; there are {len(self)}")
        turns, plain = np.divmod(np.asarray(indices, dtype=np.int64), len(self))
        rows, _ = self._places(plain)
        mean, std = self._moments(plain)
        condition = self._labels(rows) if self.manifest.text is None else self._drawn_states(rows, turns)
        images = self.pictures(plain) if self.images else None
        return Batch(mean, condition, images, std)

    def _labels(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(self._column("label", rows).to_numpy().astype(np.int64))

    def _drawn_states(self, rows: np.ndarray, turns: np.ndarray) -> Tensor:
        """Of one caption each: (B, L, D) float16."""
        text = self.manifest.text
        assert text is not None
        states = np.empty((len(rows), text.length, text.width), np.float16)
        for place, (row, turn) in enumerate(zip(rows.tolist(), turns.tolist(), strict=True)):
            every = self._states_of(row)
            states[place] = every[caption_of(turn, len(every))]
            self._check_finite(row, states[place])  # at once, while the processor has them at hand
        return torch.from_numpy(states)

    def _check_finite(self, row: int, states: np.ndarray) -> None:
        if not finite(states):
            raise UserError(self._bad(row, "states that are not finite"))

    def _states_of(self, row: int) -> np.ndarray:
        """Of all captions of a row: float16 (n, L, D), in place."""
        self._columns()
        assert self._text is not None
        try:
            return self._text.states(row)
        except ValueError as error:
            raise UserError(self._bad(row, str(error))) from None

    def ids(self) -> list[str]:
        """The source's names of all images, in order."""
        names: list[str] = self._column("id", np.arange(self.manifest.samples)).to_pylist()
        return names

    def captions(self, index: int) -> list[str]:
        """What is said of an image, by its number; nothing where images have classes."""
        self._columns()
        if self._text is None:
            return []
        (row,) = self._places([index])[0].tolist()
        try:
            return self._text.captions(row)
        except ValueError as error:  # also what is not UTF-8
            raise UserError(self._bad(row, str(error))) from None

    def caption_states(self, index: int, caption: int) -> Tensor:
        """The states of one caption of an image: (L, D) float16.

        Raises:
            IndexError: If the image has no such caption.
            UserError: If they are damaged.
        """
        (row,) = self._places([index])[0].tolist()
        every = self._states_of(row)
        if not 0 <= caption < len(every):
            raise IndexError(f"image {index} has no caption {caption}; it has {len(every)}")
        self._check_finite(row, every[caption])
        return torch.from_numpy(every[caption].copy())

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

    def _places(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of samples, and which of them are mirrored."""
        places = np.asarray(indices, dtype=np.int64)
        return places % self.manifest.samples, places >= self.manifest.samples

    def stored(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Moments as they are in the files: float16 (B, 2, C, h, w), mean and deviation, unscaled."""
        rows, mirrored = self._places(indices)
        moments = np.empty((len(rows), 2, *self.shape), np.float16)
        for name, chosen in (("moments", ~mirrored), ("mirrored", mirrored)):
            if chosen.any():
                moments[chosen] = self._floats(name, rows[chosen])
        return moments

    def _moments(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
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

    def pictures(self, indices: Sequence[int] | np.ndarray) -> Tensor:
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
