"""Writing files so that a final name never holds half a file."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

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


def remove_partials(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
