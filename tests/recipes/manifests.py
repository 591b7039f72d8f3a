"""A manifest written by hand: what the recipes ask of a data set before they open it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hastezoo.data.manifest import LatentInfo, Manifest, Shard


def write_manifest(folder: Path, *, side: int = 32, classes: int = 1000, samples: int = 3000, **changes: Any) -> Path:
    """A folder with a manifest of two shards of 5 and 7 GB, which are not there."""
    few = [0.0] * 4
    values: dict[str, Any] = {
        "name": "folder",
        "resolution": 8 * side,
        "samples": samples,
        "classes": [f"class {index}" for index in range(classes)],
        "counts": [0] * classes,
        "crop": "adm-centre",
        "flip": False,
        "image_format": "png",
        "latents": LatentInfo(
            vae="stabilityai/sd-vae-ft-mse", shape=(4, side, side), mean=few, std=few, posterior_std=few
        ),
        "source": "nowhere",
        "source_fingerprint": "0",
        "shards": [
            Shard(file=f"{index}.arrow", rows=samples // 2, bytes=size, sha256=str(index) * 64)
            for index, size in enumerate((5 * 10**9, 7 * 10**9))
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    Manifest.model_validate(values | changes).write(folder)
    return folder
