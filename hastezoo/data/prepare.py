"""Images -> a prepared data set: latents' moments, cropped images, and labels or captions, in Arrow shards.

Work goes unit by unit, a shard each, by one process or several. A finished shard has a record beside it; a preparation
that was stopped or killed goes on with the units that have none. A manifest comes last.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hastezoo import __version__
from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data import shards
from hastezoo.data.captioned import load_encoder, write_empty
from hastezoo.data.claims import NETWORKS, UNDER_WAY, check_claim, check_finished, claim_of
from hastezoo.data.manifest import FILE, LatentInfo, Manifest, TextInfo
from hastezoo.data.preparing import Preparer, PrepareSettings, Progress, record_of, too_many_bad
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Source
from hastezoo.data.workers import work_in_processes
from hastezoo.errors import UserError
from hastezoo.files import alone_in, remove_partials, write_json

if TYPE_CHECKING:
    from hastezoo.conditioning.text import TextEncoder


@dataclass(frozen=True)
class Machine:
    """What does the work; of the samples it decides the last bits of moments alone (batch size, device, processes).

    Attributes:
        device: auto, cpu, cuda, cuda:1, mps. Several processes on CUDA take the GPUs in turn.
        processes: Each with networks of its own; None for one per GPU.
        threads: Of each process, that read and crop; None for the cores shared out.
        batch_size: Images encoded at once; None for 16 on a GPU and 4 elsewhere.
        max_bad: Unreadable images that are skipped before it is refused.
    """

    device: str = "auto"
    processes: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    max_bad: int = 100


class Watch(Protocol):
    """Told how it goes."""

    def encodes(self, length: int, width: int) -> None:
        """Of captions: the shape of the states of each; before the work begins."""

    def begin(self, done: int, total: int | None, shards_done: int, shards: int) -> None: ...
    def advance(self, images: int) -> None: ...


def prepare(
    source: Source, dest: Path, settings: PrepareSettings, machine: Machine | None = None, watch: Watch | None = None
) -> Manifest:
    """Prepare a data set, or go on preparing it.

    Args:
        source: The images.
        dest: Its folder, which is made.
        settings: What decides the samples.
        machine: What does the work.
        watch: Told how it goes.

    Returns:
        The manifest; of a data set that was finished before, as it is.

    Raises:
        UserError: If the folder holds something else, too many images cannot be read, or it cannot be written.
    """
    machine = machine or Machine()
    if source.has_moments and settings.flip:
        raise UserError(
            f"{source.description} has no moments of mirrored images; leave out --flip, or prepare the photographs"
        )
    if bool(source.classes) != (settings.text_encoder is None):
        kind = (
            "classes, which no text encoder is for"
            if source.classes
            else "captions, for which a text encoder is needed"
        )
        raise UserError(f"the images of {source.description} have {kind}")
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with alone_in(dest, "preparing"):
            return _prepare(source, dest, settings, machine, watch)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        raise UserError(
            f"{dest} cannot be written:{place} {error.strerror or error}. {_state(dest, source)}; when that is mended, "
            "the same command goes on"
        ) from None


def _prepare(source: Source, dest: Path, settings: PrepareSettings, machine: Machine, watch: Watch | None) -> Manifest:
    claim = claim_of(source, settings)
    if (dest / FILE).exists():
        finished = check_finished(dest, claim)
        _tidy(dest, source)
        return finished
    check_claim(dest, claim)
    remove_partials(dest)
    processes = machine.processes or _gpus(machine.device)
    networks = _load(source, settings, machine.device if processes == 1 else "cpu")
    claim.update(networks.digests)
    check_claim(dest, claim)
    write_json(dest / UNDER_WAY, claim)
    if watch is not None and networks.encoder is not None:
        watch.encodes(networks.encoder.length, networks.encoder.width)
    _make_shards(source, dest, settings, replace(machine, processes=processes), networks, watch)
    manifest = _manifest(source, dest, settings, claim, networks)
    shards.write_index(dest, manifest)
    manifest.write(dest)
    _tidy(dest, source)
    return manifest


def _tidy(dest: Path, source: Source) -> None:
    """Take away what a finished data set does not need; the claim goes last."""
    if (dest / UNDER_WAY).exists():
        for unit in range(source.units):
            record_of(dest, unit).unlink(missing_ok=True)
        (dest / UNDER_WAY).unlink()


def _gpus(device: str) -> int:
    """Processes where nobody says how many: one, or one for each GPU that is meant."""
    import torch

    from hastezoo.devices import find_device

    found = find_device(device)
    return torch.cuda.device_count() if found.type == "cuda" and found.index is None else 1


@dataclass(frozen=True)
class _Networks:
    """What encodes; None for what the images do not need."""

    autoencoder: LatentAutoencoder | None
    encoder: TextEncoder | None

    @property
    def digests(self) -> dict[str, str]:
        """Of their weights, by their names in the claim."""
        pairs = zip(NETWORKS, (self.autoencoder, self.encoder), strict=True)
        return {key: "" if network is None else network.sha256 for key, network in pairs}


def _load(source: Source, settings: PrepareSettings, device: str) -> _Networks:
    """Loaded here also where other processes do the work: what is wrong with it is said once, and first."""
    from hastezoo.devices import find_device

    autoencoder = None if source.has_moments else _autoencoder(settings, device)
    place = settings.text_encoder
    return _Networks(autoencoder, None if place is None else load_encoder(place, find_device(device)))


def _autoencoder(settings: PrepareSettings, device: str) -> LatentAutoencoder:
    from hastezoo.devices import find_device

    autoencoder = LatentAutoencoder.from_pretrained(settings.vae, device=find_device(device))
    if settings.resolution % autoencoder.downsampling:
        raise UserError(
            f"the resolution {settings.resolution} is not a multiple of {autoencoder.downsampling}, which the "
            f"autoencoder {autoencoder.source} reduces it by"
        )
    return autoencoder


def _make_shards(
    source: Source,
    dest: Path,
    settings: PrepareSettings,
    machine: Machine,
    networks: _Networks,
    watch: Watch | None,
) -> None:
    _forget_too_many_bad(dest, source, machine.max_bad)
    todo = [unit for unit in range(source.units) if not record_of(dest, unit).exists()]
    records = _records(dest, source)
    bad = sum(len(record.skipped) for record in records)
    if watch is not None:
        done = sum(record.shard.rows if record.shard else 0 for record in records) + bad
        watch.begin(done, source.total, source.units - len(todo), source.units)
    progress: Progress = watch.advance if watch is not None else lambda images: None
    processes = min(machine.processes or 1, max(1, len(todo)))
    batch_size = machine.batch_size or (16 if _on_cuda(machine.device) else 4)
    threads = machine.threads or max(1, (os.cpu_count() or 1) // processes)
    options = {"batch_size": batch_size, "threads": threads, "max_bad": machine.max_bad}
    if processes > 1:
        made = work_in_processes(source, dest, settings, machine.device, processes, todo, options, progress)
    else:
        preparer = Preparer(source, dest, settings, networks.autoencoder, **options, encoder=networks.encoder)
        made = _alone(preparer, todo, progress)
    with closing(made):  # other processes end with it, also where this is left by an error
        for record in made:
            bad += len(record.skipped)
            if bad > machine.max_bad:
                raise too_many_bad(record.skipped[-1], machine.max_bad)


def _forget_too_many_bad(dest: Path, source: Source, max_bad: int) -> None:
    """Have units with unreadable images made anew where they are too many, or all: the source may be mended now."""
    records = _records(dest, source)
    if sum(len(record.skipped) for record in records) > max_bad or not any(record.shard for record in records):
        for path in (record_of(dest, unit) for unit in range(source.units)):
            if path.exists() and ShardRecord.read(path).skipped:
                path.unlink()


def _on_cuda(device: str) -> bool:
    from hastezoo.devices import find_device

    return find_device(device).type == "cuda"


def _alone(preparer: Preparer, todo: list[int], progress: Progress) -> Generator[ShardRecord]:
    for unit in todo:
        yield preparer(unit, progress)


def _records(dest: Path, source: Source) -> list[ShardRecord]:
    paths = [record_of(dest, unit) for unit in range(source.units)]
    return [ShardRecord.read(path) for path in paths if path.exists()]


def _state(dest: Path, source: Source) -> str:
    done = sum(record_of(dest, unit).exists() for unit in range(source.units))
    return f"{done} of {source.units} shards are done and stay"


def _manifest(
    source: Source,
    dest: Path,
    settings: PrepareSettings,
    claim: dict[str, Any],
    networks: _Networks,
) -> Manifest:
    records = _records(dest, source)
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
        source_fingerprint=claim["fingerprint"],
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
