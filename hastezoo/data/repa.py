"""REPA's preprocessed folders: cropped PNGs, the moments of the SD VAE's posterior beside them, and labels.

    images/00000/img00000000.png                  images/dataset.json
    vae-sd/00000/img-mean-std-00000000.npy        vae-sd/dataset.json

An image and its latent are paired by the number in their names. REPA's own loader pairs the two sorted lists, so that
one missing file gives every later image the latent of its neighbour, and nothing fails.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from hastezoo.data.images import to_rgb
from hastezoo.data.source import Item, Moments
from hastezoo.errors import UserError

IMAGES, LATENTS, LABELS = "images", "vae-sd", "dataset.json"
LOGVAR_RANGE = (-30.0, 20.0)  # what diffusers' DiagonalGaussianDistribution clips to
_IMAGE = re.compile(r"img(\d+)\.(?:png|jpe?g|webp|bmp)", re.IGNORECASE)
_LATENT = re.compile(r"img-mean-std-(\d+)\.npy")
_EITHER = re.compile(f"(?:{_IMAGE.pattern}|{_LATENT.pattern})", re.IGNORECASE)


def looks_like(path: Path) -> bool:
    """Whether a folder holds the two folders that REPA's preprocessing writes."""
    return (path / IMAGES).is_dir() and (path / LATENTS).is_dir()


class RepaFolders:
    """The images of REPA's preprocessing with the moments of their latents; a `Source`.

    The lists are arrays of bytes, about 60 bytes an image, so that a process that reads can be given a copy.

    Args:
        path: The folder with `images` and `vae-sd`.
        shard_size: Images a unit.
        moments: What the second half of a latent file's channels is: standard deviations, as REPA writes them, or
            log-variances.

    Raises:
        UserError: If `moments` is neither; an image, latent or label lacks its partners; or labels disagree.
    """

    has_moments = True

    def __init__(self, path: Path, shard_size: int, moments: Moments = "mean-std") -> None:
        if moments not in ("mean-std", "mean-logvar"):
            raise UserError(f"unknown moments {moments!r}: mean-std or mean-logvar")
        self.description = str(path)
        self._path, self._shard_size, self._moments = Path(path), shard_size, moments
        images, latents = _numbered(self._path / IMAGES, _IMAGE), _numbered(self._path / LATENTS, _LATENT)
        labels = _read_labels(self._path)
        _check_partners(self._path, images, latents, labels)
        order = sorted(images, key=images.__getitem__)
        self._images = np.array([os.fsencode(images[number]) for number in order])
        self._latents = np.array([os.fsencode(latents[number]) for number in order])
        self._labels = np.array([labels[number] for number in order], dtype=np.int32)
        self.classes = [str(label) for label in range(int(self._labels.max()) + 1)]
        self.total: int | None = len(order)
        self.units = -(-len(order) // shard_size)
        self.fingerprint = self._digest()

    def items(self, unit: int) -> Iterator[Item]:
        """The images of a unit, by their path under `images`; moments are float32 (2, C, h, w), mean and deviation."""
        first = unit * self._shard_size
        for index in range(first, min(first + self._shard_size, len(self._labels))):
            name, latent = os.fsdecode(self._images[index]), os.fsdecode(self._latents[index])
            yield Item(
                id=name,
                label=int(self._labels[index]),
                load=functools.partial(_read_image, self._path / IMAGES / name),
                moments=functools.partial(_read_moments, self._path / LATENTS / latent, self._moments),
            )

    def _digest(self) -> str:
        digest = hashlib.sha256(self._moments.encode())
        for name, label in zip(self._images.tolist(), self._labels.tolist(), strict=True):
            digest.update(b"%s\0%d\n" % (name, label))
        return digest.hexdigest()


def _numbered(folder: Path, pattern: re.Pattern[str]) -> dict[int, str]:
    """Paths under a folder, with `/`, by the number in their names; other files are passed over."""
    found: dict[int, str] = {}
    for where, _, names in os.walk(folder):
        prefix = "" if where == str(folder) else Path(where).relative_to(folder).as_posix() + "/"
        for name in names:
            if not (match := pattern.fullmatch(name)):
                continue
            number, path = int(match[1]), prefix + name
            if number in found:
                pair = " and ".join(sorted((found[number], path)))
                raise UserError(f"{folder} holds two files of number {number}: {pair}; remove one")
            found[number] = path
    return found


def _read_labels(path: Path) -> dict[int, int]:
    """Label by number, from every dataset.json there is."""
    labels: dict[int, int] = {}
    files = [path / LABELS, path / IMAGES / LABELS, path / LATENTS / LABELS]
    present = [file for file in files if file.is_file()]
    if not present:
        raise UserError(f"{path} has no {LABELS} with the labels: it lies in {IMAGES}/, {LATENTS}/ or above them")
    for file in present:
        for name, number, label in _entries(file):
            if labels.setdefault(number, label) != label:
                raise UserError(f"{file} gives {name} label {label}; another entry says {labels[number]}")
    return labels


def _entries(file: Path) -> Iterator[tuple[str, int, int]]:
    """(name, number, label) of each entry of {"labels": [[name, label], ...]} that names an image or a latent."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["labels"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file} does not hold {{"labels": [[name, label], ...]}}: {error!r}') from None
    if not isinstance(rows, list):
        shown = json.dumps(rows)[:40]
        raise UserError(f"{file} holds no labels (labels: {shown}); images without a class are of no use")
    for row in rows:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str)):
            raise UserError(f"{file}: {json.dumps(row)[:80]} is no pair of a name and a label")
        name, label = row
        if not (match := _EITHER.fullmatch(name.replace("\\", "/").rpartition("/")[2])):
            continue
        if type(label) is not int or label < 0:  # bool is an int, too
            raise UserError(f"{file}: the label of {name} is {json.dumps(label)[:40]}, not a number 0, 1, ...")
        yield name, int(match[1] or match[2]), label


def _check_partners(path: Path, images: dict[int, str], latents: dict[int, str], labels: dict[int, int]) -> None:
    """Every image has its latent and its label, every latent and every label its image."""
    if not images:
        raise UserError(f"{path / IMAGES} holds no images named img00000000.png")
    hint = "the data are incomplete, copy them again"
    _none_alone(images.keys() - latents.keys(), images, f"in {path / IMAGES} without a latent in {LATENTS}", hint)
    _none_alone(latents.keys() - images.keys(), latents, f"in {path / LATENTS} without an image in {IMAGES}", hint)
    _none_alone(images.keys() - labels.keys(), images, f"in {path / IMAGES} without a label in {LABELS}", hint)
    named = {number: f"number {number}" for number in sorted(labels.keys() - images.keys())[:1]}
    _none_alone(labels.keys() - images.keys(), named, f"with a label in {LABELS} and no file in {path / IMAGES}", hint)


def _none_alone(alone: Iterable[int], names: dict[int, str], what: str, hint: str) -> None:
    if numbers := sorted(alone):
        count = f"{len(numbers)} {'is' if len(numbers) == 1 else 'are'}"
        raise UserError(f"{count} {what}, the first {names[numbers[0]]}; {hint}")


def _read_image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return to_rgb(image)


def _read_moments(path: Path, kind: Moments) -> np.ndarray:
    """A file of (2C, h, w) as float32 (2, C, h, w): mean, standard deviation.

    Raises:
        UserError: If the file cannot be read or holds something else.
    """
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an array: {error}") from None
    if not isinstance(stored, np.ndarray) or stored.ndim != 3 or len(stored) % 2 or stored.dtype.kind != "f":
        what = f"{stored.dtype} {stored.shape}" if isinstance(stored, np.ndarray) else "several arrays"
        raise UserError(f"{path} holds {what}; means and standard deviations are floats of shape (2C, h, w)")
    moments = stored.astype(np.float32).reshape(2, -1, *stored.shape[1:])
    if not np.isfinite(moments).all():
        raise UserError(f"{path} holds values that are not finite")
    if kind == "mean-logvar":
        moments[1] = np.exp(0.5 * np.clip(moments[1], *LOGVAR_RANGE))
    elif (moments[1] < 0).any():
        raise UserError(f"{path} holds negative standard deviations: these are log-variances; --moments mean-logvar")
    return moments
