"""What a preparation was begun with, kept beside its shards, so that nothing else goes on in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hastezoo.autoencoders import place_of
from hastezoo.conditioning import clip_files
from hastezoo.data.manifest import Manifest
from hastezoo.data.preparing import PrepareSettings
from hastezoo.data.source import Source
from hastezoo.errors import UserError

UNDER_WAY = "prepare.json"
NETWORKS = {"vae_sha256": "autoencoder", "text_encoder_sha256": "text encoder"}  # digests in it, and of what


def claim_of(source: Source, settings: PrepareSettings) -> dict[str, Any]:
    """What two commands must agree on to work on one data set."""
    return {
        "settings": settings.model_dump(mode="json"),
        "source": source.description,
        "fingerprint": source.fingerprint,
    }


def check_finished(dest: Path, claim: dict[str, Any]) -> Manifest:
    """The manifest of a finished data set.

    Raises:
        UserError: If the same command would make another one.
    """
    manifest = Manifest.read(dest)
    wanted, seen = {**claim["settings"], "vae": place_of(claim["settings"]["vae"])}, manifest
    have = {"name": seen.name, "resolution": seen.resolution, "flip": seen.flip, "image_format": seen.image_format}
    have["vae"] = place_of(seen.latents.vae)
    if wanted["text_encoder"] is not None:
        wanted["text_encoder"] = clip_files.place_of(wanted["text_encoder"])
    have["text_encoder"] = None if seen.text is None else clip_files.place_of(seen.text.encoder)
    for key, value in have.items():
        if wanted[key] != value:
            raise UserError(f"{dest} holds a data set with {key} {value}, not {wanted[key]}; give another DEST")
    if manifest.source_fingerprint != claim["fingerprint"]:
        raise UserError(f"{dest} holds a data set of other images ({manifest.source}); give another DEST")
    return manifest


def check_claim(dest: Path, claim: dict[str, Any]) -> None:
    """Whether a preparation may begin in a folder, or go on there.

    Raises:
        UserError: If it holds something else, or was begun otherwise.
    """
    path = dest / UNDER_WAY
    if not path.exists():
        others = [one.name for one in dest.iterdir() if not one.name.startswith(".")]
        if others:
            raise UserError(f"{dest} is not empty (it holds {sorted(others)[0]}); give another DEST")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for key, value in before["settings"].items():
        if claim["settings"].get(key) != value:
            raise UserError(
                f"{dest} was begun with {key} {value}, not {claim['settings'].get(key)}; go on so, or give another DEST"
            )
    for key, network in NETWORKS.items():
        if len({one[key] for one in (before, claim) if key in one}) > 1:
            raise UserError(f"the {network} has other weights than when {dest} was begun; give another DEST")
    if before["fingerprint"] != claim["fingerprint"]:
        raise UserError(f"the images of {claim['source']} are not those {dest} was begun with; give another DEST")
