"""What training reads of a prepared data set is what lies in its files; what is damaged is said, with the file."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from hastezoo.data.images import decode
from hastezoo.data.prepare import prepare
from hastezoo.data.prepared import Prepared
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from tests.data.comparing import rows_of
from tests.data.making import SIDE, Given, make, settings_of, write_photographs

SHAPE = (2, 4, SIDE // 8, SIDE // 8)


@pytest.fixture(scope="module")
def folder(tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = write_photographs(tmp_path_factory.mktemp("images"))
    dest = tmp_path_factory.mktemp("data") / "set"
    make(images, dest, tiny_vae, flip=True)
    return dest


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return rows_of(folder)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """To damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def moments(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f2").reshape(SHAPE).astype(np.float32)


@pytest.mark.parametrize(("scale", "bias"), [(0.18215, 0.0), (0.25, -1.5)])
def test_samples_are_the_stored_ones_scaled_in_the_order_asked(
    folder: Path, rows: list[dict[str, Any]], scale: float, bias: float
) -> None:
    """The bias moves the mean alone; the deviation is only scaled."""
    samples, wanted = Prepared(folder, scale=scale, bias=bias), [17, 3, 0, 3, 9, 4, 5]
    assert len(samples) == len(rows) and samples.shape == SHAPE[1:]
    batch = samples.__getitems__(wanted)
    assert batch.std is not None and batch.images is not None
    assert (batch.data.dtype, batch.std.dtype, batch.condition.dtype, batch.images.dtype) == (
        torch.float32, torch.float32, torch.int64, torch.uint8,
    )  # fmt: skip
    assert batch.images.shape == (7, 3, SIDE, SIDE)
    assert batch.condition.tolist() == [rows[place]["label"] for place in wanted]
    for at, place in enumerate(wanted):
        mean, std = moments(rows[place]["moments"])
        assert np.allclose(batch.data[at], mean * scale + bias, rtol=1e-6, atol=1e-7)
        assert np.allclose(batch.std[at], std * scale, rtol=1e-6)
        assert np.array_equal(batch.images[at].permute(1, 2, 0), decode(rows[place]["image"]["bytes"]))


def test_the_second_half_is_mirrored(folder: Path, rows: list[dict[str, Any]]) -> None:
    samples, count = Prepared(folder, scale=1.0, flip=True), len(rows)
    assert len(samples) == 2 * count
    batch = samples.__getitems__([2, count + 2, count, 2 * count - 1])
    assert batch.images is not None and batch.std is not None
    assert torch.equal(batch.images[1], batch.images[0].flip(-1))
    assert batch.condition.tolist() == [rows[place]["label"] for place in (2, 2, 0, -1)]
    for at, (place, column) in enumerate([(2, "moments"), (2, "mirrored"), (0, "mirrored"), (-1, "mirrored")]):
        mean, std = moments(rows[place][column])
        assert np.array_equal(batch.data[at], mean) and np.array_equal(batch.std[at], std)


def test_a_number_beyond_the_data_set_is_refused(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Else it would come back as another sample, or as its mirror."""
    for samples in (Prepared(folder), Prepared(folder, flip=True)):
        for number in (len(samples), -1):
            with pytest.raises(IndexError, match=f"there is no sample {number}; there are {len(samples)}"):
                samples.__getitems__([0, number])


def test_without_images(folder: Path) -> None:
    samples = Prepared(folder)
    samples.__getitems__([0])
    bare = samples.without_images()
    assert samples.images and bare.without_images() is bare
    one, other = samples.__getitems__([4, 1]), bare.__getitems__([4, 1])
    assert other.images is None and one.images is not None and one.std is not None and other.std is not None
    assert torch.equal(one.data, other.data) and torch.equal(one.std, other.std)


def test_without_images_none_is_read(copy: Path) -> None:
    damage(copy, lambda row: {**row, "image": {"bytes": b"", "path": None}}, 1)
    assert Prepared(copy, images=False).__getitems__([0, 1, 2]).images is None


def test_a_copy_reads_the_same(folder: Path) -> None:
    samples = Prepared(folder, scale=0.5, flip=True)
    wanted = samples.__getitems__([20, 3])
    data = pickle.dumps(samples)
    assert len(data) < 20_000  # the manifest, not the samples
    batch = pickle.loads(data).__getitems__([20, 3])
    assert torch.equal(batch.data, wanted.data) and torch.equal(batch.images, wanted.images)


def test_other_processes_read_it(folder: Path) -> None:
    """A map into memory that was opened before a fork is opened again in each."""
    samples, order = Prepared(folder, flip=True), [[0, 5], [30, 1], [7, 7], [17, 35]]
    direct = [samples.__getitems__(part) for part in order]
    loader = DataLoader(
        samples, batch_sampler=order, num_workers=2, collate_fn=lambda batch: batch, multiprocessing_context="fork",
    )  # fmt: skip
    for batch, wanted in zip(loader, direct, strict=True):
        assert torch.equal(batch.data, wanted.data) and torch.equal(batch.std, wanted.std)
        assert torch.equal(batch.condition, wanted.condition) and torch.equal(batch.images, wanted.images)


def test_mirrors_that_are_not_there(tmp_path: Path) -> None:
    source = Given([np.zeros((16, 16, 3), np.uint8)], [np.ones((2, 4, 2, 2), np.float32)])
    prepare(source, tmp_path / "set", settings_of("mse", resolution=16))
    with pytest.raises(UserError, match=r"set has no moments of mirrored images; prepare it with --flip, or train wit"):
        Prepared(tmp_path / "set", flip=True)


def test_negative_deviations_are_refused(tmp_path: Path) -> None:
    moments = np.ones((2, 4, 2, 2), np.float32)
    moments[1, 0, 0, 1] = -0.5
    source = Given([np.zeros((16, 16, 3), np.uint8)], [moments])
    prepare(source, tmp_path / "set", settings_of("mse", resolution=16))
    with pytest.raises(UserError, match=r"set holds negative standard deviations.*\(log-variances\?\); prepare it aga"):
        Prepared(tmp_path / "set").__getitems__([0])


@pytest.mark.parametrize("state", ["absent", "empty", "a file", "another format", "another kind", "not JSON"])
def test_folders_that_are_no_data_set(copy: Path, tmp_path: Path, state: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    if state == "another kind":
        manifest["latents"]["moments"] = "mean-logvar"
    if state == "another format":
        manifest["format"] = "hastezoo-data-9"
    (copy / "manifest.json").write_text("{" if state == "not JSON" else json.dumps(manifest))
    (tmp_path / "empty").mkdir()
    path, message = {
        "absent": (tmp_path / "nowhere", "there is no folder .*nowhere; `hastezoo prepare` makes a data set"),
        "empty": (tmp_path / "empty", r"empty is no prepared data set: it has no manifest\.json"),
        "a file": (copy / "manifest.json", r"there is no folder .*manifest\.json"),
        "another format": (copy, "is of the format hastezoo-data-9; this version reads hastezoo-data-1"),
        "another kind": (copy, "holds moments of the kind mean-logvar, not mean-std; prepare it again"),
        "not JSON": (copy, r"manifest\.json: Invalid JSON"),
    }[state]
    with pytest.raises(UserError, match=message) as error:
        Prepared(path)
    assert "\n" not in str(error.value)


def damage(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], number: int) -> Path:
    """Write a shard again with one of its rows changed, as sound as before to whoever does not read that row."""
    record = json.loads((folder / "manifest.json").read_text())
    shard = record["shards"][number // 5]
    path = folder / shard["file"]
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    values = table.to_pylist()
    values[number % 5] = change(values[number % 5])
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(pa.Table.from_pylist(values, table.schema))
    shard.update(bytes=path.stat().st_size, sha256=sha256_of(path))
    (folder / "manifest.json").write_text(json.dumps(record))
    return path


def refused(path: Path, reason: str, read: Callable[[], Any]) -> None:
    """One line that names the file."""
    with pytest.raises(UserError) as error:
        read()
    pattern = rf"the shard {re.escape(str(path))} {reason}: copy it again, or prepare the data set anew"
    assert re.fullmatch(pattern, str(error.value)), str(error.value)


def test_a_shard_that_is_missing_or_cut(copy: Path) -> None:
    path = copy / "shard-00002.arrow"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    refused(path, f"has {len(data) - 100:,} bytes, not {len(data):,}", lambda: Prepared(copy))
    path.unlink()
    refused(path, "is missing", lambda: Prepared(copy))


@pytest.mark.parametrize("start", [b"\xff" * 200, b"", b"ARROW1\0\0"])
def test_a_shard_of_the_right_size_that_is_none(copy: Path, start: bytes) -> None:
    path = copy / "shard-00001.arrow"
    size = path.stat().st_size
    path.write_bytes(start + bytes(size - len(start)))
    refused(path, r"is damaged \(.+\)", lambda: Prepared(copy))


def test_another_number_of_rows(copy: Path) -> None:
    """Of the same size: the manifest is of other samples."""
    record = json.loads((copy / "manifest.json").read_text())
    record["shards"][3]["rows"] = 4
    (copy / "manifest.json").write_text(json.dumps(record))
    refused(copy / "shard-00003.arrow", r"is damaged \(3 rows, not 4\)", lambda: Prepared(copy))


@pytest.mark.parametrize("flip", [False, True])
def test_a_damaged_image(copy: Path, rows: list[dict[str, Any]], flip: bool) -> None:
    """A flipped byte in the pixels' stream; the size stays, so only reading it tells."""
    data = rows[8]["image"]["bytes"]
    path = copy / "shard-00001.arrow"
    whole = path.read_bytes()
    place = whole.index(data) + len(data) // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
    samples = Prepared(copy, flip=flip)
    samples.__getitems__([5, 6, 7, 9])
    reason = rf"is damaged \(sample {rows[8]['id']}: its image: .+\)"
    refused(path, reason, lambda: samples.__getitems__([5, 8 + flip * len(rows)]))


def test_an_image_of_another_size(copy: Path, rows: list[dict[str, Any]]) -> None:
    from hastezoo.data.images import encode

    small = encode(np.zeros((16, 16, 3), np.uint8), "png")
    path = damage(copy, lambda row: {**row, "image": {"bytes": small, "path": None}}, 2)
    samples = Prepared(copy)
    refused(path, rf"is damaged \(sample {rows[2]['id']}: its image: .*\)", lambda: samples.__getitems__([2]))


@pytest.mark.parametrize("value", [b"", bytes(100), bytes(258)])
@pytest.mark.parametrize("column", ["moments", "mirrored"])
def test_moments_of_another_size(copy: Path, rows: list[dict[str, Any]], value: bytes, column: str) -> None:
    path = damage(copy, lambda row: {**row, column: value}, 12)
    samples = Prepared(copy, flip=True)
    chosen = 12 if column == "moments" else 12 + len(rows)
    samples.__getitems__([0, 11])
    refused(
        path,
        rf"is damaged \(sample {rows[12]['id']}: its moments are not 256 bytes\)",
        lambda: samples.__getitems__([0, 11, chosen, 3]),
    )


@pytest.mark.parametrize("column", ["moments", "mirrored", "label", "image"])
def test_a_sample_that_lacks_something(copy: Path, column: str) -> None:
    """The file is named also where the rows of several were asked for."""
    path = damage(copy, lambda row: {**row, column: None}, 10)
    samples, number = Prepared(copy, flip=True), 28 if column == "mirrored" else 10
    refused(path, rf"is damaged \(a sample has no {column}\)", lambda: samples.__getitems__([0, number]))


def test_shards_of_other_classes(copy: Path) -> None:
    """Of another data set, under the name of this one's."""
    path = copy / "shard-00000.arrow"
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    metadata = table.schema.metadata[b"huggingface"].replace(b"astronaut", b"cosmonaut")
    with pa.OSFile(str(path), "wb") as stream:
        schema = table.schema.with_metadata({b"huggingface": metadata})
        with pa.ipc.new_stream(stream, schema) as writer:
            writer.write_table(table.replace_schema_metadata(schema.metadata))
    damage(copy, lambda row: row, 0)  # its digest, into the manifest
    refused(path, r"is damaged \(its columns or classes are others\)", lambda: Prepared(copy))


def test_two_wrong_sizes_do_not_make_up_for_each_other(copy: Path, rows: list[dict[str, Any]]) -> None:
    damage(copy, lambda row: {**row, "moments": bytes(254)}, 0)
    path = damage(copy, lambda row: {**row, "moments": bytes(258)}, 1)
    samples = Prepared(copy)
    refused(path, rf"is damaged \(sample {rows[0]['id']}: .*\)", lambda: samples.__getitems__([0, 1]))


def test_the_fingerprint_follows_the_samples(folder: Path, copy: Path) -> None:
    before = Prepared(copy).manifest.fingerprint
    assert before == Prepared(folder).manifest.fingerprint
    damage(copy, lambda row: {**row, "label": (row["label"] + 1) % 3}, 4)
    assert Prepared(copy).manifest.fingerprint != before
