"""What a model of text draws when it is measured: one caption of each image of a reference, by a rule that stays."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hastezoo.errors import UserError
from hastezoo.files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

    from hastezoo.conditioning.text import StoredText
    from hastezoo.data.prepared import Prepared

FROZEN = "coco-frozen"  # one caption an image by `data.coco.frozen_pairs`
LISTED = "as listed"
FILE = "prompts.csv"
KINDS = "COCO's captions_val2014.json, a prepared data set of captioned images, or a text file with a prompt a line"


@dataclass(frozen=True)
class PromptList:
    """The prompts of an evaluation, in the order in which they are drawn.

    Attributes:
        texts: The prompts.
        description: Where they are from.
        rule: How they were chosen: FROZEN, or LISTED.
        pairs: (image, number of its caption) of each, where they are captions.
        encoder: Of their states, where these are known.
    """

    texts: list[str]
    description: str
    rule: str
    pairs: list[tuple[int | str, int]] = field(default_factory=list)
    encoder: StoredText | None = None

    @cached_property
    def sha256(self) -> str:
        """Of all prompts in their order; the number that is drawn does not change it."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()

    def check(self, count: int) -> None:
        """Whether there is a prompt for each of so many images.

        Raises:
            UserError: If not.
        """
        if len(self.texts) < count:
            raise UserError(
                f"{self.description} has {len(self.texts):,} prompts, fewer than the {count:,} images to draw; "
                f"take -n {len(self.texts)} at most"
            )

    def write(self, folder: Path, count: int) -> Path:
        """Write which captions of which images were drawn into `prompts.csv`; its path."""
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["number", "image", "caption", "prompt"])
        for number, prompt in enumerate(self.texts[:count]):
            table.writerow([number, *(self.pairs[number] if self.pairs else ("", "")), prompt])
        atomic_write(folder / FILE, text.getvalue().encode())
        return folder / FILE


def open_prompts(text: str) -> PromptList:
    """Prompts by what a user types: one of KINDS.

    Raises:
        UserError: If it is nothing of the kind, or cannot be read.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return _of_prepared(path)
    if path.suffix == ".json":
        return _of_annotations(path)
    from hastezoo.conditioning.prompts import read_prompts

    if not path.exists():
        raise UserError(f"there is no file or folder {text} of prompts: it may be {KINDS}")
    return PromptList(read_prompts(path), str(path), LISTED)


def _of_annotations(path: Path) -> PromptList:
    from hastezoo.data.coco import frozen_pairs, read_annotations

    captions = {image.id: image.captions for image in read_annotations(path)[0]}
    pairs = frozen_pairs({number: len(each) for number, each in captions.items()}, len(captions))
    return PromptList([captions[image][which] for image, which in pairs], str(path), FROZEN, list(pairs))


def _of_prepared(folder: Path) -> PromptList:
    """The captions of a prepared data set, by the same rule, with the states that it keeps."""
    from hastezoo.conditioning.text import StoredText
    from hastezoo.data.coco import frozen_pairs, image_id_of
    from hastezoo.data.prepared import Prepared

    samples = Prepared(folder).without_images()
    about = samples.manifest.text
    if about is None:
        raise UserError(f"{folder} is a data set of classes: it has no captions to draw from; prompts may be {KINDS}")
    rows: dict[int, int] = {}
    for row, name in enumerate(samples.ids()):
        number = image_id_of(name)
        if number is None or number in rows:
            raise UserError(
                f"{folder}: {name!r} does not end in an image's number of its own, by which COCO names images"
            )
        rows[number] = row
    captions = {number: samples.captions(row) for number, row in rows.items()}
    pairs = frozen_pairs({number: len(each) for number, each in captions.items()}, len(captions))
    texts = [captions[image][which] for image, which in pairs]
    places = {text: (rows[image], which) for text, (image, which) in zip(texts, pairs, strict=True)}
    encoder = StoredText(
        _States(samples, places),
        length=about.length, width=about.width, source=about.encoder, sha256=about.encoder_sha256,
    )  # fmt: skip
    return PromptList(texts, str(folder), FROZEN, list(pairs), encoder)


class _States(Mapping[str, "Tensor"]):
    """Prompt -> states (L, D), read from a prepared data set when they are wanted; the empty prompt is among them."""

    def __init__(self, samples: Prepared, places: dict[str, tuple[int, int]]) -> None:
        self.samples, self.places = samples, places

    def __getitem__(self, prompt: str) -> Tensor:
        if prompt in self.places:
            return self.samples.caption_states(*self.places[prompt])
        null = self.samples.null
        if prompt or null is None:
            raise KeyError(prompt)
        return null

    def __iter__(self) -> Iterator[str]:
        return iter({**self.places, "": None})

    def __len__(self) -> int:
        return len({**self.places, "": None})
