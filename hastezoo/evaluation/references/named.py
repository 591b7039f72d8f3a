"""References by name: published files that a user fetches, listed in named.toml."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError
from hastezoo.evaluation.references.cache import folder


class NamedReference(BaseModel):
    """A published file of statistics.

    Attributes:
        name: What a user types.
        description: What it is of.
        file: Its name where it is published.
        url: Where it, or the page that links to it, is.
        bytes, sha256: Of the file; None and empty where nobody here knows them.
        count: Images behind its mu and sigma, by its makers' statement; None where they state none.
        note: What to know before comparing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    file: str
    url: str
    bytes: int | None = None
    sha256: str = ""
    count: int | None = None
    note: str = ""

    @property
    def place(self) -> Path:
        """Where a user puts it."""
        return folder() / self.file

    def find(self) -> Path | None:
        """The file: as it is published, or as NAME.npz; None where it is not here."""
        return next((path for path in (self.place, folder() / f"{self.name}.npz") if path.is_file()), None)

    @property
    def verifiable(self) -> bool:
        """Whether there is anything to tell the file from another by."""
        return bool(self.sha256 or self.bytes)

    @property
    def how_to_get(self) -> str:
        """Where it is to be had, its size, and where it goes."""
        size = f" ({self.bytes:,} bytes)" if self.bytes else ""
        return f"get {self.file}{size} from {self.url} and put it at {self.place}"

    def path(self) -> Path:
        """The file, of the right size.

        Raises:
            UserError: If it is not here, or is not the published one.
        """
        path = self.find()
        if path is None:
            raise UserError(f"the reference {self.name} is not here: {self.how_to_get}, or name the file by its path")
        size = path.stat().st_size
        if self.bytes is not None and size != self.bytes:
            raise UserError(
                f"{path} has {size:,} bytes, and {self.file} has {self.bytes:,}: it is truncated or another file; "
                f"fetch it again from {self.url}"
            )
        if self.sha256 and recorded_sha256(path) != self.sha256:
            raise UserError(f"{path} has not the sha256 of {self.file} ({self.sha256}); fetch it again from {self.url}")
        return path


def recognised(path: Path) -> NamedReference | None:
    """The published file that a path holds, wherever it lies: of its name and, where that is known, its size."""
    for known in named_references().values():
        if path.name == known.file and known.bytes in (None, path.stat().st_size):
            return known
    return None


@functools.cache
def named_references() -> dict[str, NamedReference]:
    """All of them by name."""
    tables = tomllib.loads((Path(__file__).parent / "named.toml").read_text(encoding="utf-8"))
    return {name: NamedReference(name=name, **table) for name, table in tables.items()}
