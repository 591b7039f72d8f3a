"""The picture of a sweep: images in rows and columns, each with a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hastezoo import pictures

CELL = 128  # smaller images are enlarged to about this many pixels
WIDEST = 240  # pixels of the rows' labels; longer lines are cut


def labelled_grid(pixels: np.ndarray, columns: Sequence[str], rows: Sequence[str], *, corner: str = "") -> Image.Image:
    """Images with labels above the columns and left of the rows, on a dark ground; none is smoothed or cut.

    Args:
        pixels: uint8 (rows, columns, H, W, 1 or 3).
        columns, rows: A label each; a row's may have several lines.
        corner: What the columns' labels are, above the rows' labels.

    Raises:
        ValueError: If there are not as many labels as rows and columns.
    """
    if pixels.shape[:2] != (len(rows), len(columns)):
        raise ValueError(f"{len(rows)} x {len(columns)} labels do not fit images of shape {pixels.shape}")
    scale = max(1, round(CELL / pixels.shape[2]))
    high, wide = (side * scale + pictures.GAP for side in pixels.shape[2:4])
    left, top = _label_width([*rows, corner]), pictures.CAPTION + pictures.GAP
    size = (left + len(columns) * wide + pictures.GAP, top + len(rows) * high + pictures.GAP)
    sheet = Image.new("RGB", size, (pictures.GROUND,) * 3)
    pictures.write(sheet, corner or " ", (pictures.GAP, 0), left - 2 * pictures.GAP)
    for across, label in enumerate(columns):
        pictures.write(sheet, label, (left + across * wide, 0), wide - pictures.GAP)
    for down, label in enumerate(rows):
        _write_lines(sheet, label, (pictures.GAP, top + down * high), (left - 2 * pictures.GAP, high))
        for across, image in enumerate(pixels[down]):
            sheet.paste(pictures.to_pil(image, scale), (left + across * wide, top + down * high))
    return sheet


def _write_lines(sheet: Image.Image, text: str, place: tuple[int, int], room: tuple[int, int]) -> None:
    """Lines of text from (x, y) down, as many as fit into (width, height)."""
    for index, line in enumerate(text.splitlines()[: max(1, room[1] // pictures.CAPTION)]):
        pictures.write(sheet, line, (place[0], place[1] + index * pictures.CAPTION), room[0])


def _label_width(labels: Sequence[str]) -> int:
    """Pixels that the longest line takes, with a gap at either side and some air to the images."""
    font = pictures.caption_font()
    longest = max((font.getlength(line) for label in labels for line in label.splitlines()), default=0.0)
    return min(WIDEST, int(longest) + 1) + 6 * pictures.GAP
