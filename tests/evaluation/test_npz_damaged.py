"""Archives that are damaged, dangerous or no archives at all: one line each, before anything is done with them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hastezoo.errors import UserError
from hastezoo.evaluation.npz import Archive
from tests.evaluation.sources import flip, member_start, pixels, refusal, save

SAVERS = [np.savez, np.savez_compressed]


@pytest.mark.parametrize("saver", SAVERS)
def test_a_changed_byte_is_found_out(saver: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    saver(path, arr_0=pixels(100))
    flip(path, member_start(path, "arr_0.npy") + 9000)
    with Archive(path) as archive:
        member = archive.member("arr_0")
        with pytest.raises(UserError) as error:
            member.read(0, 3)  # as a look at the first does
            for start in range(0, 100, 10):
                member.read(start, start + 10)
        line = refusal(error)
        assert line.startswith(f"{path} is damaged, in arr_0 (") and line.endswith("); fetch it again")


@pytest.mark.parametrize("saver", SAVERS)
def test_a_checksum_that_differs_is_found_out_at_the_end(saver: Callable[..., None], tmp_path: Path) -> None:
    """Also where what compresses well gives its last bytes before its end."""
    for count in range(1, 40, 3):
        path = tmp_path / f"{count}.npz"
        saver(path, arr_0=np.arange(count * 12288, dtype=np.uint8).reshape(count, 64, 64, 3) // 9)
        flip(path, path.read_bytes().rindex(b"PK\x01\x02") + 16)
        with Archive(path) as archive, pytest.raises(UserError, match="is damaged, in arr_0"):
            archive.member("arr_0").read(0, count)


def broken(path: Path, how: str) -> Path:
    save(path, arr_0=pixels(10))
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:-100])
    elif how == "short":
        path.write_bytes(data[:3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2037122530\n")
    elif how == "array":
        with path.open("wb") as stream:
            np.save(stream, pixels(10))
    elif how == "page":
        path.write_bytes(b"<!DOCTYPE html><html>404</html>")
    return path


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("truncated", "is truncated or damaged (File is not a zip file); fetch it again"),
        ("short", "is no npz: it does not begin as one"),
        ("empty", "is no npz: it does not begin as one"),
        ("page", "is no npz: it does not begin as one"),
        ("pointer", "is a pointer of git-lfs and not the file itself: fetch that with `git lfs pull`"),
        ("array", "is a single array and no npz; np.savez(FILE, array) makes one of it"),
    ],
)
def test_what_is_no_archive_is_called_what_it_is(how: str, wanted: str, tmp_path: Path) -> None:
    path = broken(tmp_path / "x.npz", how)
    with pytest.raises(UserError) as error:
        Archive(path)
    assert refusal(error) == f"{path} {wanted}"


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        Archive(tmp_path / "x.npz")
    assert refusal(error) == f"there is no file {tmp_path / 'x.npz'}"
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        Archive(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this was run",)


def test_pickles_are_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=np.array([Harmful()], dtype=object), allow_pickle=True)
    with Archive(path) as archive, pytest.raises(UserError) as error:
        archive.member("arr_0")
    assert refusal(error).startswith(f"{path}: arr_0 holds pickled objects, which can run code")
    assert capsys.readouterr().out == ""


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (header((2**50, 4)) + b"x" * 8, "is damaged: arr_0 is of shape (1125899906842624, 4), and holds 8 bytes"),
        (header((2, 4)) + b"x" * 9, "is damaged: arr_0 is of shape (2, 4), and holds 9 bytes"),
        (b"no header", "is damaged, in arr_0 ("),
        (header((2, 4))[:40], "is damaged, in arr_0 ("),
        (b"\x93NUMPY\x03\x00" + header((2, 4))[8:], "is damaged, in arr_0 ("),
        (b"", "is damaged, in arr_0 ("),
    ],
)
@pytest.mark.parametrize("compress", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_that_lie(content: bytes, wanted: str, compress: int, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("arr_0.npy", content)
    with Archive(path) as found, pytest.raises(UserError) as error:
        found.member("arr_0")
    assert refusal(error).startswith(f"{path} {wanted}")


def test_encrypted_archives_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", arr_0=pixels(3))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises(UserError, match=r"damaged, in arr_0 .*encrypted"):
        archive.member("arr_0")
