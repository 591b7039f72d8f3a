"""Disks that are full, processes that are killed: one line, nothing half-written, and it goes on."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data import prepare as preparation
from hastezoo.data import shards, workers
from hastezoo.data.folders import ClassFolders
from hastezoo.data.manifest import Skipped
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.preparing import Preparer
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Item
from hastezoo.errors import UserError
from tests.data.comparing import assert_near, assert_same, facts, one_line, rows_of
from tests.data.making import COUNT, SHARD, SIDE, UNITS, Given, Watching, kill_when_begun, make, settings_of, squares


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, no partial file, and the same command goes on with the shards that are done."""
    source, settings, dest = Given(*squares(), 5), settings_of("mse", resolution=16), tmp_path / "dest"
    prepare(source, tmp_path / "whole", settings)
    write, written = shards.write_shard, []

    def fill(path: Path, *arguments: Any) -> Any:
        if written:
            (dest / f".{path.name}.1.partial").unlink(missing_ok=True)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        return write(path, *arguments)

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(shards, "write_shard", fill)
        prepare(source, dest, settings)
    assert one_line(error) == (
        f"{dest} cannot be written: No space left on device. 1 of 3 shards are done and stay; when that is mended, the "
        "same command goes on"
    )
    before = facts(dest)
    prepare(source, dest, settings)
    assert before.items() <= facts(dest).items()
    assert_same(dest, tmp_path / "whole")


@pytest.mark.parametrize("limit", [100, 3000, 9000])
def test_the_system_refuses_to_write(tmp_path: Path, limit: int) -> None:
    """A limit of the system on the size of a file, met at the first write, within a shard or when its buffer goes."""
    source, settings, dest = Given(*squares(), 12), settings_of("mse", resolution=16), tmp_path / "dest"
    dest.mkdir()
    (dest / ".lock").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(UserError) as error:
            prepare(source, dest, settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one_line(error) == (
        f"{dest} cannot be written: File too large. 0 of 1 shards are done and stay; when that is mended, the same "
        "command goes on"
    )
    assert {path.name for path in dest.iterdir()} <= {".lock", "prepare.json"}
    prepare(source, dest, settings)
    prepare(source, tmp_path / "whole", settings)
    assert_same(dest, tmp_path / "whole")


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_a_destination_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"{place} cannot be written: .*/file.* (Not a directory|File exists)\. 0 of"):
        prepare(Given(*squares(), 5), tmp_path / place, settings_of("mse", resolution=16))


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch, images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """One for each GPU where nobody says how many; none more than there is work for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    asked: list[tuple[str, int]] = []

    def work(source: Any, dest: Path, settings: Any, device: str, processes: int, *rest: Any) -> None:
        asked.append((device, processes))
        raise UserError("enough")

    monkeypatch.setattr(preparation, "work_in_processes", work)
    for device, processes in (("auto", None), ("cuda", 2), ("cuda:1", 2), ("cpu", 9)):
        with pytest.raises(UserError, match="enough"):
            make(images, tmp_path / "dest", tiny_vae, machine={"device": device, "processes": processes})
    assert asked == [("auto", 3), ("cuda", 2), ("cuda:1", 2), ("cpu", UNITS)]
    assert [preparation._gpus(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [3, 3, 1, 1]


class Deadly(ClassFolders):
    """Images of which one kills the process that reads it, when another shard is done."""

    def __init__(self, path: Path, shard_size: int, dest: Path) -> None:
        super().__init__(path, shard_size)
        self.dest = dest

    def items(self, unit: int) -> Iterator[Item]:
        for item in super().items(unit):
            yield replace(item, load=partial(kill_when_begun, self.dest)) if item.id == "rocket/2.png" else item


@pytest.mark.slow
def test_a_process_that_is_killed(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """One line; what the processes made is what one process makes, and it goes on from there."""
    dest, watch = tmp_path / "dest", Watching()
    source, settings = Deadly(images, SHARD, dest), settings_of(tiny_vae, flip=True)
    with pytest.raises(UserError) as error:
        prepare(source, dest, settings, Machine("cpu", processes=2, threads=1), watch)
    assert one_line(error) == (
        f"a process of the preparation was killed (out of memory?); finished shards stay in {dest}, and the same "
        "command goes on, perhaps with fewer --processes"
    )
    before = facts(dest)
    records = {path.stem: json.loads(path.read_text())["shard"]["rows"] for path in dest.glob("shard-*.json")}
    assert 1 <= len(records) < UNITS and watch.done >= sum(records.values())
    make(images, dest, tiny_vae, flip=True)
    assert {name: fact for name, fact in facts(dest).items() if name.removesuffix(".arrow") in records}.items() <= (
        before.items()
    )
    assert_near(dest, whole)


@pytest.fixture
def threads_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawning takes seconds; what the parent does is the same with threads."""

    def start(*arguments: Any) -> None:
        source, dest, settings, device, _, options, counts, stop, _, _ = arguments
        autoencoder = LatentAutoencoder.from_pretrained(settings.vae, device=device)
        workers._mine.update(
            preparer=Preparer(source, dest, settings, autoencoder, **options), counts=counts, stop=stop
        )

    def pool(count: int, context: Any, start: Any, arguments: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(count, initializer=start, initargs=arguments)

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", pool)


@pytest.mark.usefixtures("threads_for_processes")
def test_every_image_of_other_processes_is_counted(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    watch = Watching()
    make(images, tmp_path / "dest", tiny_vae, flip=True, watch=watch, machine={"processes": 2})
    assert watch.began == (0, COUNT, 0, UNITS) and watch.done == COUNT
    assert_same(tmp_path / "dest", whole)


@pytest.mark.usefixtures("threads_for_processes")
@pytest.mark.parametrize(("error", "after"), [(RuntimeError, 1), (KeyboardInterrupt, COUNT)])
def test_what_a_watch_raises_ends_other_processes(
    images: Path, tiny_vae: Path, tmp_path: Path, error: type[BaseException], after: int
) -> None:
    """As it ends a single one, to the last image. Nobody would empty the pipe they count into: they would wait."""

    def fail() -> None:
        raise error("no more")

    with pytest.raises(error, match="no more"):
        make(
            images, tmp_path / "dest", tiny_vae, watch=Watching(after, fail), machine={"processes": 2, "batch_size": 1}
        )
    assert not (tmp_path / "dest" / "manifest.json").exists()


def test_other_processes_end_with_the_preparation(
    images: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while somebody holds the error, and with it the frames it came through."""
    ended = []

    def work(*arguments: Any) -> Iterator[ShardRecord]:
        try:
            yield ShardRecord(shard=None, skipped=[Skipped(id="x", reason="y")] * 2)
        finally:
            ended.append(True)

    monkeypatch.setattr(preparation, "work_in_processes", work)
    with pytest.raises(UserError, match=r"more than 1 images cannot be read, such as x \(y\)") as held:
        make(images, tmp_path / "dest", tiny_vae, machine={"processes": 2, "max_bad": 1})
    assert ended and held


def test_a_command_that_is_killed_goes_on(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    arguments = ["prepare", "folder", images, dest, "--resolution", SIDE, "--vae", tiny_vae, "--flip"]
    options = ["--shard-size", SHARD, "--device", "cpu", "--batch-size", 1, "--threads", 1, "--quiet"]
    # Slowed, so that the signal meets it at work.
    code = (
        "import time\nfrom hastezoo.cli.main import main\nfrom hastezoo.data.preparing import Preparer\n"
        "read = Preparer._read\n"
        "Preparer._read = lambda self, item: (time.sleep(0.1), read(self, item))[1]\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, [*arguments, *options])])
    try:
        limit = time.monotonic() + 60
        while not list(dest.glob("shard-*1.json")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    before = {name: fact for name, fact in facts(dest).items() if (dest / name).with_suffix(".json").exists()}
    assert len(before) >= 2 and not (dest / "manifest.json").exists()
    make(images, dest, tiny_vae, flip=True)
    assert before.items() <= facts(dest).items() and len(facts(dest)) == UNITS
    assert not list(dest.glob(".*.partial"))
    assert [row["id"] for row in rows_of(dest)] == [row["id"] for row in rows_of(whole)]
