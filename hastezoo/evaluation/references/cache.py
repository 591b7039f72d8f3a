"""What was computed from images, kept for the next time: by what the images are and what saw them, never by a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import Extractor, digest
from hastezoo.evaluation.images import Images
from hastezoo.evaluation.references.file import FORMAT, read_reference, write_reference
from hastezoo.evaluation.references.reference import Reference, Say
from hastezoo.home import home


def folder() -> Path:
    """Where references are: those kept, and those that a user put there by hand."""
    return home() / "references"


def kept(what: str, images: Images, extractor: Extractor, make: Callable[[], Reference], say: Say) -> Reference:
    """A reference as it was computed before, or computed now and kept.

    Args:
        what: What of the images it holds.
        images, extractor: Of what, and with what.
        make: Computes it.
        say: Told which of the two it was.
    """
    path = folder() / f"{_key(what, images, extractor)}.safetensors"
    found = _read(path, images, extractor, say)
    if found is not None:
        say(f"{what} of {images.description}: computed before, read from {path}")
        return replace(found, description=images.description)
    reference = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_reference(path, reference, extractor)
        say(f"{what} of {images.description}: kept in {path}")
    except OSError as error:  # a store that cannot be written costs time, nothing else
        say(f"{what} of {images.description}: not kept, since {path} cannot be written ({error.strerror})")
    return reference


def _key(what: str, images: Images, extractor: Extractor) -> str:
    source = {f"source {key}": value for key, value in images.identity.items()}
    seen_by = {f"extractor {key}": value for key, value in extractor.identity.items()}
    return digest({"format": FORMAT, "what": what, **source, **seen_by})


def _read(path: Path, images: Images, extractor: Extractor, say: Say) -> Reference | None:
    if not path.exists():
        return None
    try:
        found = read_reference(path, extractor)
    except UserError as error:
        say(f"{error}; it is computed anew")
        return None
    return found if found.identity == images.identity else None
