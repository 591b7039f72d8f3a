"""The records of finished shards: what a preparation, and every rank of it, knows of what is done."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from hastezoo.data.manifest import Skipped
from hastezoo.data.ranks import Ranks
from hastezoo.data.shards import ShardRecord
from hastezoo.files import PARTIAL

_RECORD = re.compile(r"shard-(\d+)\.json")
_PART = re.compile(r"\.shard-(\d+)\..+")


def record_of(dest: Path, unit: int) -> Path:
    """Where the record of a finished unit is."""
    return dest / f"shard-{unit:05d}.json"


class Records:
    """Those of a data set's units, read once each, as they appear.

    Attributes:
        known: By unit.
    """

    def __init__(self, dest: Path, units: int) -> None:
        self.dest, self.units = dest, units
        self.known: dict[int, ShardRecord] = {}
        self.look()

    def look(self) -> dict[int, ShardRecord]:
        """Read those that are new; they are the answer."""
        names = [found for name in os.listdir(self.dest) if (found := _RECORD.fullmatch(name))]
        new = {}
        for unit in sorted({int(name[1]) for name in names} - self.known.keys()):
            with contextlib.suppress(FileNotFoundError):  # it is made anew
                new[unit] = ShardRecord.read(record_of(self.dest, unit))
        self.known |= new
        return new

    @property
    def missing(self) -> list[int]:
        """Units without one."""
        return [unit for unit in range(self.units) if unit not in self.known]

    @property
    def in_order(self) -> list[ShardRecord]:
        return [self.known[unit] for unit in sorted(self.known)]

    @property
    def skipped(self) -> list[Skipped]:
        """All images that could not be read."""
        return [one for record in self.in_order for one in record.skipped]

    @property
    def images(self) -> int:
        """Read or skipped, in all."""
        return sum(images_of(record) for record in self.known.values())

    def forget_bad(self) -> None:
        """Have units with unreadable images made anew."""
        for unit, record in list(self.known.items()):
            if record.skipped:
                record_of(self.dest, unit).unlink(missing_ok=True)
                del self.known[unit]


def images_of(record: ShardRecord) -> int:
    """Images of a unit, read or skipped."""
    return (record.shard.rows if record.shard else 0) + len(record.skipped)


def remove_partials_of(dest: Path, ranks: Ranks) -> None:
    """Remove what a killed process left half-written, but no shard that another rank may be writing."""
    for path in dest.glob(f".*{PARTIAL}"):
        part = _PART.fullmatch(path.name)
        if part is None or ranks.owns(int(part[1])):
            path.unlink(missing_ok=True)
