"""The local store: weights that were imported or downloaded, a folder each in `HASTEZOO_HOME/weights`.

A folder holds `model.safetensors`, perhaps `projectors.safetensors`, and `record.json`: where the weights are from.
It appears whole, by one rename.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hastezoo.errors import UserError, explain
from hastezoo.files import write_json
from hastezoo.home import home

MODEL, PROJECTORS, RECORD = "model.safetensors", "projectors.safetensors", "record.json"


class Record(BaseModel):
    """Where stored weights are from.

    Attributes:
        name: The checkpoint.
        source: The file, link or place on the Hub, as it was given.
        source_sha256: Of that file.
        format: What it was: one of `convert.FORMATS`, or `hastezoo`.
        which: `ema`, `model`, or `unknown` for a bare state dict.
        step: Training step, if the file states it.
        dtype: Of the stored tensors.
        sha256, bytes: Of model.safetensors.
        date: Of the import, ISO.
        notes: What the conversion remarked.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    source: str
    source_sha256: str
    format: str
    which: str
    step: int | None = None
    dtype: str
    sha256: str
    bytes: int
    date: str
    notes: list[str] = []


@dataclass(frozen=True)
class Entry:
    """A checkpoint in the store."""

    folder: Path
    record: Record

    @property
    def path(self) -> Path:
        """Its weights."""
        return self.folder / MODEL

    @property
    def size(self) -> int:
        """Bytes of the whole folder."""
        return _bytes(self.folder)


def folder_of(name: str) -> Path:
    """Where a checkpoint's weights are kept.

    Raises:
        UserError: If the name is no name but a path out of the store.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"{name!r} is no name of a checkpoint; `hastezoo cache list` shows what is stored")
    return home() / "weights" / name


def find(name: str) -> Entry | None:
    """The stored weights of a checkpoint, if there are any.

    Raises:
        UserError: If the folder is there and its record is not readable.
    """
    folder = folder_of(name)
    if not (folder / MODEL).is_file():
        return None
    try:
        return Entry(folder, Record.model_validate(json.loads((folder / RECORD).read_text(encoding="utf-8"))))
    except ValidationError as error:
        reason = explain(error, Record)
    except (OSError, ValueError) as error:
        reason = str(error)
    raise UserError(
        f"{folder} has no readable {RECORD} ({reason}); `hastezoo cache remove {name}`, then import it again"
    )


def entries() -> list[str]:
    """Names of what is stored, readable or not."""
    root = home() / "weights"
    return sorted(path.parent.name for path in root.glob(f"*/{MODEL}") if not path.parent.name.startswith("."))


def unfinished() -> dict[str, int]:
    """What killed imports and interrupted downloads left, or running ones hold: name -> bytes."""
    found: dict[str, int] = {}
    for folder in (home() / "weights").glob(".*.new"):
        found[folder.name[1 : -len(".new")]] = _bytes(folder)
    for folder in (home() / "downloads").glob("*"):
        if folder.is_dir() and _bytes(folder):
            found[folder.name] = found.get(folder.name, 0) + _bytes(folder)
    return found


def downloads_of(name: str) -> Path:
    """Where direct links of a checkpoint are downloaded to, until they are converted."""
    return home() / "downloads" / folder_of(name).name


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Between processes: who comes second finds what the first has stored."""
    from filelock import FileLock, Timeout

    path = folder_of(name).with_name(f".{name}.lock")
    _make(path.parent)
    held = FileLock(path)
    try:
        held.acquire(timeout=1)
    except Timeout:
        warnings.warn(f"another process is busy with {name}; waiting for it", stacklevel=3)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def making(name: str) -> Iterator[Path]:
    """A folder to fill; it takes the checkpoint's place when the block ends well, else it is gone."""
    final = folder_of(name)
    fresh, old = final.with_name(f".{name}.new"), final.with_name(f".{name}.old")
    if old.exists() and not final.exists():  # a process was killed between the two renames below
        old.rename(final)
    _discard(fresh)
    _discard(old)
    _make(fresh)
    try:
        yield fresh
        if final.exists():
            final.rename(old)
        fresh.rename(final)
    finally:
        _discard(fresh)
        _discard(old)


def write_record(folder: Path, record: Record) -> None:
    """Write the record into a folder that is being made."""
    values: dict[str, Any] = record.model_dump()
    write_json(folder / RECORD, values)


def remove(name: str) -> int:
    """Remove a checkpoint's stored weights, and what an unfinished import or download of it left.

    Returns:
        The bytes that are free again.

    Raises:
        UserError: If nothing of that name is stored.
    """
    if not is_known(name):
        raise UserError(f"{name!r} is not in the store; `hastezoo cache list` shows what is")
    final = folder_of(name)
    folders = [final, final.with_name(f".{name}.new"), final.with_name(f".{name}.old"), downloads_of(name)]
    with lock(name):
        size = sum(_bytes(folder) for folder in folders)
        for folder in folders:
            _discard(folder)
    return size


def is_known(name: str) -> bool:
    """Whether there is anything of that name to remove."""
    return folder_of(name).is_dir() or name in unfinished()


def _discard(folder: Path) -> None:
    """Remove a folder of the store and the files in it; it never descends, nor touches what is not the store's."""
    if folder.parent not in (home() / "weights", home() / "downloads") or folder.is_symlink():
        raise UserError(f"{folder} is not in the store: nothing was removed")
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the store {folder} cannot be written: {error.strerror}; set HASTEZOO_HOME") from None
