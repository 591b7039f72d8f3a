"""The states of captions in a prepared data set: those of one caption are read without touching its neighbours'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hastezoo.data.manifest import TextFile, TextInfo
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.files import atomic_write

if TYPE_CHECKING:
    import pyarrow as pa

    from hastezoo.conditioning.text import TextEncoder

EMPTY = "empty.safetensors"
KEY = "states"
VARIANTS = 1 << 20
"""How finely a sample's number says which of its captions is meant: what is left of 2^20 / n favours some caption by a
millionth, and numbers of COCO's images times this stay far below 2^63."""


def load_encoder(source: str, device: torch.device | str) -> TextEncoder:
    """CLIP's text encoder, from a folder or owner/name of the Hub.

    Raises:
        UserError: If it is not to be had.
    """
    from hastezoo.conditioning.text import create_text_encoder

    return create_text_encoder("clip", source=source, device=device)


def caption_of(turn: int, count: int) -> int:
    """Which of an image's captions is meant by a number below `VARIANTS`; 0 is the first."""
    return turn * count // VARIANTS


def encoded(encoder: TextEncoder, captions: list[str]) -> np.ndarray:
    """The states of captions: float16 (n, L, D).

    Raises:
        UserError: If some are not finite, or do not fit the memory.
    """
    try:
        states: np.ndarray = encoder.states(captions).numpy()
    except torch.OutOfMemoryError:
        raise UserError(
            f"{len(captions)} captions at once do not fit the memory of the text encoder's device"
        ) from None
    if not finite(states):
        raise UserError(f"the text encoder {encoder.source} gave states that are not finite")
    return states


def finite(states: np.ndarray) -> bool:
    """Whether float16 numbers are neither infinite nor NaN: by their bits, which are not turned into floats first."""
    positive, negative = states.view(np.int16).max(), states.view(np.uint16).max()
    return bool(positive < 0x7C00 and negative < 0xFC00)


class TextColumns:
    """Captions and their states, in place in the files that are mapped into memory.

    Args:
        captions: Lists of texts, one a row.
        states: Binary, one value a row.
        info: Of the manifest.

    Raises:
        UserError: If there are more or fewer captions than the manifest says, or a row has none.
    """

    def __init__(self, captions: pa.ChunkedArray, states: pa.ChunkedArray, info: TextInfo) -> None:
        import pyarrow.compute as pc

        self._captions, self._states = captions.chunks, states.chunks
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._states)])
        self._shape = (info.length, info.width)
        self._counts: np.ndarray = pc.fill_null(pc.list_value_length(captions), 0).to_numpy()
        if int(self._counts.sum()) != info.captions or not self._counts.all():
            raise UserError(
                f"it has {self._counts.sum():,} captions of {len(self._counts):,} images, and its manifest says "
                f"{info.captions:,}"
            )

    def _place(self, row: int) -> tuple[int, int]:
        """(chunk, row in it)."""
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        return chunk, row - int(self._starts[chunk])

    def captions(self, row: int) -> list[str]:
        """What is said of a row's image.

        Raises:
            ValueError: If one is missing or not text.
        """
        chunk, place = self._place(row)
        captions: list[str] = self._captions[chunk][place].as_py()
        if None in captions:
            raise ValueError("a caption is missing")
        return captions

    def states(self, row: int) -> np.ndarray:
        """The states of all captions of a row, float16 (n, L, D), not copied.

        Raises:
            ValueError: If they are of another size.
        """
        chunk, place = self._place(row)
        data = self._states[chunk][place].as_buffer()
        count, (length, width) = int(self._counts[row]), self._shape
        size = 2 * length * width
        if data is None or len(data) != count * size:
            found = "no" if data is None else f"{len(data):,}"
            raise ValueError(f"its states are {found} bytes, not {count} x {size:,}")
        return np.frombuffer(data, "<f2").reshape(count, length, width)


def write_empty(folder: Path, encoder: TextEncoder) -> TextFile:
    """Write the states of the empty caption, which stand for an image without one in training and guidance."""
    from safetensors.torch import save

    states = torch.from_numpy(encoded(encoder, [""])[0])
    atomic_write(folder / EMPTY, save({KEY: states.contiguous()}))
    return TextFile(file=EMPTY, sha256=sha256_of(folder / EMPTY))


def read_empty(folder: Path, info: TextInfo) -> Tensor:
    """The states of the empty caption: (L, D) float16.

    Raises:
        UserError: If their file is missing or damaged.
    """
    from safetensors.torch import load

    path = folder / info.empty.file
    mend = "copy it again, or prepare the data set anew"
    if not path.is_file():
        raise UserError(f"the file {path} with the empty caption's states is missing: {mend}")
    if sha256_of(path) != info.empty.sha256:
        raise UserError(f"the file {path} with the empty caption's states is damaged (its sha256 is another): {mend}")
    states = load(path.read_bytes()).get(KEY)
    if states is None or states.shape != (info.length, info.width) or states.dtype != torch.float16:
        raise UserError(f"the file {path} does not hold the states ({info.length}, {info.width}) of a caption: {mend}")
    return states
