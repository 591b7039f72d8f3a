"""What `hastezoo sample` left in a folder: which files are its images, and of which class each is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hastezoo.errors import UserError

RECORD = "samples.json"  # beside which lie pictures that are no samples: a grid, an animation
ARRAYS = "samples.npz"


@dataclass(frozen=True)
class Samples:
    """The images of a sampling job.

    Attributes:
        files: Their names in order; ARRAYS for each where they are in that.
        labels: int64 (N,); None of a model of text.
        model: What drew them.
    """

    files: list[str]
    labels: np.ndarray | None
    model: str


def read_samples(folder: Path) -> Samples | None:
    """The samples that a folder's samples.json names; None where there is none.

    Raises:
        UserError: If it is no record of ours, or images that it names are missing.
    """
    record = folder / RECORD
    if not record.exists():
        return None
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        text = bool(content["request"].get("prompts"))
        rows = [(str(row["file"]), 0 if text else int(row["class"])) for row in content["samples"]]
        model = str(content["request"]["model"])
    except OSError as error:
        raise UserError(f"{record} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{record} is not a samples.json of hastezoo; take it away, and every image counts") from None
    files = [file for file, _ in rows]
    if not files or any(Path(file).name != file for file in files):
        raise UserError(f"{record} names no files of its folder; take it away, and every image counts")
    missing = [file for file in dict.fromkeys(files) if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing):,} of the {len(set(files)):,} files that its {RECORD} names, such as "
            f"{missing[0]}; the same `hastezoo sample` command goes on"
        )
    return Samples(files, None if text else np.array([label for _, label in rows], np.int64), model)
