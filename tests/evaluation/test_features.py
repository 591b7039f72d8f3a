"""Features in chunks: the same files however many processes made them and however often they were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, Pixels
from hastezoo.evaluation.features import CHUNK, FeatureStore, extract, there, wait
from tests.evaluation.invented import Invented

IDENTITY = {"images": "invented", "features": "pixels"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def made(
    folder: Path, count: int, images: Invented | None = None, *, ranks: int = 1, batch_size: int = 64
) -> FeatureStore:
    """A store that `ranks` processes filled, the last one first."""
    for rank in reversed(range(ranks)):
        store = FeatureStore(folder, IDENTITY)
        extract(images or Invented(count), Pixels(), store, count=count, batch_size=batch_size, rank=rank, ranks=ranks)
    return store


def test_chunks_hold_the_features_in_order(tmp_path: Path) -> None:
    images = Invented(1203)
    store = made(tmp_path, 1203, images)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{chunk:06d}.safetensors" for chunk in range(3)]
    wanted = images.read(0, 1203).reshape(1203, -1) * (16 / 255)
    assert np.allclose(store.matrix(POOL, 1203), wanted, rtol=1e-6)
    assert [len(part) for part in store.chunks(POOL, 1203)] == [CHUNK, CHUNK, 203]
    assert np.array_equal(np.concatenate(list(store.chunks(POOL, 700))), store.matrix(POOL, 1203)[:700])
    assert store.names() == [POOL] and there(store, 1203) == 1203


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 1), (2, 64), (3, 7), (5, 2000)])
def test_the_bytes_depend_on_neither_processes_nor_batches(tmp_path: Path, ranks: int, batch_size: int) -> None:
    made(tmp_path / "one", 1600)
    made(tmp_path / "other", 1600, ranks=ranks, batch_size=batch_size)
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_each_process_draws_its_chunks_alone(tmp_path: Path) -> None:
    images = Invented(2100)
    extract(images, Pixels(), FeatureStore(tmp_path, IDENTITY), count=2100, batch_size=500, rank=1, ranks=3)
    assert images.asked == [(500, 1000), (2000, 2100)]


def test_more_samples_are_drawn_to_those_that_are_there(tmp_path: Path) -> None:
    made(tmp_path, 1203)
    images = Invented(2000)
    store = made(tmp_path, 2000, images, batch_size=500)
    assert images.asked == [(1000, 1500), (1500, 2000)]  # the third chunk was not full
    again = Invented(600)
    made(tmp_path, 600, again)
    assert again.asked == [] and len(store.matrix(POOL, 600)) == 600


def test_features_of_something_else_are_not_overwritten(tmp_path: Path) -> None:
    made(tmp_path, 600)
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"made with another seed \(none, now 7\); give another --out"):
        FeatureStore(tmp_path, {**IDENTITY, "seed": "7"})
    assert files(tmp_path) == before


def test_a_chunk_of_something_else_that_came_meanwhile_does_not_count(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, IDENTITY)
    FeatureStore(tmp_path, {**IDENTITY, "seed": "7"}).write(0, np.zeros(500, np.int64), {POOL: np.ones((500, 2))})
    assert store.rows(0) == 0 and there(store, 500) == 0


def test_a_damaged_chunk_is_made_anew(tmp_path: Path) -> None:
    made(tmp_path, 1203)
    before = files(tmp_path)
    (tmp_path / "000001.safetensors").write_bytes(before["000001.safetensors"][:100])
    images = Invented(1203)
    made(tmp_path, 1203, images, batch_size=500)
    assert images.asked == [(500, 1000)] and files(tmp_path) == before


def test_a_chunk_that_went_is_named(tmp_path: Path) -> None:
    store = made(tmp_path, 1203)
    (tmp_path / "000001.safetensors").unlink()
    with pytest.raises(UserError, match=r"000001\.safetensors cannot be read .*it is made anew"):
        store.matrix(POOL, 1203)


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Broken(Pixels):
        def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
            return {POOL: np.full((len(images), 3), np.nan, np.float32)}

    with pytest.raises(UserError, match=r"the pool features of images 0\.\.9 are not finite"):
        extract(Invented(10), Broken(), FeatureStore(tmp_path, IDENTITY), count=10, batch_size=4)
    assert not list(tmp_path.iterdir())


class Wanting:
    """A watcher who wants what it has not seen."""

    def __init__(self) -> None:
        self.seen: dict[int, np.ndarray] = {}

    def wants(self, indices: range) -> bool:
        return indices.start not in self.seen

    def see(self, indices: range, images: np.ndarray) -> None:
        self.seen[indices.start] = images


def test_a_watcher_sees_every_image_even_where_features_are_there(tmp_path: Path) -> None:
    made(tmp_path, 700)
    images, watcher = Invented(700), Wanting()
    store = FeatureStore(tmp_path, IDENTITY)
    extract(images, Pixels(), store, count=700, batch_size=64, watchers=[watcher])
    assert np.array_equal(np.concatenate([watcher.seen[0], watcher.seen[500]]), images.read(0, 700))
    wait(store, 700, [watcher])  # returns, for nobody wants anything


def test_progress_counts_what_is_there_of_all_processes(tmp_path: Path) -> None:
    told: list[int] = []
    store = FeatureStore(tmp_path, IDENTITY)
    extract(Invented(1100), Pixels(), store, count=1100, batch_size=250, rank=1, ranks=2)
    extract(Invented(1100), Pixels(), store, count=1100, batch_size=250, rank=0, ranks=2, progress=told.append)
    assert told == [750, 1000, 1000, 1100, 1100]


SLOW = """
import sys, time
from pathlib import Path
from hastezoo.evaluation.extractors import Pixels
from hastezoo.evaluation.features import FeatureStore, extract
from tests.evaluation.invented import Invented

class Slow(Invented):
    def read(self, start, stop):
        time.sleep(0.02)
        return super().read(start, stop)

assert "torch" not in sys.modules
extract(Slow(3200), Pixels(), FeatureStore(Path(sys.argv[1]), {identity!r}), count=3200, batch_size=100)
"""


def test_killed_three_times_it_leaves_the_same_bytes(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", SLOW.replace("{identity!r}", repr(IDENTITY)), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for kills in range(3):
        process = subprocess.Popen(command, env=environment, cwd=tmp_path)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "killed").glob("0*.safetensors"))) <= kills and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert 3 <= len(list((tmp_path / "killed").glob("0*.safetensors"))) < 7
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=60)
    store = FeatureStore(tmp_path / "killed", IDENTITY)
    wait(store, 3200)  # also tidies up what was half-written
    made(tmp_path / "whole", 3200)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
