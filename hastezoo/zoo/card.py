"""The schema of a checkpoint's card: everything there is to know of it before its weights are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

Status = Literal["embedded", "hub", "upstream", "recipe-only"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """A file of weights. `file` lies beside the card, or in `zoo/embedded` for the package's own cards."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Autoencoder(_Strict):
    """How pixels become what the model sees; `identity` for models of pixels."""

    kind: Literal["identity"] = "identity"


class Training(_Strict):
    """How the weights came about."""

    recipe: str
    steps: int
    batch_size: int
    seconds: float | None = None
    device: str = ""
    command: str = ""


class Result(_Strict):
    """One number, and where it is from.

    Attributes:
        short: The metric's name in tables.
        kind: `measured` by `source`, a command of this repository, or `reported` by `source`, a publication.
    """

    metric: str
    short: str = ""
    value: float
    kind: Literal["measured", "reported"]
    source: str
    protocol: str = ""
    count: int | None = None
    note: str = ""


class Card(_Strict):
    """A checkpoint.

    Attributes:
        name: What the user types.
        architecture: A name of `models.registry`; `config` overrides its values.
        parameters: Trained parameters.
        method: How it was trained.
        path: The interpolant its velocity belongs to.
        resolution: Side of the images in pixels.
        classes: Name of the list of class names in `conditioning/classes`.
        protocol: Name of the default protocol in `protocols.toml`.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    description: str = ""
    architecture: str
    config: dict[str, Any] = {}
    parameters: int
    method: Literal["plain", "repa", "haste"]
    path: Literal["linear", "cosine"] = "linear"
    resolution: int
    autoencoder: Autoencoder = Autoencoder()
    classes: str
    protocol: str
    status: Status
    weights: Weights | None = None
    licence: str
    data: str = ""
    papers: list[str] = []
    training: Training | None = None
    results: list[Result] = []

    _folder: Path = PrivateAttr(default_factory=Path)

    @property
    def weights_path(self) -> Path | None:
        """Where the file of weights should be, if the card names one."""
        return self._folder / self.weights.file if self.weights else None

    def best(self, kind: str) -> Result | None:
        """The first result of that kind, for tables."""
        return next((result for result in self.results if result.kind == kind), None)
