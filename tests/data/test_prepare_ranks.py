"""Preparations shared out over ranks, which share nothing but the folder: the files of one process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hastezoo.data import prepare as preparation
from hastezoo.data import ranks
from hastezoo.data.folders import ClassFolders
from hastezoo.data.locks import at_work
from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import Machine, prepare, prepare_share
from hastezoo.data.ranks import Ranks
from hastezoo.errors import UserError
from tests.data.comparing import assert_near, assert_same, contents, facts, one_line
from tests.data.making import COUNT, SHARD, SIDE, UNITS, Watching, interrupt, make, settings_of, spoil


def share(images: Path, dest: Path, vae: Path, rank: int, count: int, watch: Any = None, max_bad: int = 100) -> Any:
    """What one of several ranks does, on the CPU; the first of them gives the manifest."""
    machine = Machine("cpu", threads=2, max_bad=max_bad, ranks=Ranks(rank, count))
    work = prepare_share if rank else prepare
    return work(ClassFolders(images, SHARD), dest, settings_of(vae, flip=True), machine, watch)


def until(what: Any) -> None:
    limit = time.monotonic() + 60
    while not what():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rank looks often, and says soon what it waits for."""
    monkeypatch.setattr(preparation, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(ranks, "SILENCE", 0.05)
    monkeypatch.setattr(ranks, "AGAIN", 0.1)


def test_ranks_one_after_the_other(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    for rank in (2, 1):
        assert share(images, dest, tiny_vae, rank, 3) is None
    assert sorted(facts(dest)) == ["shard-00001.arrow", "shard-00002.arrow"] and not (dest / "manifest.json").exists()
    before, watch = facts(dest), Watching()
    manifest = share(images, dest, tiny_vae, 0, 3, watch)
    assert manifest == Manifest.read(dest) and before.items() <= facts(dest).items()
    assert watch.began == (2 * SHARD, COUNT, 2, UNITS) and watch.done == COUNT - 2 * SHARD
    assert_same(dest, whole)
    assert {path.name for path in dest.iterdir() if path.name.startswith(".")} == {".lock"}
    share(images, dest, tiny_vae, 1, 3)  # started again when all is done: nothing is left to do
    assert_same(dest, whole)


@pytest.mark.usefixtures("hasty")
def test_ranks_at_once_and_the_first_waits(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """The first sees what the others make, and says of whom it waits for shards."""
    dest, watch = tmp_path / "dest", Watching()
    with ThreadPoolExecutor(3) as pool:
        first: Future[Manifest] = pool.submit(share, images, dest, tiny_vae, 0, 3, watch)
        pool.submit(share, images, dest, tiny_vae, 2, 3).result()
        until(lambda: watch.waited and watch.waited[-1].units == [1] and len(watch.waited) > 1)
        assert not first.done() and not (dest / "manifest.json").exists()
        missing = watch.waited[-1]
        assert (missing.of_ranks, missing.total, missing.ranks) == ({1: 1}, UNITS, 3)
        pool.submit(share, images, dest, tiny_vae, 1, 3).result()
        assert first.result() == Manifest.read(dest)
    assert watch.done == COUNT
    assert_same(dest, whole)


def test_another_number_of_ranks_goes_on(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    share(images, dest, tiny_vae, 1, 3)
    with pytest.raises(KeyboardInterrupt):
        share(images, dest, tiny_vae, 0, 2, Watching(SHARD + 1, interrupt))
    before = facts(dest)
    assert sorted(before) == ["shard-00000.arrow", "shard-00001.arrow"] and not list(dest.glob(".*.partial"))
    share(images, dest, tiny_vae, 1, 2)
    between = facts(dest)
    assert before.items() <= between.items() and set(between) - set(before) == {"shard-00003.arrow"}
    make(images, dest, tiny_vae, flip=True)
    assert between.items() <= facts(dest).items()
    assert_same(dest, whole)


def test_partial_files_of_other_ranks_stay(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """Whose process may be writing them. Those of its own are of one that was killed."""
    dest = tmp_path / "dest"
    dest.mkdir()
    for unit in range(UNITS):
        (dest / f".shard-{unit:05d}.arrow.1.partial").touch()
    share(images, dest, tiny_vae, 1, 2)
    assert sorted(path.name[7:12] for path in dest.glob(".*.partial")) == ["00000", "00002"]


def test_ranks_and_others_refuse_each_other(
    images: Path, whole: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "dest"
    share(images, dest, tiny_vae, 1, 2)
    before = contents(dest)
    monkeypatch.setattr(preparation, "at_work", lambda *given: at_work(*given, patience=0))
    with at_work(dest, Ranks(1, 2), "preparing"):
        with pytest.raises(UserError, match=r"^another process is preparing .*dest as rank 1 of 2; end it first$"):
            share(images, dest, tiny_vae, 1, 2)
        with pytest.raises(UserError, match=r"^rank 1 of 2 is preparing .*dest; wait for all of them, or end them fi"):
            make(images, dest, tiny_vae, flip=True)
        with pytest.raises(UserError, match=r"^rank 1 of 2 is preparing .*dest; wait for all of them, or end them fi"):
            share(images, dest, tiny_vae, 0, 3)
    assert contents(dest) == before
    with pytest.raises(UserError, match=r"was begun with flip True, not False"):
        prepare_share(
            ClassFolders(images, SHARD), dest, settings_of(tiny_vae), Machine("cpu", threads=1, ranks=Ranks(1, 2))
        )
    assert contents(dest) == before
    with pytest.raises(ValueError, match="rank 1 makes a share"):
        prepare(ClassFolders(images, SHARD), dest, settings_of(tiny_vae), Machine("cpu", ranks=Ranks(1, 2)))


def test_unreadable_images_are_counted_over_ranks(pictures: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """One too many in all, each of another rank; when they are mended, both make theirs anew."""
    names = ["astronaut/0.png", "astronaut/5.png", "rocket/5.png"]  # in units 0, 1 and 3
    good = {name: (pictures / name).read_bytes() for name in names}
    spoil(pictures, *names)
    dest = tmp_path / "dest"
    share(pictures, dest, tiny_vae, 1, 2, max_bad=2)
    with pytest.raises(UserError, match=r"^more than 2 images cannot be read, such as .*; mend the source") as error:
        share(pictures, dest, tiny_vae, 0, 2, max_bad=2)
    one_line(error)
    assert not (dest / "manifest.json").exists()
    for name, data in good.items():
        (pictures / name).write_bytes(data)
    for rank in (1, 0):
        share(pictures, dest, tiny_vae, rank, 2, max_bad=2)
    assert contents(dest, "*.arrow") == contents(whole, "*.arrow")


@pytest.mark.usefixtures("hasty")
def test_a_rank_that_waits_counts_the_unreadable_of_others(pictures: Path, tiny_vae: Path, tmp_path: Path) -> None:
    spoil(pictures, "astronaut/5.png", "rocket/5.png")  # both of rank 1
    dest, watch = tmp_path / "dest", Watching()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(share, pictures, dest, tiny_vae, 0, 2, watch, 1)
        until(lambda: watch.waited)
        share(pictures, dest, tiny_vae, 1, 2, max_bad=2)
        with pytest.raises(UserError, match="more than 1 images cannot be read, such as"):
            first.result()
    assert not (dest / "manifest.json").exists()


def test_a_share_without_an_image_is_not_made_anew(pictures: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """Other ranks may be at work on what can be read."""
    spoil(pictures, *(f"coffee/{number}.{'jpg' if number % 3 == 1 else 'png'}" for number in range(4)))
    spoil(pictures, "astronaut/5.png")  # all of unit 1
    dest = tmp_path / "dest"
    share(pictures, dest, tiny_vae, 1, 4)
    record = dest / "shard-00001.json"
    before = record.stat().st_ino, record.stat().st_mtime_ns
    share(pictures, dest, tiny_vae, 1, 4)
    share(pictures, dest, tiny_vae, 2, 4)
    assert before == (record.stat().st_ino, record.stat().st_mtime_ns)


@pytest.mark.slow
@pytest.mark.usefixtures("hasty")
def test_a_rank_that_is_killed_is_started_again_alone(
    images: Path, whole: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    """The first goes on meanwhile, and what the dead one finished stays."""
    dest, watch = tmp_path / "dest", Watching()
    arguments = ["prepare", "folder", images, dest, "--resolution", SIDE, "--vae", tiny_vae, "--flip"]
    options = ["--shard-size", SHARD, "--device", "cpu", "--threads", 1]
    # Slowed, so that the signal meets it at work.
    code = (
        "import time\nfrom hastezoo.cli.main import main\nfrom hastezoo.data.preparing import Preparer\n"
        "read = Preparer._read\n"
        "Preparer._read = lambda self, item: (time.sleep(0.1), read(self, item))[1]\nmain()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, [*arguments, *options])],
        env={**os.environ, "RANK": "1", "WORLD_SIZE": "2"},
    )
    with ThreadPoolExecutor(1) as pool:
        try:
            until(lambda: dest.exists())
            first = pool.submit(share, images, dest, tiny_vae, 0, 2, watch)
            until(lambda: (dest / "shard-00001.json").exists())
        finally:
            process.kill()
            process.wait()
        before = facts(dest)["shard-00001.arrow"]
        assert not (dest / "shard-00003.json").exists()
        until(lambda: watch.waited and watch.waited[-1].units == [3])
        assert not first.done()
        share(images, dest, tiny_vae, 1, 2)
        first.result()
    assert facts(dest)["shard-00001.arrow"] == before
    assert_near(dest, whole)
    assert {path.name for path in dest.iterdir() if path.name.startswith(".")} == {".lock"}
