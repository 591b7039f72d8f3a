"""The schema of a checkpoint's card: everything there is to know of it before its weights are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

Status = Literal["embedded", "hub", "upstream", "recipe-only"]
Format = Literal["hastezoo", "sit", "repa", "haste", "mmdit"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _inside(path: str) -> str:
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        raise ValueError("names a place outside its folder")
    return path


RelativePath = Annotated[str, Field(min_length=1), AfterValidator(_inside)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weights(_Strict):
    """A file of weights. `file` lies beside the card, or in `zoo/embedded` for the package's own cards."""

    file: RelativePath
    sha256: Digest
    bytes: int = Field(gt=0)


class Origin(_Strict):
    """Where somebody hosts the weights: a Hub repository, a direct link, or a page to fetch a file from by hand.

    Attributes:
        repo, revision: Of the Hugging Face Hub.
        url: A direct link.
        page: Where a person finds the file.
        file: Its name there.
        format: What is in it: our own safetensors, or which family of foreign checkpoints.
        sha256, bytes: Where they are known. A digest that is not known is recorded at the first download.
        note: What to know before trusting it.
    """

    repo: str | None = Field(None, pattern=r"^\w[\w.-]*/\w[\w.-]*$")
    revision: str | None = None
    url: str | None = Field(None, pattern=r"^(https://|http://(127\.0\.0\.1|localhost)[:/])")
    page: str | None = Field(None, pattern=r"^https://")
    file: RelativePath
    format: Format
    sha256: Digest | None = None
    bytes: int | None = None
    note: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.repo, self.url, self.page)) != 1:
            raise ValueError("an origin has exactly one of repo, url, page")
        return self

    @property
    def downloadable(self) -> bool:
        """Whether a program can fetch it."""
        return self.page is None

    def __str__(self) -> str:
        if self.repo:
            return f"hub:{self.repo}" + (f"@{self.revision}" if self.revision else "") + f":{self.file}"
        return self.url or f"{self.file} at {self.page}"


class Autoencoder(_Strict):
    """How pixels become what the model sees.

    Attributes:
        kind: `identity` for models of pixels, `kl` for latents of an AutoencoderKL.
        repo: Its repository on the Hub.
        scale, bias: What the model sees is `scale * latent + bias`.
        downsampling: Pixels per latent position along each axis.
    """

    kind: Literal["identity", "kl"] = "identity"
    repo: str = ""
    scale: float = 1.0
    bias: float = 0.0
    downsampling: int = 1


class Text(_Strict):
    """What makes a condition of a prompt.

    Attributes:
        kind: `clip`: the last hidden states of a CLIP text encoder; `words`: numbers of words, of a model that encodes
            them itself and has its vocabulary in its configuration.
        repo: CLIP's repository on the Hub, or a folder; empty for words.
        length: Tokens or words of a prompt; what is longer is cut off.
    """

    kind: Literal["clip", "words"] = "clip"
    repo: str = ""
    length: int = Field(77, ge=2)

    @model_validator(mode="after")
    def _has_an_encoder(self) -> Self:
        if (self.kind == "clip") != bool(self.repo):
            raise ValueError("text of kind 'clip' has a repo, and of kind 'words' none")
        return self


class Training(_Strict):
    """How the weights came about."""

    batch_size: int
    seconds: float | None = None
    device: str = ""
    command: str = ""


class Result(_Strict):
    """One number, and where it is from.

    Attributes:
        metric: What it is, for people.
        short: The metric's name in tables.
        kind: `measured` by `source`, a command of this repository, or `reported` by `source`, a publication.
        protocol: Of `protocols.toml`; empty where the source does not state it.
        overrides: Settings of that protocol which the figure was taken with otherwise.
        count: Samples; where None, the protocol's.
        key: What it is, for an evaluation that looks for what to expect; empty where no evaluation measures it.
        features: Of which network, or pixels; inception unless told, where there is a key.
        reference: The named reference it was taken against: imagenet256, imagenet512, coco256-val, digits.
        step: Training step of the weights it is of, where that is not the card's.
        labels: How labels were drawn; empty where the source does not state it, so that the protocol says it.
    """

    metric: str
    short: str = ""
    value: float
    kind: Literal["measured", "reported"]
    source: str
    protocol: str = ""
    overrides: dict[str, Any] = {}
    count: int | None = None
    note: str = ""
    key: Literal["", "fid", "sfid", "is", "precision", "recall", "kid"] = ""
    features: str = ""
    reference: str = ""
    step: int | None = Field(None, gt=0)
    labels: Literal["", "random", "balanced"] = ""

    @model_validator(mode="before")
    @classmethod
    def _of_inception(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("key") and not values.get("features"):
            return {**values, "features": "inception"}
        return values


class Card(_Strict):
    """A checkpoint.

    Attributes:
        name: What the user types.
        architecture: A name of `models.registry`; `config` overrides its values.
        parameters: Trained parameters.
        method: How it was trained.
        path: The interpolant its velocity belongs to.
        resolution: Side of the images in pixels.
        classes: Name of the list of class names in `conditioning`; None for a model of text.
        text: What makes a condition of a prompt; None for a model of classes.
        protocol: Name of the default protocol in `protocols.toml`.
        status: `embedded` in the package, on the `hub` as our own file, `upstream` as somebody's file that the
            converter reads, or `recipe-only`: no weights anywhere that we know of.
        origins: Where to get it, best first.
        steps: Training steps of the hosted weights; of a recipe-only card, what the recipe is meant to run.
        recipe: The module of `hastezoo.recipes` that trains it, in this version or a later one.
        redistribution: Whether the weights may be passed on: the licence allows it, or states nothing, or forbids it.
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
    classes: str | None = None
    text: Text | None = None
    protocol: str
    status: Status
    weights: Weights | None = None
    origins: list[Origin] = []
    steps: int | None = Field(None, gt=0)
    recipe: str = ""
    licence: str
    redistribution: Literal["allowed", "unstated", "forbidden"] = "unstated"
    data: str = ""
    papers: list[str] = []
    training: Training | None = None
    results: list[Result] = []

    _folder: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="after")
    def _draws_from_something(self) -> Self:
        if (self.classes is None) == (self.text is None):
            raise ValueError("a card has either classes or text")
        return self

    @model_validator(mode="after")
    def _names_its_words(self) -> Self:
        if self.text is None or self.text.kind != "words":
            return self
        words = self.config.get("words")
        if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) for word in words):
            raise ValueError("a card with text of kind 'words' has a list of them, its config's words")
        if self.config.get("context_length", self.text.length) != self.text.length:
            raise ValueError("the length of its text is not its config's context_length")
        return self

    @model_validator(mode="after")
    def _status_is_true(self) -> Self:
        ours = any(origin.format == "hastezoo" and origin.downloadable for origin in self.origins)
        foreign = any(origin.format != "hastezoo" for origin in self.origins)
        true = {
            "embedded": self.weights is not None,
            "hub": ours,
            "upstream": foreign,
            "recipe-only": self.weights is None and not self.origins,
        }
        if not true[self.status]:
            raise ValueError(f"status {self.status!r} does not fit its weights and origins")
        return self

    @property
    def weights_path(self) -> Path | None:
        """Where the file of weights should be, if the card names one."""
        return self._folder / self.weights.file if self.weights else None

    def best(self, kind: str) -> Result | None:
        """The first result of that kind, for tables."""
        return next((result for result in self.results if result.kind == kind), None)
