"""Two processes over gloo take the steps of one, up to the order of a sum, with alignment and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training import test_resume
from tests.training.test_alignment_run import ENDED, lines, train
from tests.training.test_resume import assert_same, final

# Past the step that alignment ends with, and for one of them past the first epoch.
STEPS = {"step": 15, "gradient": 8}

# All runs in one launch: a launcher and its two workers take seconds to start.
TWO = """
import sys
from pathlib import Path
import torch
from hastezoo import processes
from tests.training import test_resume
from tests.training.test_alignment_run import train
from tests.training.test_two_processes import STEPS

joined = processes.join_processes(torch.device("cpu"))  # once: a group that was left is not joined again
leave = processes.leave_processes
processes.join_processes, processes.leave_processes = lambda device: joined, lambda: None
out = Path(sys.argv[1])
test_resume.train(out / "plain", 12)
for end, steps in STEPS.items():
    train(out / f"whole {end}", steps, end)
    train(out / f"broken {end}", 3, end)
    train(out / f"broken {end}", steps, end)
leave()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain run of 12 steps, and aligned ones in one go, and stopped before alignment ends and going on across it."""
    out = tmp_path_factory.mktemp("two")
    script = out / "two.py"
    script.write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([*launch, str(out)], timeout=240, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return out


def test_a_plain_run_that_one_process_goes_on_with(two_processes: Path, tmp_path: Path) -> None:
    resumed = test_resume.train(two_processes / "plain", 16)
    whole = test_resume.train(tmp_path / "alone", 16)
    for kind in ("model", "ema"):
        for name, value in whole[kind].items():
            assert (resumed[kind][name] - value).abs().max() < 2e-5, f"{kind}.{name}"


@pytest.mark.parametrize("end", STEPS)
def test_resumed_bit_for_bit(two_processes: Path, end: str) -> None:
    whole = final(two_processes / f"whole {end}")
    assert_same(final(two_processes / f"broken {end}"), whole)
    assert whole["alignment"]["ended_at"] == ENDED[end]


@pytest.mark.parametrize("end", STEPS)
def test_the_steps_of_one(two_processes: Path, tmp_path: Path, end: str) -> None:
    whole, alone = final(two_processes / f"whole {end}"), train(tmp_path / "alone", STEPS[end], end)
    for name, value in alone["model"].items():
        apart = (whole["model"][name] - value).abs()
        if name.endswith("qkv.bias"):  # softmax does not see the keys' bias: its gradient is noise, which Adam enlarges
            apart = apart.view(3, -1)[[0, 2]]
        assert apart.max() < 5e-5, name
    folders = two_processes / f"whole {end}", tmp_path / "alone"
    said, wanted = ([row["loss"] for row in lines(folder / "metrics.jsonl")] for folder in folders)
    assert said == pytest.approx(wanted, rel=1e-4)
    looks: list[list[Any]] = [[seen["cosines"] for seen in state["alignment"]["history"]] for state in (whole, alone)]
    for ours, theirs in zip(*looks, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
