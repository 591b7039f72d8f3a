"""Blocks that are compiled train as those that are not, and their checkpoints are the same kind of thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.test_alignment_run import lines
from tests.training.test_resume import final, train

pytestmark = pytest.mark.slow
STEPS = 6
EVERY = "train.log_every=1"
COMPILED = "train.compile=true"


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler")
    out = tmp_path_factory.mktemp("eager") / "run"
    train(out, STEPS, EVERY)
    return out


def losses(out: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in lines(out / "metrics.jsonl")}


def test_losses_are_those_of_a_run_that_is_not_compiled(eager: Path, tmp_path: Path) -> None:
    """Begun compiled, gone on with not, and compiled again: what lies in a checkpoint has the same names."""
    from torch._dynamo.utils import counters

    out = tmp_path / "run"
    counters.clear()
    train(out, 3, EVERY, COMPILED)
    assert counters["stats"]["calls_captured"] > 0
    train(out, 4, EVERY)
    train(out, STEPS, EVERY, COMPILED)
    ours, theirs = losses(out), losses(eager)
    assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
    assert list(ours.values()) == pytest.approx(list(theirs.values()), abs=1e-4)
    state, wanted = final(out), final(eager)
    for part in ("model", "ema"):
        assert state[part].keys() == wanted[part].keys()
    assert (
        state["model"]["final_layer.linear.weight"] - wanted["model"]["final_layer.linear.weight"]
    ).abs().max() < 1e-4
