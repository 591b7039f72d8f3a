"""The images of a data set that `hastezoo prepare` made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hastezoo.data.manifest import Manifest
from hastezoo.data.prepared import Prepared
from hastezoo.data.shards import open_shards


class PreparedImages:
    """The images that a model was trained on, as it saw them, unmirrored.

    Args:
        folder: The data set.

    Raises:
        UserError: If it is not finished, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        manifest = Manifest.read(folder)
        self._samples = Prepared(folder)
        self.count = manifest.samples
        self.shape = (manifest.resolution, manifest.resolution, 3)
        self.lossy: bool | None = manifest.image_format == "jpeg"
        self.labels: np.ndarray | None = None if manifest.text is not None else _labels(folder, manifest)
        self.description = f"{folder}, prepared from {manifest.source}"
        self.identity = {"kind": "prepared", "fingerprint": manifest.fingerprint}

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._samples.pictures(range(start, stop)).permute(0, 2, 3, 1).contiguous().numpy()


def _labels(folder: Path, manifest: Manifest) -> np.ndarray:
    column = open_shards(folder, manifest).select_columns(["label"])[:].column(0)
    return np.asarray(column.to_numpy(), np.int64)
