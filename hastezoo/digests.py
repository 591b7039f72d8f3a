"""sha256 of files. Of large ones it is computed once and recorded, since hashing 2.7 GB takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from hastezoo.files import write_json
from hastezoo.home import home

SMALL = 32 << 20  # bytes; below it hashing is quicker than looking up a record


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def recorded_sha256(path: Path) -> str:
    """Hex digest of a file; for a large one the recorded digest while its size, time and inode are as recorded.

    `hastezoo verify` hashes again whatever is recorded.
    """
    path = path.resolve()
    facts = path.stat()
    if facts.st_size <= SMALL:
        return sha256_of(path)
    seen = {"path": str(path), "size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "inode": facts.st_ino}
    record = home() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(record.read_text(encoding="utf-8"))
        if {key: known[key] for key in seen} == seen:
            return str(known["sha256"])
    digest = sha256_of(path)
    with contextlib.suppress(OSError):  # a store that cannot be written costs time, nothing else
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, {**seen, "sha256": digest})
    return digest
