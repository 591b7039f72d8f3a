"""Who says how good drawn emoji are: a judge who learned apart from the student's teacher, and the real pictures.

The judge is a contrastive network of pictures and names (recipes/emoji_contrast.py), trained on another split than the
teacher by `python -m hastezoo.recipes.emoji_teacher --judge`: all names that are held out from the student, and half of
those that it trains on. It is asked only about names that it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np


class Judge:
    """Retrieval by name, distance to the real picture, and the nearest training picture.

    Args:
        folder: Of the judge; None for the one beside the recipes.

    Attributes:
        everything: All emoji.
        candidates: The names that the judge knows, without skin tones: what a picture may be.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from hastezoo.data.emoji import EmojiImages
        from hastezoo.recipes.emoji_contrast import Contrast
        from hastezoo.recipes.emoji_teacher import TEACHERS

        self.model = Contrast.load(folder or TEACHERS / "emoji-judge")
        self.everything = EmojiImages("all")
        emojis = self.everything.emojis
        self.rows = {emoji.name: row for row, emoji in enumerate(emojis) if emoji.name == emoji.plain}
        self.candidates = self.names("judge")

    def names(self, split: Any, known: Sequence[str] | None = None) -> list[str]:
        """Names of a split, without skin tones, in an order that is a function of the names.

        Args:
            split: As of `EmojiImages`; `seen` for those of `train` that the judge knows.
            known: Only names all of whose words are among these.
        """
        from hastezoo.conditioning.words import split_words
        from hastezoo.data.emoji import is_in, share

        wanted = ("train", "judge") if split == "seen" else (split,)
        found = [name for name in self.rows if all(is_in(one, name) for one in wanted)]
        words = set(self.everything.words if known is None else known)
        found = [name for name in found if set(split_words(name)) and words >= set(split_words(name))]
        return sorted(found, key=lambda name: share(name, "order"))

    def real(self, names: Sequence[str]) -> np.ndarray:
        """The real pictures, uint8 (N, 32, 32, 3)."""
        return self.everything.pixels[[self.rows[name] for name in names]]

    def retrieval(self, pixels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """How often a picture's own name is the nearest, and among the five nearest, of all that the judge knows."""
        from hastezoo.recipes.emoji_teacher import ranked

        return ranked(self.model, pixels, list(names), self.candidates)

    def likeness(self, pixels: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The cosine of each picture and its prompt, which may be any words."""
        import torch

        with torch.no_grad():
            pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            return (self.model.of_pictures(pictures) * self.model.of_names(names)).sum(1).numpy()

    @cached_property
    def training_rows(self) -> list[int]:
        """Places of all pictures that the student trains on, of all skin tones."""
        from hastezoo.data.emoji import is_in

        return [row for row, emoji in enumerate(self.everything.emojis) if is_in("train", emoji.plain)]


def flat(pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> float32 (N, H W C) in [0, 1]."""
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255


def nearest(pixels: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square difference of each picture to the nearest of others, in [0, 1], and which that is."""
    a, b = flat(pixels), flat(others)
    squared = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
    index = squared.argmin(1)
    return np.sqrt(np.square(a - b[index]).mean(1)), index
