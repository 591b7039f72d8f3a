"""What all shards hold together: from their records to the manifest."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hastezoo import __version__
from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data.captioned import write_empty
from hastezoo.data.manifest import LatentInfo, Manifest, TextInfo
from hastezoo.data.networks import Networks
from hastezoo.data.preparing import PrepareSettings
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Source
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.conditioning.text import TextEncoder


def manifest_of(
    records: list[ShardRecord], source: Source, dest: Path, settings: PrepareSettings, networks: Networks
) -> Manifest:
    """The manifest, not written yet; writes the states of the empty caption where there are captions.

    Args:
        records: Of all units, in order.
        source, dest, settings, networks: As it was prepared.

    Raises:
        UserError: If there is no image in them, or latents have several shapes.
    """
    files = [record.shard for record in records if record.shard is not None]
    shapes = {record.shape for record in records if record.shape is not None}
    if not files:
        raise UserError(f"none of the images of {source.description} can be read")
    if len(shapes) > 1:
        raise UserError(f"the moments of {source.description} have several shapes: {sorted(shapes)}")
    counts = [sum(record.labels.get(label, 0) for record in records) for label in range(len(source.classes))]
    return Manifest(
        name=settings.name,
        resolution=settings.resolution,
        samples=sum(shard.rows for shard in files),
        classes=source.classes,
        counts=counts,
        crop="none" if source.has_moments else "adm-centre",
        flip=settings.flip,
        image_format=settings.image_format,
        latents=_latents(records, settings, networks.autoencoder),
        text=None if networks.encoder is None else _text(records, dest, networks.encoder),
        source=source.description,
        source_fingerprint=source.fingerprint,
        shards=files,
        skipped=[one for record in records for one in record.skipped],
        date=datetime.date.today().isoformat(),
        hastezoo=__version__,
    )


def _text(records: list[ShardRecord], dest: Path, encoder: TextEncoder) -> TextInfo:
    """What the states are; writes those of the empty caption."""
    return TextInfo(
        encoder=encoder.source,
        revision=encoder.revision,
        encoder_sha256=encoder.sha256,
        length=encoder.length,
        width=encoder.width,
        captions=sum(record.captions for record in records),
        empty=write_empty(dest, encoder),
    )


def _latents(
    records: list[ShardRecord], settings: PrepareSettings, autoencoder: LatentAutoencoder | None
) -> LatentInfo:
    """The statistics over all positions of all images, from the records' sums."""
    from hastezoo.autoencoders import VAES

    whole = [record for record in records if record.shape is not None]
    shape = whole[0].shape
    assert shape is not None
    positions = sum(sum(record.labels.values()) for record in whole) * shape[1] * shape[2]
    mean, square, std = (
        np.sum([getattr(record, name) for record in whole], axis=0) / positions for name in ("sums", "squares", "stds")
    )
    return LatentInfo(
        vae=autoencoder.source if autoencoder else VAES.get(settings.vae, settings.vae),
        revision=autoencoder.revision if autoencoder else "",
        vae_sha256=autoencoder.sha256 if autoencoder else "",
        shape=shape,
        mean=mean.tolist(),
        std=np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
        posterior_std=std.tolist(),
    )
