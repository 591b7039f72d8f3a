"""Arrays streamed out of npz archives and into them, held against numpy's own reading and writing."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hastezoo.evaluation.npz import Archive, Writer
from tests.evaluation.sources import pixels, save
from tests.memory import run_measured

SAVERS = [np.savez, np.savez_compressed]
MB = 1 << 20


def read_bytes() -> int:
    """What this process has read so far, by the kernel's count."""
    path = Path("/proc/self/io")
    if not path.exists():
        pytest.skip("what is read is counted by /proc")
    return int(path.read_text().split("rchar:")[1].split()[0])


@pytest.mark.parametrize("saver", SAVERS)
def test_rows_in_any_order_are_numpys(saver: Callable[..., None], tmp_path: Path) -> None:
    path, rng = tmp_path / "x.npz", np.random.default_rng(1)
    arrays = {"first": rng.normal(size=(3, 4)), "images": pixels(50), "last": np.arange(5)}
    saver(path, **arrays)
    with Archive(path) as archive:
        assert archive.keys == ["first", "images", "last"]
        member, other = archive.member("images"), archive.member("first")
        assert (member.shape, member.dtype) == ((50, 8, 8, 3), np.uint8)
        for start, stop in [
            (0, 50),
            (49, 50),
            (0, 1),
            (7, 7),
            (50, 50),
            *np.sort(rng.integers(0, 51, (30, 2))).tolist(),
        ]:
            assert np.array_equal(member.read(start, stop), arrays["images"][start:stop])
            assert np.array_equal(other.read(1, 3), arrays["first"][1:3])  # the two do not disturb each other
        for start, stop in ((-1, 3), (3, 2), (0, 51)):
            with pytest.raises(ValueError, match="rows"):
                member.read(start, stop)


@pytest.mark.parametrize("saver", SAVERS)
def test_whole_arrays_are_numpys(saver: Callable[..., None], tmp_path: Path) -> None:
    arrays = {
        "a": np.array(3), "b": np.zeros((0, 4)), "c": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "d": np.arange(4.0), "e": np.arange(3, dtype=">f4"), "f": np.array(["word", "longer word"]),
        "g": np.ones((2, 0, 3), np.uint8),
    }  # fmt: skip
    saver(tmp_path / "x.npz", **arrays)
    with Archive(tmp_path / "x.npz") as archive, np.load(tmp_path / "x.npz") as wanted:
        for key in archive.keys:
            found = archive.member(key).whole()
            assert np.array_equal(found, wanted[key]) and found.shape == wanted[key].shape
            assert found.dtype == wanted[key].dtype
        assert archive.member("c").in_columns and not archive.member("d").in_columns
        with pytest.raises(ValueError, match="Fortran"):
            archive.member("c").read(0, 1)


def test_archives_of_other_zip_programs(tmp_path: Path) -> None:
    """Comments, folders, other files, extra fields, bytes in front: the array is where its header says."""
    array, path = pixels(5), tmp_path / "x.npz"
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(2, 0))
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"a comment"
        archive.writestr("readme.txt", "text")
        info = zipfile.ZipInfo("arr_0.npy")
        info.extra = b"\xfe\xca\x04\x00abcd"
        archive.writestr(info, buffer.getvalue())
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    with Archive(path) as found:
        assert found.keys == ["arr_0"]
        assert np.array_equal(found.member("arr_0").read(1, 4), array[1:4])
        assert np.array_equal(found.member("arr_0").whole(), array)


READ = """
import sys
from pathlib import Path
from hastezoo.evaluation.images.arrays import NpzImages
images = NpzImages(Path(sys.argv[1]))
total = 0
for start in range(0, images.count if sys.argv[2] == "all" else 64, 64):
    total += int(images.read(start, min(start + 64, images.count)).astype("u4").sum())
print(total)
"""


def large(path: Path, compress: int) -> int:
    """200 MiB of images, written in blocks; returns the sum of their bytes."""
    count, side = 3200, 148
    total = 0
    with (
        zipfile.ZipFile(path, "w", compress, compresslevel=1) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        for block in range(count // 64):
            values = np.full((64, side, side, 3), 2 + block, np.uint8)
            total += int(values.sum(dtype=np.uint64))
            member.write(values.tobytes())
    return total


@pytest.mark.parametrize("compress", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_is_larger_than_memory_is_streamed(compress: int, tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    total = large(path, compress)
    home = {"HASTEZOO_HOME": str(tmp_path / "home")}
    _, little = run_measured(READ, path, "few", **home)
    output, much = run_measured(READ, path, "all", **home)
    assert int(output) == total
    assert much - little < 20 * MB


def test_where_nothing_is_compressed_any_place_is_near(tmp_path: Path) -> None:
    images = pixels(600, side=64)
    with Archive(save(tmp_path / "x.npz", arr_0=images)) as archive:
        member, before = archive.member("arr_0"), read_bytes()
        for start in (599, 0, 300, 1):
            assert np.array_equal(member.read(start, start + 1), images[start : start + 1])
        assert read_bytes() - before < MB < images.nbytes / 6


def test_going_forward_decompresses_once(tmp_path: Path) -> None:
    images = pixels(600, side=64)
    np.savez_compressed(tmp_path / "x.npz", arr_0=images)
    with Archive(tmp_path / "x.npz") as archive:
        member, before = archive.member("arr_0"), read_bytes()
        for start in range(0, 600, 20):
            member.read(start, start + 10)  # and leaves some out
        assert read_bytes() - before < 1.2 * images.nbytes  # random bytes do not become fewer


def write(path: Path) -> None:
    images = pixels(20)
    with path.open("wb") as stream, Writer(stream) as writer:
        writer.array("mu", np.arange(3.0))
        writer.array("count", np.array(20, np.int64))
        writer.rows("arr_0", images.shape, images.dtype, (images[start : start + 7] for start in range(0, 20, 7)))
        writer.array("turned", np.arange(6.0).reshape(2, 3).T)


def test_what_is_written_is_an_npz(tmp_path: Path) -> None:
    write(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert list(found) == ["mu", "count", "arr_0", "turned"]
        assert np.array_equal(found["arr_0"], pixels(20)) and np.array_equal(found["mu"], np.arange(3.0))
        assert found["count"] == 20 and np.array_equal(found["turned"], np.arange(6.0).reshape(2, 3).T)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:  # nor does the day change the bytes
        assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in archive.infolist())
    write(tmp_path / "y.npz")
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "y.npz").read_bytes()


@pytest.mark.parametrize(
    "parts", [[pixels(3)], [pixels(2), pixels(3)], [pixels(4).astype(np.int8)]], ids=["few", "many", "dtype"]
)
def test_parts_make_up_the_whole(parts: list[np.ndarray], tmp_path: Path) -> None:
    def given() -> Iterator[np.ndarray]:
        yield from parts

    with (
        pytest.raises(ValueError, match="arr_0 is of"),
        (tmp_path / "x.npz").open("wb") as stream,
        Writer(stream) as writer,
    ):
        writer.rows("arr_0", (4, 8, 8, 3), np.dtype(np.uint8), given())
