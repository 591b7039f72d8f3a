"""Four processes over gloo take the steps of one, however parameters lie over them, across stops and changes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hastezoo.training.checkpoints import Checkpoints
from tests import ranks
from tests.stored import newest
from tests.training import four
from tests.training.test_alignment_run import lines
from tests.training.test_resume import assert_same

# The order of sums over processes and portions, through six steps of AdamW.
TOLERANCE = 2e-6
BF16 = 2e-3  # a gathered bfloat16 weight is the one that autocast makes; norms are gathered in it too


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of four.py, in one launch."""
    folder = tmp_path_factory.mktemp("four")
    ranks.call(4, "tests.training.four.train_all", folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("ddp", "ddp-gradient"):
        end, settings = four.RUNS[name]
        four.train(folder / name, end, four.STEPS, *settings)
    return folder


def curve(run: Path) -> dict[int, dict[str, float]]:
    """Every loss and gradient norm by step."""
    return {
        row["step"]: {key: row[key] for key in row.keys() - {"step", "seconds"}} for row in lines(run / "metrics.jsonl")
    }


def assert_same_curve(run: Path, other: Path, tolerance: float) -> None:
    ours, theirs = curve(run), curve(other)
    assert list(ours) == list(theirs) == list(range(1, four.STEPS + 1))
    for step in ours:
        assert ours[step] == pytest.approx(theirs[step], rel=tolerance), step


@pytest.mark.parametrize("name", ["ddp", "ddp-sharded", "fsdp", "fsdp-accumulated", "hybrid", "switched"])
def test_every_engine_takes_the_steps_of_one_process(runs: Path, alone: Path, name: str) -> None:
    assert_same_curve(runs / name, alone / "ddp", TOLERANCE)
    assert any("attention" in row for row in curve(runs / name).values())
    state, wanted = newest(runs / name), newest(alone / "ddp")
    assert state is not None and wanted is not None
    assert state["alignment"] == wanted["alignment"] and "projector" not in state
    for part in ("model", "ema"):
        for key, value in wanted[part].items():
            apart = (state[part][key] - value).abs()
            if key.endswith("qkv.bias"):  # softmax does not see the keys' bias: its gradient is noise
                apart = apart.view(3, -1)[[0, 2]]
            assert apart.max() < 5e-5, f"{part}.{key}"


def test_bfloat16_is_gathered_as_autocast_rounds(runs: Path) -> None:
    assert_same_curve(runs / "fsdp-bf16", runs / "ddp-bf16", BF16)
    state = newest(runs / "fsdp-bf16")
    assert state is not None and {one.dtype for one in state["model"].values()} == {torch.float32}
    exact = curve(runs / "fsdp")
    assert any(row != pytest.approx(exact[step], rel=1e-5) for step, row in curve(runs / "fsdp-bf16").items())


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_the_trigger_sees_the_same_gradients(runs: Path, alone: Path, engine: str) -> None:
    ours, theirs = (
        lines(folder / "alignment.jsonl") for folder in (runs / f"{engine}-gradient", alone / "ddp-gradient")
    )
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [2, 2]  # a look, and the end
    assert ours[0]["cosines"] == pytest.approx(theirs[0]["cosines"], abs=1e-4)
    assert_same_curve(runs / f"{engine}-gradient", alone / "ddp-gradient", TOLERANCE)


def test_stopped_and_gone_on_with(runs: Path, alone: Path) -> None:
    """The order in which DDP sums over more than two processes is another after its first step; not so FSDP's."""
    assert_same_curve(runs / "ddp-broken", alone / "ddp", TOLERANCE)


@pytest.mark.parametrize("name", ["fsdp", "fsdp-gradient"])
def test_stopped_and_gone_on_with_bit_for_bit(runs: Path, name: str) -> None:
    whole, broken = newest(runs / name), newest(runs / f"{name}-broken")
    assert_same(broken, whole)
    saved = [(runs / one / "x.safetensors").read_bytes() for one in (name, f"{name}-broken")]
    assert saved[0] == saved[1]


def test_kinds_of_checkpoints(runs: Path) -> None:
    kept = {
        name: [path.name for path in Checkpoints(runs / name / "checkpoints").paths()]
        for name in ("ddp", "ddp-sharded", "fsdp", "switched")
    }
    assert kept["ddp"] == ["step-00000006.pt", "step-00000003.pt"]
    assert kept["ddp-sharded"] == kept["fsdp"] == ["step-00000006", "step-00000003"]
    assert kept["switched"] == ["step-00000006", "step-00000005"]
    about = json.loads((runs / "fsdp" / "checkpoints" / "step-00000006" / "checkpoint.json").read_text())
    assert about["processes"] == len(about["files"]) == 4
    sizes = sorted(about["files"].values())
    assert sizes[-1] < 1.1 * sizes[0]  # each its share
    assert not list(runs.rglob("*.partial"))


def test_the_average_is_saved_whole(runs: Path) -> None:
    from safetensors.torch import load_file

    state = newest(runs / "fsdp")
    assert state is not None
    saved = load_file(runs / "fsdp" / "x.safetensors")
    for name, value in saved.items():
        assert torch.equal(value, state["ema"][name]), name


def test_looks_at_a_run_that_is_spread(runs: Path, tmp_path: Path) -> None:
    """Grids and diagnoses are of the whole networks, as one process sees them."""
    four.train(tmp_path / "alone", "step", four.LOOKED_AT, *four.LOOKS)
    folders = runs / "looked-at", tmp_path / "alone"
    ours, theirs = (lines(folder / "diagnostics.jsonl") for folder in folders)
    assert [row["step"] for row in ours] == [2]
    for found, wanted in zip(ours, theirs, strict=True):
        assert found["cknna"] == pytest.approx(wanted["cknna"], abs=1e-4)
        assert found["attention_kl"] == pytest.approx(wanted["attention_kl"], rel=1e-4)
    drawn = [np.asarray(Image.open(folder / "samples" / "step-00000002.png"), np.int16) for folder in folders]
    assert drawn[0].std() > 10 and abs(drawn[0] - drawn[1]).max() <= 2
