"""Images -> a prepared data set: latents' moments, cropped images, and labels or captions, in Arrow shards.

Work goes unit by unit, a shard each, by one process or several: those that one command starts, or ranks on any
machines. A finished shard has a record beside it; a preparation that was stopped or killed goes on with the units that
have none. A manifest comes last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hastezoo.data import shards
from hastezoo.data.claims import UNDER_WAY, check_claim, check_finished, claim_of
from hastezoo.data.locks import Held, at_work
from hastezoo.data.manifest import FILE, Manifest
from hastezoo.data.networks import Networks, load_networks
from hastezoo.data.preparing import Preparer, PrepareSettings, Progress, too_many_bad
from hastezoo.data.ranks import Missing, Ranks, Waiting
from hastezoo.data.records import Records, images_of, record_of, remove_partials_of
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Source
from hastezoo.data.summing import manifest_of
from hastezoo.data.workers import work_in_processes
from hastezoo.errors import UserError
from hastezoo.files import write_json

LOOK_EVERY = 1.0  # seconds between two looks for what other ranks make


@dataclass(frozen=True)
class Machine:
    """What does the work; of the samples it decides the last bits of moments alone (batch size, device, processes).

    Attributes:
        device: auto, cpu, cuda, cuda:1, mps. Several processes on CUDA take the GPUs in turn.
        processes: Each with networks of its own; None for one per GPU. Of a rank always one.
        threads: Of each process, that read and crop; None for the cores shared out.
        batch_size: Images encoded at once; None for 16 on a GPU and 4 elsewhere.
        max_bad: Unreadable images that are skipped before it is refused, over all processes and ranks.
        ranks: Which of the processes this is that share the work and nothing but the folder.
    """

    device: str = "auto"
    processes: int | None = None
    threads: int | None = None
    batch_size: int | None = None
    max_bad: int = 100
    ranks: Ranks = field(default_factory=Ranks)


class Watch(Protocol):
    """Told how it goes."""

    def encodes(self, length: int, width: int) -> None:
        """Of captions: the shape of the states of each; before the work begins."""

    def begin(self, done: int, total: int | None, shards_done: int, shards: int) -> None: ...
    def advance(self, images: int) -> None: ...
    def waits(self, missing: Missing) -> None:
        """Of several ranks the first has been waiting for the others for long."""


class Unwatched:
    """Nobody is told."""

    def encodes(self, length: int, width: int) -> None:
        pass

    def begin(self, done: int, total: int | None, shards_done: int, shards: int) -> None:
        pass

    def advance(self, images: int) -> None:
        pass

    def waits(self, missing: Missing) -> None:
        pass


def prepare(
    source: Source, dest: Path, settings: PrepareSettings, machine: Machine | None = None, watch: Watch | None = None
) -> Manifest:
    """Prepare a data set, or go on preparing it; as the first of several ranks, with what the others make.

    Args:
        source: The images.
        dest: Its folder, which is made.
        settings: What decides the samples.
        machine: What does the work.
        watch: Told how it goes.

    Returns:
        The manifest; of a data set that was finished before, as it is.

    Raises:
        UserError: If the folder holds something else or somebody works on it, too many images cannot be read, or it
            cannot be written.
        ValueError: If this is another rank than the first.
    """
    machine = machine or Machine()
    if machine.ranks.rank:
        raise ValueError(f"rank {machine.ranks.rank} makes a share: prepare_share")
    manifest = _started(source, dest, settings, machine, watch)
    assert manifest is not None
    return manifest


def prepare_share(
    source: Source, dest: Path, settings: PrepareSettings, machine: Machine, watch: Watch | None = None
) -> None:
    """Make the shards of one of several ranks that is not the first, or those of them that are missing.

    Args, Raises: As `prepare`.
    """
    _started(source, dest, settings, machine, watch)


@dataclass(frozen=True)
class _Task:
    """What is prepared, by what, and who is told."""

    source: Source
    dest: Path
    settings: PrepareSettings
    machine: Machine
    watch: Watch
    held: Held


def _started(
    source: Source, dest: Path, settings: PrepareSettings, machine: Machine, watch: Watch | None
) -> Manifest | None:
    """The manifest, of the process that writes it."""
    _check_source(source, settings)
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with at_work(dest, machine.ranks, "preparing") as held:
            return _prepare(_Task(source, dest, settings, machine, watch or Unwatched(), held))
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        raise UserError(
            f"{dest} cannot be written:{place} {error.strerror or error}. {_state(dest, source)}; when that is mended, "
            "the same command goes on"
        ) from None


def _check_source(source: Source, settings: PrepareSettings) -> None:
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


def _prepare(task: _Task) -> Manifest | None:
    source, dest, machine = task.source, task.dest, task.machine
    claim = claim_of(source, task.settings)
    with task.held.gate():
        if (finished := _finished(task, claim)) is not None:
            return finished
        remove_partials_of(dest, machine.ranks)
    processes = 1 if machine.ranks.count > 1 else machine.processes or _gpus(machine.device)
    networks = load_networks(source, task.settings, machine.device if processes == 1 else "cpu")
    claim.update(networks.digests)
    with task.held.gate():
        if (finished := _finished(task, claim)) is not None:  # by other ranks, meanwhile
            return finished
        write_json(dest / UNDER_WAY, claim)
        records = Records(dest, source.units)
        _forget_too_many_bad(records, machine)
    if networks.encoder is not None:
        task.watch.encodes(networks.encoder.length, networks.encoder.width)
    tally = _Tally(task, records)
    _make_shards(replace(task, machine=replace(machine, processes=processes)), networks, tally)
    return None if machine.ranks.rank else _concluded(task, networks, tally)


def _finished(task: _Task, claim: dict[str, Any]) -> Manifest | None:
    """What was finished before; None where it is to be begun or goes on, and may.

    Raises:
        UserError: If the folder holds something else.
    """
    if not (task.dest / FILE).exists():
        check_claim(task.dest, claim)
        return None
    finished = check_finished(task.dest, claim)
    _tidy(task.dest, task.source)
    return finished


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


def _forget_too_many_bad(records: Records, machine: Machine) -> None:
    """Have units with unreadable images made anew where they are too many, or all: the source may be mended now.

    Of ranks the first to come does it for all: where there are too many, they have all ended, or will. Where nothing
    could be read so far they may be at work on what can be.
    """
    made = bool(records.known) and not (machine.ranks.count > 1 and records.missing)
    nothing = made and not any(record.shard for record in records.known.values())
    if len(records.skipped) > machine.max_bad or nothing:
        records.forget_bad()


class _Tally:
    """What is done and what was skipped by all ranks, as far as this one knows."""

    def __init__(self, task: _Task, records: Records) -> None:
        self.task, self.records = task, records
        self.skipped = records.skipped

    def add(self, record: ShardRecord) -> None:
        """Count what one more record says was skipped."""
        self.skipped += record.skipped
        limit = self.task.machine.max_bad
        if len(self.skipped) > limit:
            raise too_many_bad(self.skipped[-1], limit)

    def look(self) -> None:
        """See what other ranks have made meanwhile."""
        ranks = self.task.machine.ranks
        if ranks.count == 1:
            return
        for unit, record in self.records.look().items():
            if not ranks.owns(unit):
                self.task.watch.advance(images_of(record))
                self.add(record)


def _make_shards(task: _Task, networks: Networks, tally: _Tally) -> None:
    """Those of this process that are missing."""
    source, machine, watch, records = task.source, task.machine, task.watch, tally.records
    todo = [unit for unit in machine.ranks.share(source.units) if unit not in records.known]
    watch.begin(records.images, source.total, len(records.known), source.units)
    processes = min(machine.processes or 1, max(1, len(todo)))
    batch_size = machine.batch_size or (16 if _on_cuda(machine.device) else 4)
    threads = machine.threads or max(1, (os.cpu_count() or 1) // processes)
    options: dict[str, Any] = {"batch_size": batch_size, "threads": threads, "max_bad": machine.max_bad}
    if processes > 1:
        place = (source, task.dest, task.settings, machine.device)
        made = work_in_processes(*place, processes, todo, options, watch.advance)
    else:
        given = (source, task.dest, task.settings, networks.autoencoder)
        made = _alone(Preparer(*given, **options, encoder=networks.encoder), todo, watch.advance)
    with closing(made):  # other processes end with it, also where this is left by an error
        for record in made:
            tally.add(record)
            tally.look()


def _on_cuda(device: str) -> bool:
    from hastezoo.devices import find_device

    return find_device(device).type == "cuda"


def _alone(preparer: Preparer, todo: list[int], progress: Progress) -> Generator[ShardRecord]:
    for unit in todo:
        yield preparer(unit, progress)


def _concluded(task: _Task, networks: Networks, tally: _Tally) -> Manifest:
    """Wait for the other ranks, and write what makes the shards a data set."""
    source, dest = task.source, task.dest
    waiting = Waiting(source.units, task.machine.ranks.count, task.watch.waits)
    while True:
        _wait(task, tally, waiting)
        with task.held.gate():
            tally = _Tally(task, Records(dest, source.units))
            # A rank that begins may have had some made anew. What is missing of this one alone, somebody took away.
            if task.machine.ranks.count > 1 and tally.records.missing:
                continue
            manifest = manifest_of(tally.records.in_order, source, dest, task.settings, networks)
            shards.write_index(dest, manifest)
            manifest.write(dest)
            _tidy(dest, source)
            return manifest


def _wait(task: _Task, tally: _Tally, waiting: Waiting) -> None:
    tally.look()
    while task.machine.ranks.count > 1 and (missing := tally.records.missing):
        waiting.see(missing)
        time.sleep(LOOK_EVERY)
        tally.look()


def _state(dest: Path, source: Source) -> str:
    done = sum(record_of(dest, unit).exists() for unit in range(source.units))
    return f"{done} of {source.units} shards are done and stay"
