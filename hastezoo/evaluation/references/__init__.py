"""References by what a user types: a name, a file of statistics, or images that statistics are taken of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import SPATIAL, Extractor
from hastezoo.evaluation.images import DIGITS, KINDS, Images, check_ending, open_images, unknown
from hastezoo.evaluation.images.arrays import IMAGES, NpzImages
from hastezoo.evaluation.npz import Archive
from hastezoo.evaluation.references.arrays import has_statistics, read_count, read_moments
from hastezoo.evaluation.references.cache import kept
from hastezoo.evaluation.references.file import read_reference
from hastezoo.evaluation.references.named import NamedReference, named_references, recognised
from hastezoo.evaluation.references.reference import FEATURES, PAIRS, Progress, Reference, Say, silent, still, subset
from hastezoo.evaluation.references.seeing import see

__all__ = ["Reference", "find_file", "load_reference", "reference_of"]

OWN = ".safetensors"
STATED = "inception"  # whose features the statistics in an npz are of, by custom
NO_IMAGES = (299, 299, 3)  # Inception's features are as wide for images of any size


def load_reference(
    text: str,
    extractor: Extractor,
    *,
    size: int | None = None,
    batch_size: int = 64,
    say: Say = silent,
    progress: Progress = still,
) -> Reference:
    """A reference. What has to be computed of images is kept, and read the next time.

    Args:
        text: A name (imagenet256, digits), or a path: the ADM evaluator's npz, a file of `hastezoo reference build`, an
            npz of images, a folder of images, or a prepared data set.
        extractor: Whose features the samples are measured with.
        size: Crop each image of a folder to this side.
        batch_size: Images shown to the extractor at a time.
        say: Told of what is not to be seen in the result: what was read from where, what is not used.
        progress: Told of images seen.

    Raises:
        UserError: If there is nothing of the kind, it is damaged, or its statistics are of other features.
    """
    reference = _load(_Looking(text, extractor, batch_size, say, progress), size)
    if size is not None and reference.shape is not None and reference.shape[:2] != (size, size):
        height, width, _ = reference.shape
        raise UserError(f"{text} is of images of {width} x {height} pixels; only a folder's are cropped to a size")
    return reference


def _load(looking: _Looking, size: int | None) -> Reference:
    text = looking.name
    path = find_file(text)
    if path is not None and path.suffix == OWN:
        return read_reference(path, looking.extractor, text)
    if path is None:
        return looking.of_images(open_images(text, size=size))
    check_ending(path)
    with Archive(path) as archive:
        if has_statistics(archive):
            return looking.of_statistics(archive, named_references().get(text) or recognised(path))
    return looking.of_images(open_images(str(path), size=size))


def find_file(text: str) -> Path | None:
    """The file that a name or path means; None for what is no file: a folder, the digits.

    Raises:
        UserError: If it is neither, or a published file that is not here.
    """
    if text in named_references():
        return named_references()[text].path()
    path = Path(text).expanduser()
    if text in DIGITS or path.is_dir():
        return None
    if not path.is_file():
        raise unknown(text, [*named_references(), *DIGITS], f"a file of statistics, {KINDS}")
    return path


def reference_of(
    images: Images,
    extractor: Extractor,
    *,
    name: str = "",
    batch_size: int = 64,
    say: Say = silent,
    progress: Progress = still,
) -> Reference:
    """Statistics of all images, and the features of a seeded subset of 10,000; as computed before, if they were.

    Raises:
        UserError: If an image cannot be read, or there is only one.
    """

    def make() -> Reference:
        moments, features = see(images, extractor, subset(images.count), batch_size=batch_size, progress=progress)
        return Reference(
            name=images.description,
            description=images.description,
            identity=images.identity,
            count=images.count,
            moments=moments,
            features=features,
            missing={} if SPATIAL in moments else {SPATIAL: f"{extractor.name} has no spatial features"},
            shape=images.shape,
            lossy=images.lossy,
        )

    found = kept(f"{extractor.name} statistics", images, extractor, make, say)
    return replace(found, name=name or images.description)


@dataclass(frozen=True)
class _Looking:
    """What every way to a reference needs to know."""

    name: str
    extractor: Extractor
    batch_size: int
    say: Say
    progress: Progress

    def of_images(self, images: Images) -> Reference:
        """All of it from the images."""
        size, say, progress = self.batch_size, self.say, self.progress
        return reference_of(images, self.extractor, name=self.name, batch_size=size, say=say, progress=progress)

    def of_statistics(self, archive: Archive, known: NamedReference | None) -> Reference:
        """What the npz states; of its images only what it does not."""
        path, extractor = archive.path, self.extractor
        if extractor.name != STATED:
            return self._of_its_images(archive)
        count = known.count if known else read_count(archive)
        moments = read_moments(archive, extractor.widths(NO_IMAGES), count)
        images = NpzImages(path) if IMAGES in archive.keys else None
        missing = {} if images else {FEATURES: f"{path.name} holds no images ({IMAGES})"}
        if SPATIAL not in moments:
            missing[SPATIAL] = f"{path.name} holds no {' and '.join(PAIRS[SPATIAL])}"
        return Reference(
            name=known.name if known else self.name,
            description=known.description if known else str(path),
            identity=images.identity if images else {"kind": "npz", "sha256": recorded_sha256(path)},
            count=count,
            moments=moments,
            features=self._features(images) if images else None,
            missing=missing,
            shape=images.shape if images else None,
            lossy=None,
            stated=True,
            verified=known.verifiable if known else None,
        )

    def _of_its_images(self, archive: Archive) -> Reference:
        """Where its statistics are not those of the features asked for."""
        path, name = archive.path, self.extractor.name
        if IMAGES not in archive.keys:
            raise UserError(
                f"{path} holds statistics of {STATED} features, and no images ({IMAGES}) to take those of {name} of; "
                "take another reference"
            )
        images = NpzImages(path)
        self.say(f"{path}: the statistics in it are of {STATED} features; those of {name} are of its images alone")
        return self.of_images(images)

    def _features(self, images: NpzImages) -> np.ndarray:
        """Those of all images, as the ADM evaluator takes them."""

        def make() -> Reference:
            rows, told = np.arange(images.count), self.progress
            found = see(images, self.extractor, rows, moments=False, batch_size=self.batch_size, progress=told)
            described, shape = images.description, images.shape
            return Reference(described, described, images.identity, len(rows), {}, found[1], {}, shape, images.lossy)

        features = kept(f"{self.extractor.name} features", images, self.extractor, make, self.say).features
        assert features is not None
        return features
