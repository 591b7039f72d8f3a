"""From a folder of images to images of one's own model, with the real commands: prepare, inspect, train, kill, resume,
export, sample. Training is by two processes over gloo; everything else is in this one, since an import costs seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hastezoo.cli.main import main as hastezoo
from hastezoo.files import alone_in
from hastezoo.zoo.registry import find_card
from tests.recipes.small import arguments, losses, train
from tests.stored import newest as newest_state

# The order of a sum of gradients over two processes, through 20 or so steps of AdamW.
TOLERANCE = 2e-4


def call(*words: Any) -> str:
    result = CliRunner().invoke(hastezoo, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def two_processes(*words: str) -> subprocess.Popen[bytes]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launch, "-m", "hastezoo.recipes.imagenet256", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True)


def kill(process: subprocess.Popen[bytes], checkpoint: Path) -> None:
    """SIGKILL to the launcher, once there is such a checkpoint; its orphans end at once, and the folder is free."""
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None and checkpoint.exists()
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    with alone_in(checkpoint.parents[1], "training in"):
        pass


@pytest.fixture(scope="module")
def data(pictures: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared and inspected by the commands."""
    dest = tmp_path_factory.mktemp("chain") / "data"
    options = ("--resolution", 64, "--vae", tiny_vae, "--shard-size", 100, "--quiet")
    assert "240 images of 5 classes" in call("prepare", "folder", pictures, dest, *options)
    assert "every file has the manifest's sha256" in call("inspect", dest, "--images", 4)
    assert Image.open(dest / "inspection.png").size == (8 * 66 + 2, 66 + 2)
    return dest


@pytest.fixture(scope="module")
def trained(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By two processes that were killed, by two that went on and accumulated gradients, and at last by one."""
    out = tmp_path_factory.mktemp("runs") / "killed"
    kill(two_processes(*arguments(data, teacher, out, "train.steps=100000")), out / "checkpoints" / "step-00000004.pt")
    killed = newest(out)
    assert killed >= 4 and not list(out.glob("*.safetensors"))
    spread = ("train.accumulation=2", "train.workers=1")
    process = two_processes(*arguments(data, teacher, out, f"train.steps={killed + 3}", *spread))
    assert process.wait(120) == 0 and newest(out) == killed + 3
    result = train(data, teacher, out, f"train.steps={killed + 6}", "train.sample_every=100", "grid.steps=4")
    assert result.exit_code == 0, result.output
    return out


def newest(out: Path) -> int:
    state = newest_state(out)
    assert state is not None
    return int(state["step"])


def test_the_loss_curve_does_not_depend_on_processes_or_stops(
    trained: Path, data: Path, teacher: Path, tmp_path: Path
) -> None:
    """Two processes, then one, against one process that was never stopped: every loss and gradient norm, each step."""
    steps = newest(trained)
    result = train(data, teacher, tmp_path / "whole", f"train.steps={steps}")
    assert result.exit_code == 0, result.output
    broken, whole = losses(trained), losses(tmp_path / "whole")
    assert list(broken) == list(whole) == list(range(1, steps + 1))
    for step in whole:
        assert len(whole[step]) == (5 if step <= 6 else 3)  # alignment ends with step 6
        np.testing.assert_allclose(broken[step], whole[step], rtol=TOLERANCE, err_msg=f"step {step}")


def test_export_and_sample(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = call("export", trained, "--as", "sit-mine")
    assert "hastezoo sample --model sit-mine" in output
    card = find_card("sit-mine")
    assert card.steps == newest(trained) and card.method == "haste" and card.resolution == 64
    call("sample", "--model", "sit-mine", "--class", "photograph", "--class", "digit-2", "--steps", 4, "--out", "drawn")
    drawn = sorted(Path("drawn").glob("*.png"))
    assert len([path for path in drawn if Image.open(path).size == (64, 64)]) == 2
    assert "haste" in call("info", "sit-mine")
    assert call("push", "sit-mine", "--repo", "me/sit-mine", "--licence", "mit", "--dry-run")


def test_what_the_run_says_of_itself(trained: Path, data: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["recipe"] == "imagenet256" and record["checkpoint"] == "sit-b-haste"
    assert record["classes"] == ["digit-0", "digit-1", "digit-2", "digit-3", "photograph"]
    assert record["samples"] == 240 and record["processes"] == 1 and record["resolution"] == 64
    config = json.loads((trained / "config.json").read_text())
    assert config["data"]["path"] == str(data) and len(config["data"]["fingerprint"]) == 16
    assert len(list((trained / "samples").glob("step-*.png"))) == 1
