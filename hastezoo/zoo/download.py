"""Direct links of file hosts: resumable across runs, checked, written under the final name only when whole.

The Hub has its own client (`hastezoo.hub`); this is for the rest.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.files import write_json

CHUNK = 1 << 20
RETRIES = 5
TIMEOUT = 30  # seconds without a byte
PASSING = {408, 429, 500, 502, 503, 504}

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be, if the server says."""


def download(url: str, path: Path, *, sha256: str | None = None, progress: Progress = lambda done, total: None) -> Path:
    """Fetch a link into a file, if it is not there. What an interrupted call left is continued, if the server still has
    the same file.

    Args:
        url: http(s).
        path: Final name; until it is whole the bytes lie beside it in `NAME.part`.
        sha256: What the bytes must have, where it is known.
        progress: Called after every megabyte.

    Raises:
        UserError: If the server refuses or cannot be reached, or the bytes are not those expected.
    """
    if path.is_file() and sha256 in (None, sha256_of(path)):
        return path
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(RETRIES):
        before = _size(part)
        try:
            if _receive(url, part, progress):
                break
            problem = f"the connection ended after {_size(part):,} bytes"
        except urllib.error.HTTPError as error:
            if error.code not in PASSING:
                raise UserError(f"{url} answered {error.code} {error.reason}; the link may be dead") from None
            problem = f"it answers {error.code} {error.reason}"
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < RETRIES and _size(part) <= before:
            time.sleep(min(2**attempt, 8))
    else:
        kept = f" ({_size(part):,} bytes are kept; the same command goes on)" if _size(part) else ""
        raise UserError(f"{url} cannot be fetched: {problem}{kept}")
    if sha256 is not None and (found := sha256_of(part)) != sha256:
        _discard(part)
        raise UserError(f"{url}: the file has sha256 {found[:12]}..., expected {sha256[:12]}...; nothing was kept")
    part.replace(path)
    _discard(part)
    return path


def _receive(url: str, part: Path, progress: Progress) -> bool:
    """One connection's worth of bytes; whether the file is whole now."""
    state = _state(part)
    have = _size(part) if state.get("etag") else 0
    request = urllib.request.Request(url, headers={"User-Agent": "hastezoo", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", state["etag"])
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have and have == state.get("total"):  # nothing is left to send
            return True
        raise
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            _discard(part)  # another part than was asked for: begin anew
            return False
        length = response.headers.get("Content-Length")
        start = have if resumed else 0
        total = start + int(length) if length else None
        _check_type(url, response.headers.get("Content-Type", ""))
        etag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if etag and not etag.startswith("W/"):
            write_json(_state_path(part), {"etag": etag, "total": total})
        else:
            _state_path(part).unlink(missing_ok=True)
        done = start
        with part.open("ab" if resumed else "wb") as stream:
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                done += len(chunk)
                progress(done, total)
    return total is None or done == total


def _check_type(url: str, kind: str) -> None:
    """File hosts answer a dead or popular link with a page and status 200."""
    if kind.startswith("text/html"):
        raise UserError(f"{url} answers with a web page, not a file: the link is dead, or wants a person to click")


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _state(part: Path) -> dict[str, Any]:
    """What is known of a partial file; empty where it cannot be continued."""
    try:
        state = json.loads(_state_path(part).read_text(encoding="utf-8")) if part.exists() else {}
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)
