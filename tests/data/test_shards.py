"""Samples in Arrow files: whole or not at all, as `datasets` writes them, with their sums."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hastezoo.data.manifest import Skipped
from hastezoo.data.shards import ROWS, Row, ShardRecord, features, write_shard
from hastezoo.digests import sha256_of


def row(number: int, flip: bool = False) -> Row:
    rng = np.random.default_rng(number)
    moments = rng.normal(size=(2, 4, 3, 2)).astype(np.float32)
    return Row(f"x/{number}", number % 3, b"file %d" % number, moments, -moments if flip else None)


@pytest.mark.parametrize("flip", [False, True])
def test_rows_come_back(tmp_path: Path, flip: bool) -> None:
    rows, path = [row(number, flip) for number in range(2 * ROWS + 5)], tmp_path / "s.arrow"
    record = write_shard(path, rows, features(["a", "b", "c"], flip))
    assert record.shard and (record.shard.file, record.shard.rows) == ("s.arrow", len(rows))
    assert (record.shard.bytes, record.shard.sha256) == (path.stat().st_size, sha256_of(path))
    reader = pa.ipc.open_stream(path.read_bytes())
    batches = list(reader)
    assert [len(batch) for batch in batches] == [ROWS, ROWS, 5]
    assert reader.schema.names == ["id", "label", "moments", *(["mirrored"] if flip else []), "image"]
    for seen, wanted in zip((one for batch in batches for one in batch.to_pylist()), rows, strict=True):
        assert (seen["id"], seen["label"], seen["image"]) == (
            wanted.id, wanted.label, {"bytes": wanted.image, "path": None},
        )  # fmt: skip
        assert seen["moments"] == wanted.moments.astype(np.float16).tobytes()
        assert not flip or seen["mirrored"] == (-wanted.moments).astype(np.float16).tobytes()


def test_a_record_adds_up_what_was_written(tmp_path: Path) -> None:
    rows, skipped = [row(number) for number in range(ROWS + 9)], Skipped(id="bad", reason="why")
    record = write_shard(tmp_path / "s.arrow", [*rows[:3], skipped, *rows[3:]], features(["a", "b", "c"], False))
    mean, std = np.stack([one.moments for one in rows], 1).astype(np.float64)
    assert record.shape == (4, 3, 2) and record.skipped == [skipped]
    assert record.labels == {label: sum(one.label == label for one in rows) for label in range(3)}
    for found, wanted in ((record.sums, mean), (record.squares, mean**2), (record.stds, std)):
        assert np.allclose(found, wanted.sum((0, 2, 3)), rtol=1e-12)
    record.write(tmp_path / "s.json")
    assert ShardRecord.read(tmp_path / "s.json") == record


def test_a_unit_of_which_nothing_can_be_read_leaves_no_file(tmp_path: Path) -> None:
    record = write_shard(tmp_path / "s.arrow", [Skipped(id="bad", reason="why")], features(["a"], False))
    assert record.shard is None and record.shape is None and len(record.skipped) == 1
    assert list(tmp_path.iterdir()) == []
    record.write(tmp_path / "s.json")
    assert ShardRecord.read(tmp_path / "s.json") == record


def test_what_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield from (row(number) for number in range(ROWS + 1))
        assert len(list(tmp_path.iterdir())) == 1  # under way
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "s.arrow", rows(), features(["a", "b", "c"], False))
    assert list(tmp_path.iterdir()) == []
