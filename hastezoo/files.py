"""Writing files so that a final name never holds half a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hastezoo.errors import UserError

PARTIAL = ".partial"


@contextlib.contextmanager
def atomic_open(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it takes the name when the block ends well, else it is gone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Write bytes under `path`, whole or not at all."""
    with atomic_open(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON under `path`, whole or not at all; a list of numbers takes one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = re.sub(r"\[\n[-+\d.,e\s]+\]", lambda found: re.sub(r"\s+", " ", found.group()), text)
    atomic_write(path, (text + "\n").encode())


LOCK = ".lock"
PATIENCE = 15.0  # seconds; what a killed command leaves behind holds its lock for some


@contextlib.contextmanager
def alone_in(folder: Path, doing: str, patience: float = PATIENCE) -> Iterator[None]:
    """Work in a folder that no other command works in meanwhile. The lock goes with the process, however it ends.

    Args:
        folder: It exists.
        doing: What the other would be doing, for the message.
        patience: Seconds to wait for it.

    Raises:
        UserError: If another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=patience, poll_interval=0.2)
    except Timeout:
        raise UserError(f"another process is {doing} {folder}; wait for it, or end it first") from None
    except NotImplementedError:  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        lock.release()


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for path in folder.glob(f".*{PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
