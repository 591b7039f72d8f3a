"""Prompts for a model with a vocabulary of its own: which words of a text it knows, and their numbers."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from hastezoo.conditioning.prompts import clean, foreign_share, notes, shown
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 5  # unknown words that a message names
LONGEST_WORD = 40  # characters of a word for which a near one is looked for


def split_words(text: str) -> list[str]:
    """The words of a text in order: lower case, without accents and possessive endings, letters and digits alone.

    Example:
        >>> split_words("Woman's Hat, piñata & No. 1")
        ['woman', 'hat', 'pinata', 'no', '1']
    """
    parts = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).casefold()
    letters = "".join(one for one in parts if unicodedata.category(one) != "Mn")
    return re.findall(r"[^\W_]+", re.sub(r"(?<=\w)'s\b", "", letters).replace("'", ""))


class WordNumbers:
    """The text encoder of a model of words. There is nothing to load: what encodes is inside the network.

    Args:
        words: The vocabulary; a word's number is its place, counted from 1.
        length: Words that are read; what comes after them is left out.

    Attributes:
        source, sha256, revision: Empty; the network's weights pin all there is.
        width: 0; numbers have no width.
    """

    source = sha256 = revision = ""
    width = 0

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.numbers = {word: number for number, word in enumerate(words, start=1)}
        self.length = length

    def states(self, prompts: Sequence[str]) -> Tensor:
        """(B, L) int64: numbers of the known words, filled up with 0; all 0 for an empty prompt.

        Raises:
            UserError: If a prompt cannot be drawn from, or has words and none that is known.
        """
        import torch

        found = torch.zeros(len(prompts), self.length, dtype=torch.int64)
        for row, prompt in zip(found, prompts, strict=True):
            numbers = self.read(prompt)[: self.length]
            row[: len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
        return found

    def read(self, prompt: str) -> list[int]:
        """Numbers of all known words of a prompt, in order.

        Raises:
            UserError: If it cannot be drawn from, or says something and no word of it is known.
        """
        text = clean(prompt)
        known, unknown = self._sorted(text)
        if text and not known:
            hint = self._near(unknown)
            what = (
                f"no word of the prompt {shown(text)} is known" if unknown else f"the prompt {shown(text)} has no word"
            )
            raise UserError(f"{what}; the model knows {len(self.numbers):,} words{hint}")
        return known

    def notes(self, prompt: str) -> list[str]:
        """What is to be said of a prompt: that it is empty, which words are not known, and where it is cut."""
        text = clean(prompt)
        if not text:
            return notes(text)
        known, unknown = self._sorted(text)
        said = []
        if unknown:
            listed = ", ".join(unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
            said.append(f"not known and left out: {listed}{self._near(unknown)}")
        if len(known) > self.length:
            said.append(f"{len(known):,} words are known and the first {self.length} are read")
        return said

    def _sorted(self, text: str) -> tuple[list[int], list[str]]:
        """Numbers of the known words, and the unknown words, each once."""
        known, unknown = [], []
        for word in split_words(text):
            number = self._number(word)
            if number is None:
                unknown.append(word[:LONGEST_WORD])
            else:
                known.append(number)
        return known, list(dict.fromkeys(unknown))

    def _number(self, word: str) -> int | None:
        """Of a word, or of its singular or plural."""
        return next((self.numbers[form] for form in _forms(word) if form in self.numbers), None)

    def _near(self, unknown: Sequence[str]) -> str:
        """Known words that are written like an unknown one."""
        for word in unknown[:SHOWN]:
            if len(word) < LONGEST_WORD and foreign_share(word) == 0:
                near = difflib.get_close_matches(word, self.numbers, n=3, cutoff=0.7)
                if near:
                    return f"; near {word}: {', '.join(near)}"
        return ""


# Of a plural, and of the singular instead; the plainest first, so that capes are of a cape and not of a cap.
ENDINGS = (
    ("s", ""),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("oes", "o"),
    ("ies", "y"),
)


def _forms(word: str) -> Iterator[str]:
    """A word, then its singular and plural, whichever it is itself; of a single letter there are none."""
    yield word
    for plural, singular in ENDINGS:
        for ending, instead in ((plural, singular), (singular, plural)):
            stem = word.removesuffix(ending)
            if word.endswith(ending) and len(stem) > 1:
                yield stem + instead


def refuse_unread(encoder: object, prompts: Iterable[str]) -> None:
    """Refuse prompts of which a model of words knows no word before anything is drawn; any other encoder reads all.

    Raises:
        UserError: If there is one.
    """
    if isinstance(encoder, WordNumbers):
        for prompt in prompts:
            encoder.read(prompt)
