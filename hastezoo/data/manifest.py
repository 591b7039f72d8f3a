"""What a prepared data set says of itself: `manifest.json`, without which it is not finished."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from hastezoo.data.images import ImageFormat
from hastezoo.errors import UserError, explain
from hastezoo.files import write_json

FILE = "manifest.json"
FORMAT = "hastezoo-data-1"
MOMENTS = "mean-std"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Skipped(_Record):
    """An image that could not be read, and why."""

    id: str
    reason: str


class Shard(_Record):
    """A file of samples.

    Attributes:
        file: Its name, in the data set's folder.
        rows, bytes, sha256: Of the file.
    """

    file: str
    rows: int
    bytes: int
    sha256: str


class LatentInfo(_Record):
    """What the moments are.

    Attributes:
        vae: The autoencoder, a repository of the Hub or a folder.
        revision: Its commit, where it is known.
        vae_sha256: Of its weights; empty where the moments were made elsewhere.
        input_range: Of the pixels it was fed.
        moments: `mean-std`: mean and standard deviation of the posterior, unscaled.
        dtype: As stored.
        shape: (C, h, w) of one latent.
        mean, std: Per channel, over all pixels of the means of all images, unscaled.
        posterior_std: Per channel, the mean of the posterior's standard deviations.
    """

    vae: str
    revision: str = ""
    vae_sha256: str = ""
    input_range: tuple[float, float] = (-1.0, 1.0)
    moments: str = MOMENTS
    dtype: Literal["float16"] = "float16"
    shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    posterior_std: list[float]


class TextFile(_Record):
    """The file with the empty caption's states."""

    file: str
    sha256: str


class TextInfo(_Record):
    """What the states of captions are.

    Attributes:
        encoder: The text encoder, a repository of the Hub or a folder.
        revision: Its commit, where it is known.
        encoder_sha256: Of its weights.
        length, width: L and D of a caption's states (L, D).
        dtype: As stored.
        captions: How many in all.
        empty: Where the states of the empty caption are.
    """

    encoder: str
    revision: str = ""
    encoder_sha256: str = ""
    length: int = Field(ge=1)
    width: int = Field(ge=1)
    dtype: Literal["float16"] = "float16"
    captions: int = Field(ge=1)
    empty: TextFile


class Manifest(_Record):
    """A prepared data set.

    Attributes:
        name: What was prepared: imagenet256, imagenet512, folder, coco256, captions.
        resolution: Side of the images in pixels.
        samples: Images in all.
        classes: Names by label; none where there are captions.
        counts: Images per class.
        crop: How images became square: ADM's centre crop, or as they were.
        flip: Whether there are moments of the mirrored images too.
        image_format: Of the images.
        latents: What the moments are.
        text: What the captions' states are; None where there are classes.
        source, source_fingerprint: Where the images are from, and which they were.
        shards: The files.
        skipped: Images that could not be read.
        date, hastezoo: When and with which version.
    """

    format: str = FORMAT
    name: str
    resolution: int = Field(ge=1)
    samples: int = Field(ge=1)
    classes: list[str]
    counts: list[int]
    crop: Literal["adm-centre", "none"]
    flip: bool
    image_format: ImageFormat
    latents: LatentInfo
    text: TextInfo | None = None
    source: str
    source_fingerprint: str
    shards: list[Shard]
    skipped: list[Skipped] = []
    date: str = ""
    hastezoo: str = ""

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A data set of classes says nothing of text, as before there were others."""
        written: dict[str, Any] = handler(self)
        if self.text is None:
            del written["text"]
        return written

    @property
    def fingerprint(self) -> str:
        """Changes when any sample does: a digest of the files' digests."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a data set.

        Raises:
            UserError: If there is none, or one that cannot be used, with what to do.
        """
        path = folder / FILE
        try:
            manifest = cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(_absent(folder)) from None
        except ValidationError as error:
            raise UserError(explain(error, cls, str(path))) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        if manifest.format != FORMAT:
            raise UserError(f"{path} is of the format {manifest.format}; this version reads {FORMAT}")
        if manifest.latents.moments != MOMENTS:
            raise UserError(
                f"{folder} holds moments of the kind {manifest.latents.moments}, not {MOMENTS}; prepare it again"
            )
        return manifest


def _absent(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; `hastezoo prepare` makes a data set"
    if (folder / "prepare.json").exists():
        return f"{folder} is not finished: type its `hastezoo prepare` command again, and it goes on"
    return f"{folder} is no prepared data set: it has no {FILE}; `hastezoo prepare` makes one from images"
