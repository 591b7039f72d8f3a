"""The one door to the Hugging Face Hub: `huggingface_hub` does the work, its errors become one line each.

Tokens, gated repositories, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_HOME`, locks between processes and xet are the
library's own. What is added: where the Hub states a file's sha256, the bytes are held against it once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError

PREFIX = "hub:"
DEFAULT_FILE = "model.safetensors"
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt")
_PLACE = re.compile(r"hub:(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+?))?(:(?P<file>[^:]+))?")


class Unreachable(UserError):
    """The Hub did not answer, or is not to be asked, so asking it for another file is of no use."""


@dataclass(frozen=True)
class Place:
    """A file in a repository of models; without `file`, its only file of weights."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return (
            f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "") + f":{self.file}" * bool(self.file)
        )


def parse(text: str) -> Place:
    """Read `hub:owner/repo[@revision][:file]`.

    Raises:
        UserError: If the text is something else, or its file leaves the repository.
    """
    found = _PLACE.fullmatch(text)
    if not found:
        raise UserError(f"{text!r} is no place on the Hub; write hub:owner/repo, hub:owner/repo@revision:file")
    place = Place(found["repo"], found["revision"], found["file"])
    for part in (place.repo, place.file or "", place.revision or ""):
        if ".." in part.split("/") or part.startswith("/"):
            raise UserError(f"{text!r} leaves the repository; name a file inside it")
    return place


def fetch(place: Place) -> Path:
    """The file, from the Hub's cache or the Hub.

    Raises:
        UserError: If it is not to be had, with the reason; or its bytes are not those the Hub states.
    """
    from huggingface_hub import hf_hub_download

    file = place.file or _only_weights(place)
    shown = Place(place.repo, place.revision, file)
    try:
        path = Path(hf_hub_download(place.repo, file, revision=place.revision, library_name="hastezoo"))
    except Exception as error:
        raise explained(error, shown) from None
    _verify(path, shown)
    return path


def cached(place: Place) -> Path | None:
    """The file if the Hub's cache has it; no request is made. `place` names a file."""
    from huggingface_hub import try_to_load_from_cache

    assert place.file is not None
    path = try_to_load_from_cache(place.repo, place.file, revision=place.revision)
    return Path(path) if isinstance(path, str) else None


def _verify(path: Path, place: Place) -> None:
    """A large file's blob is named by its sha256. Plain downloads are checked by size alone, so check the rest here."""
    if not path.is_symlink():  # where the system has no links, the cache does not keep the name
        return
    blob = path.parent / path.readlink()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and recorded_sha256(blob) != blob.name:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise UserError(
            f"{place}: the bytes that came do not have the sha256 the Hub states; nothing was kept, try again"
        )


def _only_weights(place: Place) -> str:
    """The repository's file of weights where none is named: model.safetensors, or the only one there is."""
    from huggingface_hub import HfApi

    if cached(Place(place.repo, place.revision, DEFAULT_FILE)) is not None:
        return DEFAULT_FILE
    try:
        files = HfApi(library_name="hastezoo").list_repo_files(place.repo, revision=place.revision)
    except Exception as error:
        raise explained(error, place) from None
    found = [file for file in files if file.endswith(WEIGHTS)]
    if DEFAULT_FILE in found:
        return DEFAULT_FILE
    if len(found) == 1:
        return found[0]
    shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    what = f"holds several files of weights ({shown})" if found else "holds no file of weights"
    raise UserError(f"{place} {what}; name one: {place}:FILE")


def explained(error: Exception, place: Place) -> UserError:
    """The library's errors, which run over many lines, as one that says what to do."""
    from huggingface_hub import errors

    cause = error.__cause__ if isinstance(error.__cause__, Exception) else None
    kind = UserError
    if isinstance(error, errors.GatedRepoError):
        reason = (
            f"the repository is gated; accept its terms at https://huggingface.co/{place.repo}, then `hf auth login`"
        )
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = "there is no such repository, or it is private (`hf auth login`, or set HF_TOKEN)"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = f"there is no revision {place.revision!r}"
    elif isinstance(error, errors.LocalEntryNotFoundError):
        kind, reason = Unreachable, _unreachable(cause)
    elif isinstance(error, errors.EntryNotFoundError):
        reason = "the repository has no such file"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        kind, reason = Unreachable, _unreachable(error)
    else:
        reason = _first_line(error)
    return kind(f"{place}: {reason}")


def _unreachable(cause: Exception | None) -> str:
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE or isinstance(cause, errors.OfflineModeIsEnabled):
        return "not in the local cache, and offline mode is on (HF_HUB_OFFLINE)"
    detail = f" ({_first_line(cause)})" if cause else ""
    return f"not in the local cache, and the Hub cannot be reached{detail}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
