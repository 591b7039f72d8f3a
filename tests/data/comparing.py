"""What tests hold prepared data sets against: their rows, their files, and each other; and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hastezoo.errors import UserError
from tests.data.making import SIDE


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows, read by pyarrow alone."""
    import pyarrow as pa

    files = [shard["file"] for shard in json.loads((folder / "manifest.json").read_text())["shards"]]
    return [row for file in files for row in pa.ipc.open_stream((folder / file).read_bytes()).read_all().to_pylist()]


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """Every file but hidden ones, as bytes."""
    return {path.name: path.read_bytes() for path in folder.glob(pattern) if not path.name.startswith(".")}


def moments(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f2").reshape(2, 4, SIDE // 8, SIDE // 8).astype(np.float32)


def dated(manifest: bytes) -> dict[str, Any]:
    return {**json.loads(manifest), "date": ""}


def assert_same(found: Path, wanted: Path) -> None:
    """Byte for byte, but for the day."""
    one, other = contents(found), contents(wanted)
    assert dated(one.pop("manifest.json")) == dated(other.pop("manifest.json"))
    assert one == other


def assert_near(found: Path, wanted: Path) -> None:
    """The same samples but for the last bits of moments, which PyTorch rounds as its threads and batches are."""
    for row, expected in zip(rows_of(found), rows_of(wanted), strict=True):
        for name in ("moments", "mirrored"):
            assert np.allclose(moments(row.pop(name)), moments(expected.pop(name)), rtol=1e-3, atol=1e-4)
        assert row == expected


def facts(dest: Path) -> dict[str, tuple[int, int]]:
    """What tells a shard from one that was written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in dest.glob("shard-*.arrow")}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)
