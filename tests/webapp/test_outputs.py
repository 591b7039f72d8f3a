"""The folder of outputs: what is old goes, what is not stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hastezoo.errors import UserError
from hastezoo.webapp.outputs import Outputs

HOUR = 3600.0


def aged(folder: Path, hours: float, *names: str) -> Path:
    """A folder with files of that age."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("x")
    then = time.time() - hours * HOUR
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))
    return folder


def test_old_folders_are_removed_and_young_ones_stay(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "out", keep_hours=2)
    old, young = aged(outputs.folder("old"), 2.1, "a.png"), aged(outputs.folder("young"), 1.9, "a.png")
    measured = aged(outputs.evaluations / "old", 3, "result.json")
    assert outputs.clean() == 2
    assert young.exists() and not old.exists() and not measured.exists()
    assert outputs.clean() == 0


def test_a_folder_is_as_young_as_its_youngest_file(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "out", keep_hours=2)
    folder = aged(outputs.folder("long"), 5, "a.png", "b.png")
    os.utime(folder / "b.png")
    os.utime(folder, (1, 1))
    assert outputs.clean() == 0
    assert (folder / "a.png").exists()


def test_the_clock_decides(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path / "out", keep_hours=1)
    aged(outputs.folder("one"), 0, "a.png")
    assert outputs.clean(now=time.time() + 0.9 * HOUR) == 0
    assert outputs.clean(now=time.time() + 1.1 * HOUR) == 1


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot write to .*file/out: .*; give another --outputs"):
        Outputs(tmp_path / "file" / "out", keep_hours=1)
