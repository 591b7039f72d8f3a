"""The picture of a sweep: its cells cut out again, its labels against lines that are drawn anew."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hastezoo import pictures
from hastezoo.axes import CELL, WIDEST, labelled_grid

GAP, LINE = pictures.GAP, pictures.CAPTION
ROWS, COLUMNS = ["7 seven\nseed 0", "7 seven\nseed 1"], ["1", "1.5", "12"]


def images(size: int = 8, channels: int = 1, rows: int = 2, columns: int = 3) -> np.ndarray:
    """Noise: no two cells are alike."""
    shape = (rows, columns, size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def left_of(picture: Image.Image, columns: int, side: int) -> int:
    """Where the first column begins, from the right edge."""
    return picture.width - GAP - columns * (side + GAP)


def line(text: str, width: int) -> np.ndarray:
    """A line of text on the ground, drawn anew."""
    sheet = Image.new("RGB", (width, LINE), (pictures.GROUND,) * 3)
    ImageDraw.Draw(sheet).text((0, 2), text, fill=(225, 225, 225), font=pictures.caption_font())
    return np.asarray(sheet)


@pytest.mark.parametrize(("size", "scale"), [(8, CELL // 8), (32, 4), (256, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_cell_is_its_image_enlarged_by_a_whole_factor(size: int, scale: int, channels: int) -> None:
    pixels = images(size, channels)
    picture = labelled_grid(pixels, COLUMNS, ROWS, corner="cfg =")
    side, array = size * scale, np.asarray(picture)
    left, top = left_of(picture, 3, side), LINE + GAP
    assert array.shape == (top + 2 * (side + GAP) + GAP, picture.width, 3)
    for row in range(2):
        for column in range(3):
            y, x = top + row * (side + GAP), left + column * (side + GAP)
            wanted = np.broadcast_to(pixels[row, column].repeat(scale, 0).repeat(scale, 1), (side, side, 3))
            assert np.array_equal(array[y : y + side, x : x + side], wanted)


def test_labels_stand_above_their_columns_and_left_of_their_rows() -> None:
    picture = labelled_grid(images(), COLUMNS, ROWS, corner="cfg =")
    array, left, top = np.asarray(picture), left_of(picture, 3, CELL), LINE + GAP
    assert np.array_equal(array[:LINE, GAP : left - GAP], line("cfg =", left - 2 * GAP))
    for place, label in enumerate(COLUMNS):
        x = left + place * (CELL + GAP)
        assert np.array_equal(array[:LINE, x : x + CELL], line(label, CELL))
    for place, label in enumerate(ROWS):
        for number, text in enumerate(label.splitlines()):
            y = top + place * (CELL + GAP) + number * LINE
            assert np.array_equal(array[y : y + LINE, GAP : left - GAP], line(text, left - 2 * GAP))


def test_a_long_label_is_cut_and_touches_no_image() -> None:
    pixels = np.zeros_like(images(rows=1))
    picture = labelled_grid(pixels, ["1" * 100, "2", "3"], ["a very long prompt " * 20])
    left = left_of(picture, 3, CELL)
    assert left <= WIDEST + 6 * GAP
    array = np.asarray(picture)
    assert not array[LINE + GAP : LINE + GAP + CELL, left : left + CELL].any()
    assert (array[LINE + GAP :, left - GAP : left] == pictures.GROUND).all()
    assert (array[:LINE, left + CELL : left + CELL + GAP] == pictures.GROUND).all()


def test_rows_and_columns_need_a_label_each() -> None:
    with pytest.raises(ValueError, match="2 x 2 labels do not fit images of shape"):
        labelled_grid(images(), ["1", "2"], ROWS)
