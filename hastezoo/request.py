"""A request for images: everything that decides them and their files, as `samples.json` keeps it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hastezoo import __version__
from hastezoo.conditioning.prompts import slug
from hastezoo.errors import UserError, explain
from hastezoo.sampling.protocol import Protocol

RECORD = "samples.json"
PNG_KEY = "hastezoo"  # of the text in a PNG file
OF_TEXT = ("text_encoder", "text_encoder_sha256", "prompts", "negative")  # of a request


class Request(BaseModel):
    """Everything that decides the images and their files; written into samples.json.

    Attributes:
        weights, vae: What was named instead of the card's, and the autoencoder used; their digests pin both.
        text_encoder: The one used, of a model of text; its digest pins it.
        labels, seeds: One per image, in order; of a model of text a label is the number of its prompt.
        prompts, negative: Of a model of text: what is drawn, and what guidance leads away from.
        conditions: How many conditions were crossed with seeds, for the shape of the grid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    weights: str | None = None
    weights_sha256: str
    vae: str | None = None
    vae_sha256: str = ""
    vae_tiling: bool = False
    text_encoder: str | None = None
    text_encoder_sha256: str = ""
    protocol: Protocol
    prompts: list[str] = []
    negative: str = ""
    labels: list[Annotated[int, Field(ge=0)]]
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=1)
    conditions: int = Field(1, ge=1)
    batch_size: int = Field(ge=1)
    device: str
    dtype: str
    compile: bool = False
    format: Literal["png", "npz", "webp"] = "png"

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.labels) != len(self.seeds):
            raise ValueError(f"{len(self.labels)} labels do not pair with {len(self.seeds)} seeds")
        if self.prompts and self.labels and max(self.labels) >= len(self.prompts):
            raise ValueError(f"label {max(self.labels)} names none of the {len(self.prompts)} prompts")
        return self

    @property
    def asked(self) -> list[int] | list[str]:
        """The label or the prompt of each image."""
        return [self.prompts[label] for label in self.labels] if self.prompts else list(self.labels)

    @property
    def marks(self) -> list[str]:
        """What each image is of, for its file's name."""
        if not self.prompts:
            return [f"class{label}" for label in self.labels]
        words = [slug(prompt) or f"prompt{number}" for number, prompt in enumerate(self.prompts)]
        return [words[label] for label in self.labels]


def read_record(path: Path) -> Request:
    """The request in a samples.json (or in the folder that holds one).

    Raises:
        UserError: If it cannot be read or is no such file.
    """
    path = path / RECORD if path.is_dir() else path
    try:
        return Request.model_validate(json.loads(path.read_text(encoding="utf-8"))["request"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(explain(error, Request, str(path))) from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{path} is not a samples.json of hastezoo") from None


def with_recorded_batch_size(request: Request, out: Path) -> Request:
    """The request with the batch size of the same job in `out`, if one began there.

    For a batch size of "auto", which may come out differently when another program holds memory: going on with what
    the job began with keeps its images the same.
    """
    if not (out / RECORD).exists():
        return request
    begun = read_record(out / RECORD)
    adopted = request.model_copy(update={"batch_size": begun.batch_size})
    return adopted if adopted == begun else request


def dumped(request: Request) -> dict[str, Any]:
    """What is written: of a request for classes nothing about text."""
    return request.model_dump(mode="json", exclude=set() if request.prompts else set(OF_TEXT))


def described(request: Request, index: int) -> dict[str, Any]:
    """What decided image `index`, as its PNG file carries it: no path, no date, and nothing of the machine."""
    label = request.labels[index]
    subject = {"prompt": request.prompts[label]} if request.prompts else {"class": label}
    always = {
        "hastezoo": __version__,
        "model": request.model,
        "weights_sha256": request.weights_sha256,
        **subject,
        "seed": request.seeds[index],
        "sampling": request.protocol.model_dump(mode="json", exclude={"count"}),
        "batch_size": request.batch_size,
        "dtype": request.dtype,
    }
    kept = ("negative", "vae_sha256", "vae_tiling", "text_encoder_sha256", "compile")
    return always | {key: getattr(request, key) for key in kept if getattr(request, key)}


def png_text(request: Request, index: int) -> dict[str, str]:
    """The text of the PNG file of image `index`: the same image of the same request has the same bytes everywhere."""
    return {PNG_KEY: json.dumps(described(request, index), ensure_ascii=True, sort_keys=True)}
