"""Arrays in npz archives, read and written in pieces: files of gigabytes are never held whole, nothing is unpickled."""

from __future__ import annotations

import lzma
import math
import threading
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Self

import numpy as np

from hastezoo.errors import UserError

LFS_POINTER = b"version https://git-lfs"
ARRAY = b"\x93NUMPY"
ZIP = b"PK\x03\x04"
LOCAL_HEADER = 30  # bytes before the names in it
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


class Archive:
    """An npz. Its members may be read by several threads, one at a time.

    Raises:
        UserError: If it is none, with what it seems to be.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        try:
            self.zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise UserError(f"there is no file {path}") from None
        except (*DAMAGE, NotImplementedError) as error:
            refuse_pointer(path)
            raise UserError(_not_one(path, error)) from None
        infos = self.zip.infolist()
        self._infos = {one.filename.removesuffix(".npy"): one for one in infos if one.filename.endswith(".npy")}

    @property
    def keys(self) -> list[str]:
        """The names of its arrays."""
        return list(self._infos)

    def member(self, key: str) -> Member:
        """One of its arrays, of which only the header is read.

        Raises:
            KeyError: If there is none of that name.
            UserError: If it cannot be read.
        """
        return Member(self, key, self._infos[key])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.zip.close()


def _not_one(path: Path, error: Exception) -> str:
    start = _start(path)
    if start.startswith(ARRAY):
        return f"{path} is a single array and no npz; np.savez(FILE, array) makes one of it"
    if start.startswith(ZIP):
        return f"{path} is truncated or damaged ({_reason(error)}); fetch it again"
    return f"{path} is no npz: it does not begin as one"


def refuse_pointer(path: Path) -> None:
    """Refuse what git leaves in the place of a large file where git-lfs is not installed."""
    if _start(path).startswith(LFS_POINTER):
        raise UserError(f"{path} is a pointer of git-lfs and not the file itself: fetch that with `git lfs pull`")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


class Member:
    """One array of an archive.

    Going forward costs what it reads; so does any order where the archive is not compressed, as np.savez leaves it.
    Where it is (np.savez_compressed), going back means decompressing from the start. What has been read from the first
    byte to the last has been held against the archive's checksum.

    Attributes:
        key: Its name.
        shape, dtype: Of the array.
    """

    def __init__(self, archive: Archive, key: str, info: zipfile.ZipInfo) -> None:
        self.key, self._archive, self._info = key, archive, info
        with archive.lock:
            try:
                self._stream: IO[bytes] = archive.zip.open(info)
                self.shape, self._fortran, self.dtype = _read_header(self._stream)
                self._origin = self._stream.tell()
                self._sum: _Checksum | None = None
                if info.compress_type == zipfile.ZIP_STORED:
                    self._read_directly()
            except (*DAMAGE, RuntimeError) as error:  # an encrypted or strangely compressed one is a RuntimeError
                raise UserError(self._damaged(error)) from None
        if self.dtype.hasobject:
            raise UserError(
                f"{archive.path}: {key} holds pickled objects, which can run code when they are read; "
                "save it as an array of numbers"
            )
        self._row = self.dtype.itemsize * math.prod(self.shape[1:])
        if (held := info.file_size - self._header) != self.dtype.itemsize * math.prod(self.shape):
            raise UserError(f"{archive.path} is damaged: {key} is of shape {self.shape}, and holds {held:,} bytes")

    def _read_directly(self) -> None:
        """Read the file itself: zipfile gets to a place in a member by reading all that is before it."""
        stream, info = self._archive.zip.fp, self._info
        assert stream is not None
        stream.seek(info.header_offset)
        local = stream.read(LOCAL_HEADER)
        names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        header, begin = self._origin, info.header_offset + LOCAL_HEADER + names
        stream.seek(begin)
        self._sum = _Checksum(info.CRC, begin + info.file_size, begin + header, zlib.crc32(stream.read(header)))
        self._stream.close()
        self._stream, self._origin = stream, begin + header

    @property
    def _header(self) -> int:
        """Bytes before the array's own."""
        return self._info.file_size - (self._sum.end - self._origin) if self._sum else self._origin

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop - 1.

        Raises:
            ValueError: If there are no such rows, or the array lies in memory column by column.
            UserError: If they cannot be read.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"rows {start}..{stop} of {self.shape[0]}")
        if self.in_columns:
            raise ValueError(f"{self.key} is in Fortran order, which has no rows")
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self._fill(rows.reshape(-1).view(np.uint8), start * self._row)
        return rows

    @property
    def in_columns(self) -> bool:
        """Whether it was saved in Fortran order, and cannot be read row by row."""
        return self._fortran and len(self.shape) > 1

    def whole(self) -> np.ndarray:
        """All of it.

        Raises:
            UserError: If it cannot be read.
        """
        flat = np.empty(math.prod(self.shape), self.dtype)
        self._fill(flat.view(np.uint8), 0)
        return flat.reshape(self.shape, order="F" if self._fortran else "C")

    def _fill(self, buffer: np.ndarray, offset: int) -> None:
        view, done = buffer.data, 0
        with self._archive.lock:
            try:
                self._stream.seek(self._origin + offset)
                while done < len(view):
                    done += (got := self._stream.readinto(view[done:]))  # type: ignore[attr-defined]
                    if not got:
                        raise EOFError("it ends too early")
                if self._sum is not None:
                    self._sum.add(self._origin + offset, view)
            except DAMAGE as error:
                raise UserError(self._damaged(error)) from None

    def _damaged(self, error: Exception) -> str:
        return f"{self._archive.path} is damaged, in {self.key} ({_reason(error)}); fetch it again"


class _Checksum:
    """The checksum of a member of which every byte is read in order, whatever else is read in between."""

    def __init__(self, wanted: int, end: int, place: int, value: int) -> None:
        self.wanted, self.end, self.place, self.value = wanted, end, place, value

    def add(self, place: int, data: memoryview) -> None:
        if place <= self.place < place + len(data):
            self.value = zlib.crc32(data[self.place - place :], self.value)
            self.place = place + len(data)
            if self.place == self.end and self.value != self.wanted:
                raise zipfile.BadZipFile("its checksum differs")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of npy holds no plain numbers")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


class Writer:
    """Writes an npz, uncompressed, into an open file. The same arrays give the same bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def array(self, key: str, array: np.ndarray) -> None:
        """An array that is in memory."""
        self.rows(key, array.shape, array.dtype, [array])

    def rows(self, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[np.ndarray]) -> None:
        """An array that is not: parts which together are of that shape and dtype.

        Raises:
            ValueError: If they are not.
        """
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        size = 0
        with self._zip.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as member:  # of a fixed date
            np.lib.format.write_array_header_1_0(member, header)
            for part in parts:
                if part.dtype != dtype:
                    raise ValueError(f"{key} is of {dtype}, and a part of it of {part.dtype}")
                member.write(part.reshape(-1).view(np.uint8).data)
                size += part.size
        if size != math.prod(shape):
            raise ValueError(f"{key} is of shape {shape}, and its parts have {size} values")
