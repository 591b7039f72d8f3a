"""Images -> a prepared data set: latents' moments, cropped images and labels in Arrow shards, with a manifest.

Work goes unit by unit, a shard each, by one process or several. A finished shard has a record beside it; a preparation
that was stopped or killed goes on with the units that have none. The manifest comes last.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hastezoo import __version__
from hastezoo.autoencoders import LatentAutoencoder, place_of
from hastezoo.data import shards
from hastezoo.data.manifest import FILE, LatentInfo, Manifest
from hastezoo.data.preparing import Preparer, PrepareSettings, Progress, record_of, too_many_bad
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Source
from hastezoo.data.workers import work_in_processes
from hastezoo.errors import UserError
from hastezoo.files import alone_in, remove_partials, write_json

UNDER_WAY = "prepare.json"


@dataclass(frozen=True)
class Machine:
    """What does the work; of the samples it decides the last bits of moments alone (batch size, device, processes).

    Attributes:
        device: auto, cpu, cuda, cuda:1, mps. Several processes on CUDA take the GPUs in turn.
        processes: Each with an autoencoder of its own; None for one per GPU.
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
    claim = _claim(source, settings)
    if (dest / FILE).exists():
        finished = _finished(dest, claim)
        _tidy(dest, source)
        return finished
    _check_claim(dest, claim)
    remove_partials(dest)
    processes = machine.processes or _gpus(machine.device)
    autoencoder = None if source.has_moments else _autoencoder(settings, machine.device if processes == 1 else "cpu")
    claim["vae_sha256"] = autoencoder.sha256 if autoencoder else ""
    _check_claim(dest, claim)
    write_json(dest / UNDER_WAY, claim)
    _make_shards(source, dest, settings, replace(machine, processes=processes), autoencoder, watch)
    manifest = _manifest(source, dest, settings, claim, autoencoder)
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


def _claim(source: Source, settings: PrepareSettings) -> dict[str, Any]:
    """What two commands must agree on to work on one data set."""
    return {
        "settings": settings.model_dump(mode="json"),
        "source": source.description,
        "fingerprint": source.fingerprint,
    }


def _finished(dest: Path, claim: dict[str, Any]) -> Manifest:
    manifest = Manifest.read(dest)
    wanted, seen = {**claim["settings"], "vae": place_of(claim["settings"]["vae"])}, manifest
    have = {"name": seen.name, "resolution": seen.resolution, "flip": seen.flip, "image_format": seen.image_format}
    have["vae"] = place_of(seen.latents.vae)
    for key, value in have.items():
        if wanted[key] != value:
            raise UserError(f"{dest} holds a data set with {key} {value}, not {wanted[key]}; give another DEST")
    if manifest.source_fingerprint != claim["fingerprint"]:
        raise UserError(f"{dest} holds a data set of other images ({manifest.source}); give another DEST")
    return manifest


def _check_claim(dest: Path, claim: dict[str, Any]) -> None:
    path = dest / UNDER_WAY
    if not path.exists():
        others = [one.name for one in dest.iterdir() if not one.name.startswith(".")]
        if others:
            raise UserError(f"{dest} is not empty (it holds {sorted(others)[0]}); give another DEST")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for key, value in before["settings"].items():
        if claim["settings"].get(key) != value:
            raise UserError(
                f"{dest} was begun with {key} {value}, not {claim['settings'].get(key)}; go on so, or give another DEST"
            )
    weights = {one["vae_sha256"] for one in (before, claim) if "vae_sha256" in one}
    if len(weights) > 1:
        raise UserError(f"the autoencoder has other weights than when {dest} was begun; give another DEST")
    if before["fingerprint"] != claim["fingerprint"]:
        raise UserError(f"the images of {claim['source']} are not those {dest} was begun with; give another DEST")


def _autoencoder(settings: PrepareSettings, device: str) -> LatentAutoencoder:
    """Loaded here also where other processes do the work: what is wrong with it is said once, and first."""
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
    autoencoder: LatentAutoencoder | None,
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
        made = _alone(Preparer(source, dest, settings, autoencoder, **options), todo, progress)
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
    autoencoder: LatentAutoencoder | None,
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
        latents=_latents(records, settings, autoencoder),
        source=source.description,
        source_fingerprint=claim["fingerprint"],
        shards=files,
        skipped=[one for record in records for one in record.skipped],
        date=datetime.date.today().isoformat(),
        hastezoo=__version__,
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
