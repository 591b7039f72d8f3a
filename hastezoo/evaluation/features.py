"""Features of many images on disk, in chunks: written whole or not at all, found again, shared out over processes.

Chunk c holds images 500 c .. 500 c + 499 whatever the number of processes, and process r of w makes the chunks with
c mod w = r. So what is on disk depends neither on how many processes worked nor on how often they were interrupted.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hastezoo.data.ranks import Tell, Waiting
from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import Extractor
from hastezoo.evaluation.images import Images, suited
from hastezoo.files import atomic_write, remove_partials

CHUNK = 500
INDEX, LABEL = "index", "label"
IDENTITY = "identity"  # the key of a file's metadata
LOOK_EVERY = 0.2  # seconds between two looks for what other processes make

Progress = Callable[[int], None]
"""Called with the number of images whose features are there."""


class Watcher(Protocol):
    """Somebody who wants the images too, such as a store of samples."""

    def wants(self, indices: range) -> bool:
        """Whether a chunk's images are still wanted, though its features may be there."""

    def see(self, indices: range, images: np.ndarray) -> None:
        """A chunk's images (B, H, W, C), before its features are written."""


class FeatureStore:
    """A folder of chunks.

    Args:
        folder: Made if needed.
        identity: All that the features depend on: images, settings, extractor. A folder holds features of one.

    Raises:
        UserError: If the folder holds features of something else.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self.folder, self.identity = folder, identity
        self._known: dict[int, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}; give another --out") from None
        self._check_owner()

    def _check_owner(self) -> None:
        """Hours of work under other settings are not overwritten."""
        for path in sorted(self.folder.glob("*.safetensors")):
            other = _identity(path)
            if other is not None and other != self.identity:
                key = next(key for key in {**self.identity, **other} if self.identity.get(key) != other.get(key))
                raise UserError(
                    f"{self.folder} holds features made with another {key} ({_short(other.get(key))}, now "
                    f"{_short(self.identity.get(key))}); give another --out, or remove it"
                )

    def path(self, chunk: int) -> Path:
        """Where a chunk is."""
        return self.folder / f"{chunk:06d}.safetensors"

    def tidy(self) -> None:
        """Remove what a killed process left half-written."""
        remove_partials(self.folder)

    def rows(self, chunk: int) -> int:
        """How many images a chunk holds; 0 where it is not there, or cannot be used."""
        if chunk not in self._known:
            try:
                with safe_open(self.path(chunk), "np") as file:
                    own = json.loads((file.metadata() or {}).get(IDENTITY, "null")) == self.identity
                    rows = file.get_slice(INDEX).get_shape()[0] if own else 0
            except (OSError, SafetensorError, ValueError):
                rows = 0
            if not rows:
                return 0
            self._known[chunk] = rows
        return self._known[chunk]

    def write(self, chunk: int, labels: np.ndarray, features: dict[str, np.ndarray]) -> None:
        """Keep a chunk: labels (B,) int64, -1 where there are none, and features (B, D) float32 by name."""
        first = chunk * CHUNK
        tensors = {INDEX: np.arange(first, first + len(labels)), LABEL: labels, **features}
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        atomic_write(self.path(chunk), save(contiguous, {IDENTITY: json.dumps(self.identity)}))
        self._known.pop(chunk, None)

    def chunks(self, name: str, count: int) -> Iterator[np.ndarray]:
        """The features of that name of the first `count` images, in order: (B, D) float32, a chunk at a time.

        Raises:
            UserError: If a chunk has gone or is damaged.
        """
        for chunk in range(-(-count // CHUNK)):
            wanted = min(CHUNK, count - chunk * CHUNK)
            try:
                with safe_open(self.path(chunk), "np") as file:
                    features: np.ndarray = file.get_tensor(name)
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"{self.path(chunk)} cannot be read ({error}); remove it, and it is made anew"
                ) from None
            if len(features) < wanted:
                raise UserError(f"{self.path(chunk)} has gone stale; remove it, and it is made anew")
            yield features[:wanted]

    def names(self) -> list[str]:
        """The features that its first chunk has."""
        with safe_open(self.path(0), "np") as file:
            return [name for name in list(file.keys()) if name not in (INDEX, LABEL)]

    def matrix(self, name: str, count: int) -> np.ndarray:
        """The features of that name of the first `count` images at once: (count, D) float32."""
        whole: np.ndarray | None = None
        first = 0
        for part in self.chunks(name, count):
            if whole is None:
                whole = np.empty((count, part.shape[1]), np.float32)
            whole[first : first + len(part)] = part
            first += len(part)
        assert whole is not None
        return whole


def extract(
    images: Images,
    extractor: Extractor,
    store: FeatureStore,
    *,
    count: int,
    batch_size: int,
    rank: int = 0,
    ranks: int = 1,
    watchers: Sequence[Watcher] = (),
    progress: Progress = lambda images: None,
) -> None:
    """Make what is missing of the features of the first `count` images; this process' share of it.

    Args:
        images, extractor: Of what, and with what.
        store: Where they go.
        count: How many images.
        batch_size: Images at a time. Batches do not cross the ends of chunks.
        rank, ranks: Which process this is, of how many.
        watchers: Handed the images of the chunks that they want.
        progress: Told how far all processes together are.

    Raises:
        UserError: If an image cannot be read, or its features are not finite.
    """
    for chunk in range(-(-count // CHUNK))[rank::ranks]:
        indices = range(chunk * CHUNK, min((chunk + 1) * CHUNK, count))
        wanting = [watcher for watcher in watchers if watcher.wants(indices)]
        if wanting or store.rows(chunk) < len(indices):
            before = there(store, count) - min(store.rows(chunk), len(indices))
            told = functools.partial(_add, progress, before)
            _make(images, extractor, store, indices, batch_size, wanting, told)
        progress(there(store, count))


def _add(progress: Progress, before: int, made: int) -> None:
    progress(before + made)


def _make(
    images: Images,
    extractor: Extractor,
    store: FeatureStore,
    indices: range,
    batch_size: int,
    watchers: Sequence[Watcher],
    progress: Progress,
) -> None:
    pixels, parts = [], []
    for start in range(indices.start, indices.stop, batch_size):
        batch = images.read(start, min(start + batch_size, indices.stop))
        parts.append(extractor(suited(batch, extractor.channels)))
        if watchers:
            pixels.append(batch)
        progress(start - indices.start + len(batch))
    features = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for name, values in features.items():
        if not np.isfinite(values).all():
            raise UserError(f"the {name} features of images {indices.start}..{indices.stop - 1} are not finite")
    for watcher in watchers:
        watcher.see(indices, np.concatenate(pixels))
    labels = np.full(len(indices), -1) if images.labels is None else images.labels[indices.start : indices.stop]
    store.write(indices.start // CHUNK, np.asarray(labels, np.int64), features)


def there(store: FeatureStore, count: int) -> int:
    """How many of the first `count` images have their features on disk."""
    return sum(min(store.rows(chunk), CHUNK, count - chunk * CHUNK) for chunk in range(-(-count // CHUNK)))


def wait(
    store: FeatureStore,
    count: int,
    watchers: Sequence[Watcher] = (),
    progress: Progress = lambda images: None,
    *,
    ranks: int = 1,
    tell: Tell = lambda missing: None,
) -> None:
    """Until every process has made its share. What ends one of them ends torchrun, and with it this.

    Args:
        store, count, watchers, progress: As of `extract`.
        ranks: Over how many processes chunks are shared out.
        tell: Told what is missing, where nothing comes for long: who makes it may have died.
    """
    waiting = Waiting(-(-count // CHUNK), ranks, tell)
    while missing := _missing(store, count, watchers):
        progress(there(store, count))
        waiting.see(missing)
        time.sleep(LOOK_EVERY)
    store.tidy()
    progress(count)


def _missing(store: FeatureStore, count: int, watchers: Sequence[Watcher]) -> list[int]:
    """Chunks without all features, or that a watcher has not seen."""
    chunks = {chunk: range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)) for chunk in range(-(-count // CHUNK))}
    return [
        chunk
        for chunk, indices in chunks.items()
        if store.rows(chunk) < len(indices) or any(watcher.wants(indices) for watcher in watchers)
    ]


def _identity(path: Path) -> dict[str, str] | None:
    """What a chunk was made of; None where it is damaged, which is mended by making it anew."""
    try:
        with safe_open(path, "np") as file:
            identity = json.loads((file.metadata() or {}).get(IDENTITY, "null"))
    except (OSError, SafetensorError, ValueError):
        return None
    return identity if isinstance(identity, dict) else None


def _short(value: str | None) -> str:
    text = "none" if value is None else value
    return text if len(text) <= 40 else f"{text[:37]}..."
