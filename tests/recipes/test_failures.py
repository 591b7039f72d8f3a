"""What goes wrong in long training ends in one line that says what to do, and the last checkpoint stays good."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import Result

from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import prepare
from hastezoo.data.preparing import PrepareSettings
from hastezoo.data.source import open_source
from hastezoo.errors import REQUEUE
from tests.recipes.small import BATCH, arguments, losses, train
from tests.stored import newest as newest_state


def one_line(result: Result) -> str:
    """The message of a command that failed as users' mistakes do."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.output
    return lines[0]


def good_step(out: Path) -> int:
    state = newest_state(out)
    assert state is not None and all(torch.isfinite(tensor).all() for tensor in state["model"].values())
    return int(state["step"])


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    """The data set, to be damaged."""
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def test_a_truncated_shard_is_found_before_training(copy: Path, teacher: Path, tmp_path: Path) -> None:
    shard = copy / "shard-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-100])
    message = one_line(train(copy, teacher, tmp_path / "run", "train.steps=2"))
    assert "shard-00001.arrow has" in message and "copy it again" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(copy: Path, teacher: Path, tmp_path: Path, workers: int) -> None:
    """Also from a process that reads data, whose traceback is not shown."""
    for shard in copy.glob("*.arrow"):
        shard.write_bytes(shard.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    message = one_line(train(copy, teacher, tmp_path / "run", "train.steps=2", f"train.workers={workers}"))
    assert ".arrow is damaged (" in message and "cannot identify image" in message and "Traceback" not in message


def test_images_nobody_looks_at_are_not_read(copy: Path, teacher: Path, tmp_path: Path) -> None:
    """They could all be damaged: decoding is what reading costs, and a plain run, or one after tau, needs none."""
    out = tmp_path / "run"
    assert train(copy, teacher, out, "train.steps=6").exit_code == 0  # the last with a teacher
    for shard in copy.glob("*.arrow"):
        shard.write_bytes(shard.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    assert train(copy, teacher, out, "train.steps=7").exit_code == 0
    plain = ("train.steps=2", "data.flip=false", "alignment=none")
    assert train(copy, teacher, tmp_path / "plain", *plain).exit_code == 0


def test_log_variances_are_not_taken_for_deviations(copy: Path, teacher: Path, tmp_path: Path) -> None:
    """The manifest says mean-std, the files hold something else."""
    for shard in copy.glob("*.arrow"):
        with pa.ipc.open_stream(shard.read_bytes()) as reader:
            batches = list(reader)
        with shard.open("wb") as stream, pa.ipc.new_stream(stream, batches[0].schema) as writer:
            for batch in batches:
                rows = [np.frombuffer(one, "<f2").reshape(2, -1).copy() for one in batch.column("moments").to_pylist()]
                for row in rows:
                    row[1] = 2 * np.log(row[1])
                moments = pa.array([row.tobytes() for row in rows], pa.binary())
                place = batch.schema.get_field_index("moments")
                writer.write_batch(batch.set_column(place, batch.schema.field(place), moments))
    message = one_line(train(copy, teacher, tmp_path / "run", "train.steps=2"))
    assert "negative standard deviations" in message and "prepare it again" in message


def test_moments_of_another_kind_are_refused(copy: Path, teacher: Path, tmp_path: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"mean-std"', '"mean-logvar"'))
    message = one_line(train(copy, teacher, tmp_path / "run"))
    assert "holds moments of the kind mean-logvar, not mean-std; prepare it again" in message


def test_other_data_than_the_run_began_with(
    prepared: Path, pictures: Path, tiny_vae: Path, teacher: Path, tmp_path: Path
) -> None:
    """Not by its path, which may change, but by its samples."""
    out = tmp_path / "run"
    assert train(prepared, teacher, out, "train.steps=2").exit_code == 0
    moved = shutil.copytree(prepared, tmp_path / "moved")
    assert train(Path(moved), teacher, out, "train.steps=3").exit_code == 0
    settings = PrepareSettings(name="folder", resolution=64, vae=str(tiny_vae), image_format="jpeg")
    prepare(open_source(str(pictures), shard_size=100), tmp_path / "other", settings)
    message = one_line(train(tmp_path / "other", teacher, out, "train.steps=4"))
    assert "is not the data that the run in" in message and Manifest.read(prepared).fingerprint in message
    assert good_step(out) == 3


def test_fewer_samples_than_a_batch(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    message = one_line(train(prepared, teacher, tmp_path / "run", "train.batch_size=256"))
    assert "the data set has 240 samples, fewer than a batch of 256; set train.batch_size to 240 or less" in message


def test_a_batch_that_does_not_divide(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    message = one_line(train(prepared, teacher, tmp_path / "run", "train.accumulation=3"))
    assert f"{BATCH} / 3 = 5.33333" in message and "accumulation can be 1, 2, 4, 8" in message


def test_an_output_that_cannot_be_written(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    message = one_line(train(prepared, teacher, tmp_path / "file" / "run"))
    assert "cannot write to" in message and "give another --out" in message


def test_a_loss_that_is_not_finite(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("train.steps=60", "train.checkpoint_every=1", "optimizer.lr=1e15", "train.clip=none")
    message = one_line(train(prepared, teacher, out, *settings))
    assert "is not finite by step" in message and "is good" in message
    assert good_step(out) >= 1


def test_a_damaged_newest_checkpoint(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(prepared, teacher, out, "train.steps=8").exit_code == 0
    newest = out / "checkpoints" / "step-00000008.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    result = train(prepared, teacher, out, "train.steps=9")
    assert result.exit_code == 0 and good_step(out) == 9
    assert "step-00000008.pt cannot be read" in result.output and "trying the one before" in result.output


KILLED = """
import os, signal, sys
from hastezoo.data.prepared import Prepared
from hastezoo.recipes.imagenet256 import main

read, trainer, calls = Prepared.__getitems__, os.getpid(), [0]

def fatal(self, indices):
    calls[0] += 1
    if os.getpid() != trainer and calls[0] == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, indices)

Prepared.__getitems__ = fatal
main(sys.argv[1:])
"""


def test_a_reader_that_is_killed(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    """As the system does when memory runs out. In a process of its own: torch may raise at any place of it."""
    out = tmp_path / "run"
    settings = ("train.workers=1", "alignment.termination.step=90", "train.checkpoint_every=1", "train.steps=90")
    command = [sys.executable, "-c", KILLED, *arguments(prepared, teacher, out, *settings)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "a process that reads data has died" in result.stderr and "fewer train.workers" in result.stderr
    assert good_step(out) >= 1


def test_a_scheduler_that_stops_every_process(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    """SIGTERM reaches the readers too, and the step under way still needs them."""
    out = tmp_path / "run"
    settings = ("train.workers=1", "train.steps=100000", "train.checkpoint_every=100000")
    command = [sys.executable, "-m", "hastezoo.recipes.imagenet256", *arguments(prepared, teacher, out, *settings)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while len(losses(out)) < 9 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (REQUEUE, "")
    assert good_step(out) == max(losses(out)) >= 9


@pytest.mark.slow
def test_a_process_that_fails_among_two(copy: Path, teacher: Path, tmp_path: Path) -> None:
    """One says what is wrong, the other which one that is, and at what step; neither shows a traceback of ours."""
    for shard in copy.glob("*.arrow"):
        shard.write_bytes(shard.read_bytes().replace(b"\x89PNG", b"\x00PNG", 1))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launch, "-m", "hastezoo.recipes.imagenet256"]
    result = subprocess.run(
        [*command, *arguments(copy, teacher, tmp_path / "run", "train.steps=60", "alignment.termination.step=60")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = sorted(line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert result.returncode and len(said) in (1, 2) and "is damaged" in said[-1], result.stderr
    assert len(said) == 1 or re.match(r"error: rank \d \(host .*\) ended with an error at step \d+, ", said[0]), said
    assert "hastezoo/training" not in result.stderr


def test_a_full_disk(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    """A limit on the size of files, which a checkpoint exceeds and a log does not: EFBIG in the place of ENOSPC."""
    out = tmp_path / "run"
    assert train(prepared, teacher, out, "train.steps=4").exit_code == 0
    small = (out / "checkpoints" / "step-00000004.pt").stat().st_size // 2
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (small, hard))
        message = one_line(train(prepared, teacher, out, "train.steps=8"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "the checkpoint of step 8 cannot be written" in message and "File too large" in message
    assert "that of step 4 is good" in message
    assert good_step(out) == 4 and not list(out.rglob("*.partial"))
    assert train(prepared, teacher, out, "train.steps=8").exit_code == 0 and good_step(out) == 8


def test_two_commands_do_not_train_in_one_folder(
    prepared: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hastezoo import files

    monkeypatch.setattr(files.alone_in.__wrapped__, "__defaults__", (0.1,))  # type: ignore[attr-defined]
    out = tmp_path / "run"
    out.mkdir()
    with files.alone_in(out, "training in"):
        message = one_line(train(prepared, teacher, out, "train.steps=2"))
    assert "another process is training in" in message and not (out / "config.json").exists()
    assert train(prepared, teacher, out, "train.steps=2").exit_code == 0


def test_a_run_that_never_began_leaves_nothing(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    message = one_line(train(prepared, tmp_path / "no-teacher", out))
    assert "no-teacher" in message and not out.exists()


def test_grids_without_an_autoencoder(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    """Said before training, not after the first ten thousand steps."""
    settings = ("train.sample_every=10", f"grid.vae={tmp_path / 'nowhere'}")
    message = one_line(train(prepared, teacher, tmp_path / "run", *settings))
    assert "grids of samples need an autoencoder" in message and "train.sample_every=0" in message


def test_what_a_hook_measures_is_kept(prepared: Path, teacher: Path, tmp_path: Path) -> None:
    """The place for a quick FID: a hook sees the average, and its numbers go to a file of their own."""
    from hastezoo.recipes.latents import recipe_config, run
    from hastezoo.training.config import configure
    from hastezoo.training.loop import Hook
    from hastezoo.zoo.registry import find_card
    from tests.recipes.small import SETTINGS

    def measure(run: Any) -> None:
        weights = next(run.ema.model.parameters())
        run.evaluated(size=float(weights.norm()))

    settings = [*SETTINGS, f"alignment.teacher.name=local-dir:{teacher}", f"data.path={prepared}", "train.steps=5"]
    config = configure(recipe_config(find_card("sit-b-haste")), None, settings)
    out = tmp_path / "run"
    run("imagenet256", "sit-b-haste", config, out, device="cpu", quiet=True, hooks=[Hook(2, measure)])
    rows = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 5] and len({row["size"] for row in rows}) == 3
