"""Final names never hold half a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hastezoo import pictures
from hastezoo.files import atomic_open, remove_partials, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_open(path) as stream:
        stream.write(b"half of the new")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_json_keeps_its_values_and_puts_numbers_on_a_line(tmp_path: Path) -> None:
    value = {"seeds": [1, 2, 3], "interval": [0.0, 1e-05], "text": "[1,\n  2]", "rows": [{"a": 1}], "none": []}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == value and '"seeds": [ 1, 2, 3 ]' in text


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.png.12.partial").write_bytes(b"half")
    (tmp_path / "a.partial").write_bytes(b"a user's own")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]


def test_grid_sets_images_out_row_by_row() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1) * np.ones((1, 8, 8, 1), dtype=np.uint8) * 40
    sheet = np.asarray(pictures.grid(pixels, columns=3))
    assert sheet.shape == (2 * 66 + 2, 3 * 66 + 2)
    assert [[int(sheet[35 + 66 * row, 35 + 66 * column]) for column in range(3)] for row in range(2)] == [
        [0, 40, 80],
        [120, 160, 200],
    ]


@pytest.mark.parametrize(
    ("count", "conditions", "columns"), [(16, 1, 4), (50, 10, 5), (10, 10, 4), (7, 1, 3), (1, 1, 1)]
)
def test_shape_of_a_grid(count: int, conditions: int, columns: int) -> None:
    assert pictures.columns_for(count, conditions) == columns


def test_colour_and_grey_and_nothing_else() -> None:
    assert pictures.to_pil(np.zeros((4, 4, 3), np.uint8)).mode == "RGB"
    assert pictures.to_pil(np.zeros((4, 4, 1), np.uint8), 3).size == (12, 12)
    for wrong in (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 1)), np.zeros((4, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            pictures.to_pil(wrong)
    with pytest.raises(ValueError, match="animation"):
        pictures.save_animation(Path("x.mp4"), [])
