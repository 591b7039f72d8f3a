"""Samples in files: Arrow streams as the library `datasets` writes and maps them, one sample a row.

| column | |
|---|---|
| id | the source's name of the image |
| label | with the classes' names; or, where there are none: |
| captions | a list of texts |
| states | float16 (n, L, D): a text encoder's states of the n captions, as bytes |
| moments | float16 (2, C, h, w): mean and standard deviation of the posterior, unscaled, as bytes |
| mirrored | the same of the mirrored image, where the data set has them |
| image | PNG or JPEG |

Moments and states are binary columns: of equally long values Arrow keeps one block, which is read as an array without a
copy.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import BaseModel

from hastezoo.data.manifest import Manifest, Shard, Skipped
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.files import atomic_open, atomic_write, write_json

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

INFO = "dataset_info.json"  # as `datasets` calls it
ROWS = 64  # of a batch in the file: what a reader must touch to find one row stays small


@dataclass(frozen=True)
class Row:
    """A sample as it is written.

    Attributes:
        image: Bytes of a file.
        moments: float32 (2, C, h, w), unscaled.
        mirrored: The same of the mirrored image.
        captions: Where the data set has them; then `label` is not written.
        states: float16 (n, L, D), of each caption.
    """

    id: str
    label: int
    image: bytes
    moments: np.ndarray
    mirrored: np.ndarray | None = None
    captions: tuple[str, ...] = ()
    states: np.ndarray | None = None


class ShardRecord(BaseModel):
    """A finished shard, and the sums that the whole data set's statistics are made of.

    Attributes:
        shard: The file; None where nothing in the unit could be read.
        shape: (C, h, w).
        labels: How many of each; all are 0 where there are captions.
        captions: How many.
        sums, squares, stds: Per channel, of the means, their squares and the standard deviations; over positions.
        skipped: What could not be read.
    """

    shard: Shard | None
    shape: tuple[int, int, int] | None = None
    labels: dict[int, int] = {}
    captions: int = 0
    sums: list[float] = []
    squares: list[float] = []
    stds: list[float] = []
    skipped: list[Skipped] = []

    def write(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))


def features(classes: Sequence[str], flip: bool) -> datasets.Features:
    """The columns, as `datasets` describes them; without classes those of captions."""
    from datasets import ClassLabel, Features, Image, List, Value

    label = {"label": ClassLabel(names=list(classes))}
    text = {"captions": List(Value("string")), "states": Value("binary")}
    columns = {"id": Value("string"), **(label if classes else text), "moments": Value("binary")}
    mirrored = {"mirrored": Value("binary")} if flip else {}
    return Features({**columns, **mirrored, "image": Image(decode=True)})


class _Sums:
    """What a shard's record adds up, in float64."""

    def __init__(self) -> None:
        self.labels: Counter[int] = Counter()
        self.captions = 0
        self.shape: tuple[int, ...] | None = None
        self.totals = np.zeros((3, 1))

    def add(self, row: Row) -> None:
        mean, std = row.moments.astype(np.float64)
        if self.shape not in (None, mean.shape):
            raise UserError(f"the moments of {row.id} are of the shape {mean.shape}, those before it {self.shape}")
        self.labels[row.label] += 1
        self.captions += len(row.captions)
        self.shape = mean.shape
        self.totals = self.totals + np.stack([part.sum((1, 2)) for part in (mean, mean**2, std)])

    def record(self, shard: Shard | None, skipped: Sequence[Skipped]) -> ShardRecord:
        sums, squares, stds = self.totals.tolist()
        return ShardRecord(
            shard=shard,
            shape=self.shape,
            labels=dict(sorted(self.labels.items())),
            captions=self.captions,
            sums=sums, squares=squares, stds=stds, skipped=list(skipped),
        )  # fmt: skip


def write_shard(path: Path, rows: Iterable[Row | Skipped], columns: datasets.Features) -> ShardRecord:
    """Write rows under `path`, whole or not at all; what was skipped is noted.

    Raises:
        UserError: If moments have several shapes.
        OSError: If the disk is full, say; nothing is left then.
    """
    import pyarrow as pa

    schema, sums, count = columns.arrow_schema, _Sums(), 0
    skipped: list[Skipped] = []
    with atomic_open(path) as stream, pa.ipc.new_stream(stream, schema) as writer:
        for group in _groups(rows, skipped):
            for row in group:
                sums.add(row)
            writer.write_batch(_batch(group, schema))
            count += len(group)
    if not count:
        path.unlink()
        return sums.record(None, skipped)
    shard = Shard(file=path.name, rows=count, bytes=path.stat().st_size, sha256=sha256_of(path))
    return sums.record(shard, skipped)


def _groups(rows: Iterable[Row | Skipped], skipped: list[Skipped]) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if isinstance(row, Skipped):
            skipped.append(row)
            continue
        group.append(row)
        if len(group) == ROWS:
            yield group
            group = []
    if group:
        yield group


def _batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    values: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "label": [row.label for row in rows],
        "captions": [list(row.captions) for row in rows],
        "states": [None if row.states is None else row.states.astype("<f2").tobytes() for row in rows],
        "moments": [row.moments.astype("<f2").tobytes() for row in rows],
        "mirrored": [None if row.mirrored is None else row.mirrored.astype("<f2").tobytes() for row in rows],
        "image": [{"bytes": row.image, "path": None} for row in rows],
    }
    return pa.record_batch([pa.array(values[field.name], field.type) for field in schema], schema=schema)


def write_index(folder: Path, manifest: Manifest) -> None:
    """The two files by which `datasets.load_from_disk` knows the folder as one of its own."""
    from datasets import DatasetInfo

    info = DatasetInfo(
        description=f"{manifest.name}, prepared by hastezoo from {manifest.source}",
        features=features(manifest.classes, manifest.flip),
    )
    with tempfile.TemporaryDirectory() as own:
        info.write_to_directory(own)
        atomic_write(folder / INFO, (Path(own) / INFO).read_bytes())
    state: dict[str, Any] = {
        "_data_files": [{"filename": shard.file} for shard in manifest.shards],
        "_fingerprint": manifest.fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    write_json(folder / "state.json", state)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Whether every shard is there and of its size; their bytes are not read.

    Raises:
        UserError: If not, with which.
    """
    for shard in manifest.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size:,} bytes, not {shard.bytes:,}"
            raise UserError(f"the shard {path} {found}: copy it again, or prepare the data set anew")


def open_shards(folder: Path, manifest: Manifest) -> datasets.Dataset:
    """The rows of all shards, mapped into memory, to be read as Arrow tables.

    Raises:
        UserError: If a shard is missing or damaged.
    """
    from datasets import Dataset, concatenate_datasets

    check_files(folder, manifest)
    parts, columns = [], features(manifest.classes, manifest.flip)
    for shard in manifest.shards:
        try:
            part = Dataset.from_file(str(folder / shard.file))
        except Exception as error:  # damage shows in many ways
            raise UserError(damaged(folder / shard.file, error)) from None
        if part.features != columns:
            raise UserError(damaged(folder / shard.file, ValueError("its columns or classes are others")))
        if len(part) != shard.rows:
            raise UserError(damaged(folder / shard.file, ValueError(f"{len(part)} rows, not {shard.rows}")))
        parts.append(part)
    return concatenate_datasets(parts).with_format("arrow")


def damaged(path: Path, error: Exception) -> str:
    """One line about a shard that cannot be read."""
    reason = " ".join(str(error).split())[:120]
    return f"the shard {path} is damaged ({reason}): copy it again, or prepare the data set anew"
