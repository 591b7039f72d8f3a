"""Captioned images in COCO's format: a folder of images, and a JSON file with captions of them.

What is chosen of them, a subset to train on or the pairs that an evaluation draws, is chosen by digests of the images'
numbers, so that it is the same on every machine and whatever the order of the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from hastezoo.conditioning.prompts import clean
from hastezoo.data.folders import read_image
from hastezoo.data.source import Item
from hastezoo.errors import UserError

FIRST = 10  # images of which one must be there


@dataclass(frozen=True)
class Captioned:
    """An image and what is said of it.

    Attributes:
        id: COCO's number.
        name: Its file.
        captions: Cleaned, in the order of their annotations' numbers; at least one.
    """

    id: int
    name: str
    captions: tuple[str, ...]


class CocoSource:
    """Captioned images, in the order of their numbers; a `Source` without classes.

    Args:
        images: The folder of the images.
        annotations: Captions in COCO's format, such as captions_train2014.json.
        shard_size: Images a unit.
        limit: Take so many images only, those whose number has the smallest sha256 as `hastezoo coco subset NUMBER`.

    Attributes:
        without_captions: How many images were left out for want of a caption.

    Raises:
        UserError: If the file is no such annotations, the folder has none of the first images, or there are fewer
            images than `limit`.
    """

    has_moments = False

    def __init__(self, images: Path, annotations: Path, shard_size: int, limit: int | None = None) -> None:
        if images.is_file():
            raise UserError(f"{images} is a file; first comes the folder of images, then the file of captions")
        if not images.is_dir():
            raise UserError(f"there is no folder {images}")
        self.path, self.shard_size = images, shard_size
        every, self.without_captions = read_annotations(annotations)
        _check_folder(images, annotations, every)
        self.images = every if limit is None else _subset(every, limit, annotations)
        self.classes: list[str] = []
        self.total: int | None = len(self.images)
        self.units = -(-len(self.images) // shard_size)
        part = "" if limit is None else f", {limit:,} of {len(every):,} images"
        self.description = f"{images.resolve()} with {annotations.resolve()}{part}"
        digest = hashlib.sha256()
        for one in self.images:
            digest.update(f"{json.dumps([one.id, one.name, one.captions])}\n".encode())
        self.fingerprint = digest.hexdigest()

    @property
    def captions(self) -> int:
        """How many there are in all."""
        return sum(len(one.captions) for one in self.images)

    def items(self, unit: int) -> Iterator[Item]:
        for one in self.images[unit * self.shard_size : (unit + 1) * self.shard_size]:
            yield Item(one.name, 0, partial(read_image, self.path / one.name), captions=one.captions)


def _check_folder(images: Path, annotations: Path, every: list[Captioned]) -> None:
    """Another folder than the annotations are of is said at once, not after a hundred images that are not there."""
    first = every[:FIRST]
    if not any((images / one.name).is_file() for one in first):
        raise UserError(
            f"{images} has none of the first {len(first)} images of {annotations}, such as {first[0].name}; give the "
            "folder that they lie in"
        )


def _subset(every: list[Captioned], limit: int, annotations: Path) -> list[Captioned]:
    if limit > len(every):
        raise UserError(f"{annotations} has {len(every):,} images with captions, fewer than --limit {limit}")
    chosen = sorted(every, key=lambda one: _digest(f"hastezoo coco subset {one.id}"))[:limit]
    return sorted(chosen, key=lambda one: one.id)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def read_annotations(path: Path) -> tuple[list[Captioned], int]:
    """The images of a file of captions in COCO's format.

    Blank captions are no captions.

    Returns:
        Those with captions, in the order of their numbers, and how many have none.

    Raises:
        UserError: If there is no such file, it is not in the format, or has no captions.
    """
    whole = _parsed(path)
    names = _names(path, whole["images"])
    captions = _captions(path, whole["annotations"], names)
    images = [
        Captioned(number, names[number], tuple(caption for _, caption in sorted(captions[number])))
        for number in sorted(captions)
    ]
    if not images:
        raise UserError(f"{path} has no captions; give COCO's captions_*.json, not its instances or keypoints")
    return images, len(names) - len(images)


def _parsed(path: Path) -> dict[str, list[Any]]:
    try:
        whole = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; it would hold captions in COCO's format") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {' '.join(str(error).split())[:120]}") from None
    for key in ("images", "annotations"):
        if not isinstance(whole, dict) or not isinstance(whole.get(key), list):
            raise UserError(f"{path} is not in COCO's format: it has no list {key!r}")
    return whole


def _names(path: Path, images: list[Any]) -> dict[int, str]:
    """File names by number."""
    names: dict[int, str] = {}
    seen: set[str] = set()
    for entry in images:
        number, name = _field(path, entry, "images", "id", int), _field(path, entry, "images", "file_name", str)
        if number in names:
            raise UserError(f"{path} has two images of the id {number}")
        if name in seen:
            raise UserError(f"{path} has two images of the file name {name!r}")
        place = PurePosixPath(name)
        if not name.isprintable() or not place.name or place.is_absolute() or ".." in place.parts:
            raise UserError(f"{path} has an image of the file name {name!r}, which is none in a folder of images")
        names[number] = name
        seen.add(name)
    return names


def _captions(path: Path, annotations: list[Any], names: Mapping[int, str]) -> dict[int, list[tuple[int, str]]]:
    """Pairs of the annotation's number and the caption, by the image's number."""
    captions: dict[int, list[tuple[int, str]]] = {}
    seen: set[int] = set()
    for entry in annotations:
        number, image = (_field(path, entry, "annotations", key, int) for key in ("id", "image_id"))
        text = _field(path, entry, "annotations", "caption", str)
        if number in seen:
            raise UserError(f"{path} has two annotations of the id {number}")
        if image not in names:
            raise UserError(f"{path} has a caption of the image {image}, which it does not list (annotation {number})")
        seen.add(number)
        if text.strip():
            try:
                captions.setdefault(image, []).append((number, clean(text)))
            except UserError as error:
                raise UserError(f"{path}: annotation {number}: {error}") from None
    return captions


def _field(path: Path, entry: Any, part: str, key: str, kind: Callable[..., Any]) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not kind:
        shown = json.dumps(entry)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        wanted = "a number" if kind is int else "text"
        raise UserError(f"{path} is not in COCO's format: one of its {part} has no {key!r} that is {wanted}: {shown}")
    return value


def image_id_of(name: str) -> int | None:
    """The number at the end of a file's name, as COCO names its images: COCO_val2014_000000000042.jpg -> 42."""
    found = re.search(r"[0-9]+$", PurePosixPath(name).stem)
    return int(found.group()) if found else None


def frozen_pairs(captions: Mapping[int, int], count: int) -> list[tuple[int, int]]:
    """Which images an evaluation draws, and by which caption of each: a rule that never changes.

    Images come in ascending order of the sha256 of `hastezoo coco NUMBER`; the caption is the one whose place is that
    digest's bytes 16 to 23, as a big-endian number, modulo the number of the image's captions.

    Args:
        captions: How many captions each image has, by COCO's number of it.
        count: Images wanted.

    Returns:
        Pairs of the image's number and the caption's place.

    Raises:
        ValueError: If there are fewer images, or one has no caption.
    """
    if count > len(captions):
        raise ValueError(f"{count:,} pairs are wanted of {len(captions):,} images")
    without = next((number for number, own in captions.items() if own < 1), None)
    if without is not None:
        raise ValueError(f"the image {without} has no caption")
    ranked = sorted((_digest(f"hastezoo coco {number}"), number) for number in captions)
    return [(number, int.from_bytes(digest[16:24], "big") % captions[number]) for digest, number in ranked[:count]]
