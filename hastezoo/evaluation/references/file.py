"""A reference as a file of ours: safetensors with statistics and features, and what they are of in the metadata."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import save

from hastezoo import __version__
from hastezoo.errors import UserError, explain
from hastezoo.evaluation.extractors import Extractor
from hastezoo.evaluation.npz import refuse_pointer
from hastezoo.evaluation.references.reference import FEATURES, PAIRS, Reference
from hastezoo.evaluation.statistics import Moments
from hastezoo.files import atomic_write
from hastezoo.zoo.modelfile import open_tensors

FORMAT = "hastezoo-reference-1"
FACTS = "reference"  # the metadata's key


class Facts(BaseModel):
    """What a file says of itself.

    Attributes:
        features: The name of the extractor.
        extractor: All that its numbers depend on.
        source, source_identity: Where the images are from, and which they are.
        count, shape, lossy, missing, stated, verified: As in `Reference`.
        sha256: Of all tensors, since the format has no checksum.
        hastezoo, date: With which version and when it was made.
    """

    model_config = ConfigDict(frozen=True)

    features: str
    extractor: dict[str, str]
    source: str
    source_identity: dict[str, str]
    count: int | None
    shape: tuple[int, int, int] | None
    lossy: bool | None
    missing: dict[str, str] = {}
    stated: bool = False
    verified: bool | None = None
    sha256: str
    hastezoo: str = ""
    date: str = ""


def write_reference(path: Path, reference: Reference, extractor: Extractor) -> None:
    """Write a reference, whole or not at all.

    Args:
        path: Its final name.
        reference: What to write.
        extractor: What its features were made with.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, moments in reference.moments.items():
        mean, covariance = PAIRS[name]
        tensors |= {mean: moments.mean, covariance: moments.covariance}
    if reference.features is not None:
        tensors[FEATURES] = reference.features
    # The library writes what is not contiguous in the order of memory.
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    facts = Facts(
        features=extractor.name,
        extractor=extractor.identity,
        source=reference.description,
        source_identity=reference.identity,
        count=reference.count,
        shape=reference.shape,
        lossy=reference.lossy,
        missing=reference.missing,
        stated=reference.stated,
        verified=reference.verified,
        sha256=_sha256(tensors),
        hastezoo=__version__,
        date=datetime.date.today().isoformat(),
    )
    atomic_write(path, save(tensors, {"format": FORMAT, FACTS: facts.model_dump_json()}))


def read_facts(path: Path) -> tuple[Facts, dict[str, str]]:
    """What a file says of itself, and the dtype and shape of each of its tensors in words; no tensor is read.

    Raises:
        UserError: If it is no such file.
    """
    refuse_pointer(path)
    with open_tensors(path, "numpy") as file:
        facts = _facts(path, file.metadata() or {})
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        return facts, {name: f"{one.get_dtype()} {tuple(one.get_shape())}" for name, one in slices.items()}


def read_reference(path: Path, extractor: Extractor, name: str = "") -> Reference:
    """A reference from a file.

    Args:
        path: The file.
        extractor: What it is to be used with.
        name: Its name, if that is not the file's.

    Raises:
        UserError: If it is no such file, is damaged, or was made with another extractor.
    """
    refuse_pointer(path)
    with open_tensors(path, "numpy") as file:
        facts = _facts(path, file.metadata() or {})
        if facts.extractor != extractor.identity:
            raise UserError(
                f"{path} holds {facts.features} features ({_words(facts.extractor)}), not those asked for: "
                f"{extractor.name} ({_words(extractor.identity)}); build it anew with these"
            )
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if _sha256(tensors) != facts.sha256:
        raise UserError(f"{path} is damaged: its tensors have not the sha256 that it states; build it anew")
    return Reference(
        name=name or str(path),
        description=facts.source,
        identity=facts.source_identity,
        count=facts.count,
        moments={
            feature: Moments(tensors[mean], tensors[covariance], facts.count or 0)
            for feature, (mean, covariance) in PAIRS.items()
            if mean in tensors
        },
        features=tensors.get(FEATURES),
        missing=facts.missing,
        shape=facts.shape,
        lossy=facts.lossy,
        stated=facts.stated,
        verified=facts.verified,
    )


def _facts(path: Path, metadata: dict[str, str]) -> Facts:
    found = metadata.get("format")
    if found != FORMAT:
        what = f"of the format {found}" if found else "of another program"
        raise UserError(f"{path} is no reference ({FORMAT}) but {what}; `hastezoo reference build` makes one")
    try:
        return Facts.model_validate_json(metadata.get(FACTS, ""))
    except ValidationError as error:
        raise UserError(explain(error, Facts, str(path))) from None


def _sha256(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(json.dumps([name, str(tensors[name].dtype), tensors[name].shape]).encode())
        digest.update(tensors[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _words(identity: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in identity.items())
