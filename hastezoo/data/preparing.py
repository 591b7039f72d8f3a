"""One unit of a source -> one shard: read, crop, encode, write. What every process of a preparation does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data import captioned, shards
from hastezoo.data.images import ImageFormat, as_it_is, centre_crop, encode
from hastezoo.data.manifest import Skipped
from hastezoo.data.records import record_of
from hastezoo.data.shards import Row, ShardRecord
from hastezoo.data.source import Item, Moments, Source
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.conditioning.text import TextEncoder

TEXTS = 32  # images whose captions are encoded together, whatever the batch of images

Progress = Callable[[int], None]
"""Told how many more images are done; what it raises ends the work."""


class PrepareSettings(BaseModel):
    """What decides the samples of a data set, besides its images.

    Attributes:
        name: Of the data set: imagenet256, imagenet512, folder, coco256, captions.
        resolution: Side of the images in pixels.
        vae: Of the moments: ema, mse, a folder, or owner/name of the Hub.
        flip: Keep the moments of the mirrored image too.
        image_format: Of the stored images.
        shard_size: Images a shard, where the source is free to choose.
        moments: Of latents that the source brings along.
        text_encoder: Of the captions' states: a folder, or owner/name of the Hub; None for images with classes.
        limit: How many images the source was told to choose; None for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    resolution: int = Field(ge=8)
    vae: str = "mse"
    flip: bool = False
    image_format: ImageFormat = "png"
    shard_size: int = Field(4096, ge=1)
    moments: Moments = "mean-std"
    text_encoder: str | None = None
    limit: int | None = Field(None, ge=1)


@dataclass(frozen=True)
class Cropped:
    """An image that was read.

    Attributes:
        pixels: uint8 (H, W, 3).
        file: The same, encoded.
        moments: (2, C, h, w), where the source has them.
    """

    id: str
    label: int
    pixels: np.ndarray
    file: bytes
    moments: np.ndarray | None
    captions: tuple[str, ...]


class Preparer:
    """Makes shards, one at a time.

    Args:
        source: The images.
        dest: The data set's folder.
        settings: What decides the samples.
        autoencoder: Encodes; None where the source has moments.
        batch_size: Images it encodes at once.
        threads: That read, crop and compress meanwhile.
        max_bad: Images of one unit that may be unreadable.
        encoder: Of captions; None where images have classes.
    """

    def __init__(
        self,
        source: Source,
        dest: Path,
        settings: PrepareSettings,
        autoencoder: LatentAutoencoder | None,
        *,
        batch_size: int,
        threads: int,
        max_bad: int,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.source, self.dest, self.settings = source, dest, settings
        self.autoencoder, self.encoder = autoencoder, encoder
        self.batch_size, self.threads, self.max_bad = batch_size, threads, max_bad

    def __call__(self, unit: int, progress: Progress) -> ShardRecord:
        """Make the shard of a unit, and last its record, which says that it is there.

        Raises:
            UserError: If too many images cannot be read, or moments do not fit.
            OSError: If it cannot be written; nothing is left then.
        """
        rows = self._rows(self.source.items(unit), progress)
        if self.encoder is not None:
            rows = self._with_states(rows, self.encoder)
        path = self.dest / f"shard-{unit:05d}.arrow"
        record = shards.write_shard(path, rows, shards.features(self.source.classes, self.settings.flip))
        record.write(record_of(self.dest, unit))
        return record

    def _rows(self, items: Iterable[Item], progress: Progress) -> Iterator[Row | Skipped]:
        batch: list[Cropped] = []
        bad = 0
        with ThreadPoolExecutor(self.threads) as pool:
            for done in _in_order(pool, self._read, items, ahead=2 * self.batch_size):
                if isinstance(done, Skipped):
                    bad += 1
                    if bad > self.max_bad:
                        raise too_many_bad(done, self.max_bad)
                    progress(1)
                    yield done
                    continue
                batch.append(done)
                if len(batch) == self.batch_size:
                    yield from self._encoded(batch)
                    progress(len(batch))
                    batch = []
        if batch:
            yield from self._encoded(batch)
            progress(len(batch))

    def _read(self, item: Item) -> Cropped | Skipped:
        """Read and crop one image; anybody's file may fail in any way, and then it is skipped."""
        crop = as_it_is if self.source.has_moments else centre_crop
        try:
            pixels = crop(item.load(), self.settings.resolution)
            moments = item.moments() if item.moments is not None else None
            file = encode(pixels, self.settings.image_format)
            return Cropped(item.id, item.label, pixels, file, moments, item.captions)
        except UserError:
            raise
        except Exception as error:
            return Skipped(id=item.id, reason=" ".join(f"{type(error).__name__}: {error}".split())[:200])

    def _encoded(self, batch: list[Cropped]) -> Iterator[Row]:
        if self.autoencoder is None:
            every = [self._given(one) for one in batch]
            mirrored: list[np.ndarray | None] = [None] * len(batch)
        else:
            pixels = np.stack([one.pixels for one in batch])
            every = list(self._moments(pixels))
            mirrored = list(self._moments(pixels[:, :, ::-1])) if self.settings.flip else [None] * len(batch)
        for one, moments, other in zip(batch, every, mirrored, strict=True):
            yield Row(one.id, one.label, one.file, moments, other, one.captions)

    def _with_states(self, rows: Iterable[Row | Skipped], encoder: TextEncoder) -> Iterator[Row | Skipped]:
        """The same with the states of their captions, `TEXTS` images at a time."""
        group: list[Row] = []
        for row in rows:
            if isinstance(row, Skipped):
                yield row
                continue
            group.append(row)
            if len(group) == TEXTS:
                yield from _stated(group, encoder)
                group = []
        if group:
            yield from _stated(group, encoder)

    def _given(self, one: Cropped) -> np.ndarray:
        assert one.moments is not None
        if not np.isfinite(one.moments).all():
            raise UserError(f"the moments of {one.id} in {self.source.description} are not finite")
        return one.moments

    def _moments(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, 3) -> float32 (B, 2, C, h, w)."""
        import torch

        assert self.autoencoder is not None
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
            try:
                encoded = self.autoencoder.moments(images.float() / 127.5 - 1, len(images))
            except torch.OutOfMemoryError:
                raise UserError(f"{len(images)} images at once do not fit the memory; lower --batch-size") from None
            moments: np.ndarray = encoded.cpu().numpy()
        if not np.isfinite(moments).all():
            raise UserError(f"the autoencoder {self.autoencoder.source} gave latents that are not finite")
        return moments


def _stated(rows: list[Row], encoder: TextEncoder) -> Iterator[Row]:
    states = captioned.encoded(encoder, [caption for row in rows for caption in row.captions])
    start = 0
    for row in rows:
        stop = start + len(row.captions)
        yield replace(row, states=states[start:stop])
        start = stop


def too_many_bad(last: Skipped, limit: int) -> UserError:
    """There are more unreadable images than may be."""
    return UserError(
        f"more than {limit} images cannot be read, such as {last.id} ({last.reason}); mend the source, or allow more "
        "with --max-bad"
    )


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Cropped | Skipped], items: Iterable[Item], ahead: int
) -> Iterator[Cropped | Skipped]:
    """Results in the items' order, so many under way at most."""
    waiting: deque[Future[Cropped | Skipped]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
