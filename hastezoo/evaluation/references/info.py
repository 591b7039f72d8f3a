"""What a reference holds, without computing anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hastezoo.digests import recorded_sha256
from hastezoo.evaluation.extractors import POOL, SPATIAL
from hastezoo.evaluation.images import check_ending, open_images
from hastezoo.evaluation.images.arrays import IMAGES
from hastezoo.evaluation.npz import Archive
from hastezoo.evaluation.references import OWN, STATED, find_file
from hastezoo.evaluation.references.arrays import read_count
from hastezoo.evaluation.references.file import read_facts
from hastezoo.evaluation.references.named import named_references
from hastezoo.evaluation.references.reference import FEATURES, PAIRS

# What each metric is computed of.
NEEDS = {"fid": POOL, "sfid": SPATIAL, "precision": FEATURES, "recall": FEATURES, "kid": FEATURES}


def describe_reference(text: str) -> dict[str, Any]:
    """What a name or path stands for, as plain values for JSON; headers are read, and bytes only for a digest.

    Returns:
        Of everything `name`, `kind` (reference, npz, images, absent) and `metrics` (those it allows). Further, where it
        applies: `path`, `bytes`, `sha256`, `arrays` (dtype and shape of each), `count` (images behind the statistics),
        `images` (how many it holds itself), `shape`, `lossy`, `features`, `extractor`, `source`, `missing`, `get`,
        `note`.

    Raises:
        UserError: If there is nothing of the kind, or it is damaged.
    """
    known = named_references().get(text)
    if known is not None and known.find() is None:
        about = {"source": known.description, "get": known.how_to_get, "note": known.note}
        return {"name": text, "kind": "absent", "metrics": [], "count": known.count, **about}
    path = find_file(text)
    if path is None:
        return {"name": text, **_of_images(text)}
    check = _of_own if path.suffix == OWN else _of_npz
    found = check(path)
    if known is not None:
        found |= {"count": known.count, "source": known.description, "note": known.note}
    return {"name": text, "path": str(path), "bytes": path.stat().st_size, "sha256": recorded_sha256(path), **found}


def _of_own(path: Path) -> dict[str, Any]:
    facts, arrays = read_facts(path)
    held = {feature for feature, (mean, _) in PAIRS.items() if mean in arrays} | {FEATURES} & arrays.keys()
    kept = ("count", "shape", "lossy", "features", "extractor", "source", "missing", "hastezoo", "date")
    values = facts.model_dump(mode="json")
    return {"kind": "reference", "arrays": arrays, "metrics": _allowed(held), **{key: values[key] for key in kept}}


def _of_npz(path: Path) -> dict[str, Any]:
    check_ending(path)
    with Archive(path) as archive:
        members = {key: archive.member(key) for key in archive.keys}
        count = read_count(archive)
    arrays = {key: f"{member.dtype} {member.shape}" for key, member in members.items()}
    stated = {feature for feature, pair in PAIRS.items() if set(pair) <= arrays.keys()}
    images = members.get(IMAGES)
    if not stated:
        return _of_images(str(path)) | {"arrays": arrays}
    return {
        "kind": "npz",
        "arrays": arrays,
        "count": count,
        "images": images.shape[0] if images else None,
        "shape": list(images.shape[1:]) if images else None,
        "features": STATED,
        "metrics": _allowed(stated | ({FEATURES} if images else set())),
        "missing": ({} if SPATIAL in stated else {SPATIAL: f"no {' and '.join(PAIRS[SPATIAL])}"})
        | ({} if images else {FEATURES: f"no images ({IMAGES})"}),
    }


def _of_images(text: str) -> dict[str, Any]:
    """Everything can be had of images."""
    images = open_images(text)
    return {
        "kind": "images",
        "count": images.count,
        "images": images.count,
        "shape": list(images.shape),
        "lossy": images.lossy,
        "source": images.description,
        "identity": images.identity,
        "metrics": list(NEEDS),
    }


def _allowed(held: set[str]) -> list[str]:
    return [metric for metric, need in NEEDS.items() if need in held]
