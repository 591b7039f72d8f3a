"""Text encoders: what the pipeline, the data and the recipes ask of one; states that are known already; by kind.

For a model that encodes words itself there is nothing to encode here: its "states" are numbers of words (words.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hastezoo.conditioning.clip import LENGTH, ClipText
from hastezoo.conditioning.clip_files import CLIP
from hastezoo.conditioning.prompts import clean, notes, shown
from hastezoo.conditioning.words import WordNumbers
from hastezoo.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class TextEncoder(Protocol):
    """What the pipeline, the data and the recipes need of a text encoder.

    Attributes:
        source, sha256, revision: Where its weights are from, their digest, and the Hub's commit.
        length, width: L and D of its states.
    """

    source: str
    sha256: str
    revision: str
    length: int
    width: int

    def states(self, prompts: Sequence[str], /) -> Tensor:
        """(B, L, D) float16, or (B, L) int64 for a model of words; on the CPU, and the caller's own.

        Raises:
            UserError: If a prompt cannot be drawn from.
        """
        ...

    def notes(self, prompt: str, /) -> list[str]:
        """What is to be said of a prompt, a line each."""
        ...


class StoredText:
    """The states of prompts that are known already, such as the captions of a prepared data set.

    Args:
        known: Cleaned prompt -> states (L, D); it may read them when they are asked for.
        length, width: L and D.
        source, sha256, revision: The encoder that made them.
    """

    def __init__(
        self,
        known: Mapping[str, Tensor],
        *,
        length: int,
        width: int,
        source: str,
        sha256: str,
        revision: str = "",
    ) -> None:
        self.known = known
        self.length, self.width = length, width
        self.source, self.sha256, self.revision = source, sha256, revision

    def states(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, D) float16, on the CPU.

        Raises:
            UserError: If the states of a prompt are not known.
        """
        import torch

        found = torch.empty(len(prompts), self.length, self.width, dtype=torch.float16)
        for place, prompt in zip(found, prompts, strict=True):
            place.copy_(self._one(clean(prompt)))
        return found

    def notes(self, prompt: str) -> list[str]:
        """What is to be said of a prompt, whatever encodes it."""
        return notes(clean(prompt))

    def _one(self, prompt: str) -> Tensor:
        try:
            return self.known[prompt]
        except KeyError:
            raise UserError(
                f"the states of the prompt {shown(prompt)} are not among those stored; the text encoder "
                f"{self.source} would have to compute them"
            ) from None


def create_text_encoder(
    kind: str,
    *,
    source: str | Path = CLIP,
    length: int = LENGTH,
    device: torch.device | str = "cpu",
    words: Sequence[str] = (),
) -> TextEncoder:
    """The text encoder a card names: `clip` from `source`, or `words` by their vocabulary.

    Raises:
        ValueError: If the kind is unknown.
        UserError: If it is not to be had.
    """
    if kind == "clip":
        return ClipText.from_pretrained(source, length=length, device=device)
    if kind == "words":
        return WordNumbers(words, length)
    raise ValueError(f"unknown text encoder {kind!r}: one of clip, words")
