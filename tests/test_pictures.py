"""Captions of grids: broken between words, cut where there is no more room, and never over a picture."""

from __future__ import annotations

import numpy as np
import pytest

from hastezoo import pictures
from hastezoo.pictures import CAPTION, GAP, GROUND, LINES, caption_font, wrapped

ROOM = 62


def width(text: str) -> float:
    return caption_font().getlength(text)


def test_captions_are_broken_between_words() -> None:
    lines = wrapped("smiling cat face", ROOM)
    assert " ".join(lines) == "smiling cat face" and len(lines) == 2
    assert all(width(line) <= ROOM for line in lines)
    assert wrapped("smiling cat face", 1000) == ["smiling cat face"]
    assert wrapped("", ROOM) == ["(no text)"] and wrapped("apple", ROOM) == ["apple"]


def test_the_last_line_has_what_is_left() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = wrapped(text, ROOM)
    assert len(lines) == LINES and " ".join(lines) == text
    assert wrapped(text, ROOM, most=1) == [text]


@pytest.mark.parametrize("text", ["x" * 100_000, "wide " * 20_000, "Donaudampfschifffahrtsgesellschaft lies here"])
def test_what_is_too_long_is_cut_with_a_sign_of_it(text: str) -> None:
    """Under images of 64 pixels; the sheet is as high as its lines need."""
    images = np.full((2, 64, 64, 3), 255, dtype=np.uint8)
    lines = len(wrapped(text, 64 + GAP - 2 * GAP))
    sheet = np.asarray(pictures.grid(images, 2, captions=[text, "short"]))
    assert sheet.shape == (64 + 2 * GAP + lines * CAPTION, 2 * (64 + GAP) + GAP, 3)
    for left in (GAP, 64 + 2 * GAP):
        assert (sheet[GAP : GAP + 64, left : left + 64] == 255).all(), "no letter is on a picture"
    below = sheet[GAP + 64 :]
    assert (below != GROUND).any() and (below[:, 64 + GAP : 64 + 2 * GAP] == GROUND).all(), "nor beyond its column"


def test_a_caption_of_a_row_has_the_rows_room() -> None:
    """Where there are as many captions as rows, and more images."""
    images = np.zeros((4, 64, 64, 3), dtype=np.uint8)
    captions = ["two images", "another two"]
    sheet = pictures.grid(images, 2, captions=captions)
    narrow = pictures.grid(images, 2, captions=["a caption of one image"] * 4)
    assert all(ROOM < width(caption) <= 2 * (64 + GAP) - 2 * GAP for caption in captions)
    assert sheet.height == 2 * (64 + GAP + CAPTION) + GAP
    assert narrow.height > sheet.height
