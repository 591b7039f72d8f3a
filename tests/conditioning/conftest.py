"""CLIP text encoders with random weights that several files of tests read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hastezoo.conditioning.clip import ClipText
from tests.clip import save_clip


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> ClipText:
    return ClipText.from_pretrained(tiny_clip)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with its image half."""
    return save_clip(tmp_path_factory.mktemp("whole"), width=24, layers=3, heads=3, hidden=40, full=True, seed=4)


@pytest.fixture
def copy(tiny_clip: Path, tmp_path: Path) -> Path:
    """To damage."""
    return Path(shutil.copytree(tiny_clip, tmp_path / "clip"))
