"""2N steps equal N, stop, resume, N: parameters, EMA and optimizer, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from hastezoo.errors import REQUEUE, UserError
from hastezoo.recipes.digits import DigitsConfig, main, run
from hastezoo.training.checkpoints import Checkpoints
from hastezoo.training.config import configure
from tests.stored import newest as newest_state

# 1437 digits in batches of 200: 7.185 steps an epoch, so every stop below is in the middle of one.
SMALL = [
    "model.depth=2", "model.width=32", "model.heads=2", "train.batch_size=200", "train.ema_decay=0.9",
    "train.sample_every=0", "train.log_every=2", "train.checkpoint_every=5", "train.optimizer.warmup_steps=6",
]  # fmt: skip


def small(*settings: str) -> DigitsConfig:
    return configure(DigitsConfig(), None, [*SMALL, *settings])


def train(out: Path, steps: int, *settings: str) -> dict[str, Any]:
    run("sit-ti-digits", small(f"train.steps={steps}", *settings), out, device="cpu", quiet=True)
    return final(out)


def final(out: Path) -> dict[str, Any]:
    state = newest_state(out)
    assert state is not None
    return state


def assert_same(a: Any, b: Any, place: str = "state") -> None:
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{place}.{index}")
    else:
        assert a == b, place


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps in one go."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train(out, 20)
    return out


@pytest.mark.parametrize("stop", [10, 13])
def test_stop_and_resume(unbroken: Path, tmp_path: Path, stop: int) -> None:
    train(tmp_path / "run", stop)
    assert_same(train(tmp_path / "run", 20), final(unbroken))
    weights = [path / "sit-ti-digits.safetensors" for path in (tmp_path / "run", unbroken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == 20


def arguments(out: Path, *changes: str) -> list[str]:
    settings = [part for setting in [*SMALL, *changes] for part in ("--set", setting)]
    return ["--checkpoint", "sit-ti-digits", "--out", str(out), "--device", "cpu", "--quiet", *settings]


def wait_for(path: Path, running: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not path.exists() and running() and time.monotonic() < deadline:
        time.sleep(0.005)


def goes_on(out: Path, whole: Path) -> None:
    """A run that was stopped is, seven steps on, the run that never was."""
    target = final(out)["step"] + 7
    assert_same(train(out, target), train(whole, target))
    assert not list(out.rglob("*.partial"))


def test_sigkill(tmp_path: Path) -> None:
    """It goes on from the last checkpoint."""
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-m", "hastezoo.recipes.digits", *arguments(out, "steps=100000")])
    wait_for(out / "checkpoints" / "step-00000010.pt", lambda: process.poll() is None)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert final(out)["step"] >= 10
    goes_on(out, tmp_path / "whole")


# One checkpoint is written on the way, at step 5; any other is the signal's.
RARELY = ("train.keep_at=[5]", "train.checkpoint_every=100000")


def test_sigint(tmp_path: Path) -> None:
    """A checkpoint is written; the exit code says so."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "hastezoo.recipes.digits", *arguments(out, "steps=100000", *RARELY)]
    process = subprocess.Popen(command)
    wait_for(out / "checkpoints" / "step-00000005.pt", lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert 5 < final(out)["step"] < 100_000
    goes_on(out, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_stops_it(tmp_path: Path, number: signal.Signals) -> None:
    """As SIGINT, but the exit code is one to requeue on, and a second signal changes nothing.

    In this process, since to start another takes seconds; afterwards its handlers are its own again.
    """
    out, training = tmp_path / "run", threading.Event()

    def send() -> None:
        wait_for(out / "checkpoints" / "step-00000005.pt", training.is_set)
        for _ in range(2 if training.is_set() else 0):
            os.kill(os.getpid(), number)

    def not_caught(number: int, frame: Any) -> None:
        raise AssertionError("the signal was not caught")

    before = {each: signal.signal(each, not_caught) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    sender = threading.Thread(target=send)
    try:
        training.set()
        sender.start()
        result = CliRunner().invoke(main, arguments(out, "steps=400", *RARELY))
        training.clear()
        sender.join()
        assert all(signal.getsignal(each) is not_caught for each in before)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert result.exit_code == REQUEUE == 75, result.output
    assert 5 < final(out)["step"] < 400
    goes_on(out, tmp_path / "whole")


def test_running_a_finished_run_again_changes_nothing(unbroken: Path) -> None:
    before = final(unbroken)
    metrics = (unbroken / "metrics.jsonl").read_bytes()
    assert_same(train(unbroken, 20), before)
    assert (unbroken / "metrics.jsonl").read_bytes() == metrics


def test_the_seed_matters_and_nothing_else_does(unbroken: Path, tmp_path: Path) -> None:
    torch.manual_seed(12345)
    assert_same(train(tmp_path / "same", 20), final(unbroken))
    other = train(tmp_path / "other", 20, "train.seed=1")
    assert not torch.equal(
        other["model"]["blocks.0.attn.qkv.weight"], final(unbroken)["model"]["blocks.0.attn.qkv.weight"]
    )


def test_the_loss_falls(tmp_path: Path) -> None:
    train(tmp_path / "run", 60, "train.log_every=10", "train.batch_size=32")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert set(rows[0]) == {"step", "loss", "denoising", "grad_norm", "lr", "seconds"}


def test_warmup_raises_the_rate_linearly(unbroken: Path) -> None:
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    rate = DigitsConfig().train.optimizer.lr
    assert [row["lr"] / rate for row in rows[:4]] == pytest.approx([2 / 6, 4 / 6, 1, 1])


def test_ema_follows_the_parameters(tmp_path: Path) -> None:
    """One step from equal weights: ema = w0 + (1 - decay) (w1 - w0)."""
    state = train(tmp_path / "run", 1)
    config = small("train.steps=1")
    torch.manual_seed(config.train.seed)
    from hastezoo.models.registry import create_model

    start = create_model(config.architecture, **config.model).state_dict()
    for name, ema in state["ema"].items():
        wanted = start[name] + 0.1 * (state["model"][name] - start[name])
        assert (ema - wanted).abs().max() < 1e-7, name


def test_a_broken_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out, 10)
    newest = Checkpoints(out / "checkpoints").paths()[0]
    assert newest.name == "step-00000010.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"step-00000010\.pt cannot be read"):
        assert final(out)["step"] == 5


def test_only_the_last_checkpoints_are_kept(unbroken: Path) -> None:
    assert [path.name for path in Checkpoints(unbroken / "checkpoints").paths()] == [
        "step-00000020.pt",
        "step-00000015.pt",
    ]


def test_a_loss_that_is_not_finite_stops_with_the_last_checkpoint_good(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not finite by step"):
        train(
            tmp_path / "run",
            40,
            "train.optimizer.lr=1e15",
            "train.optimizer.warmup_steps=0",
            "train.checkpoint_every=1",
        )
    state = final(tmp_path / "run")
    assert state["step"] >= 1 and all(torch.isfinite(value).all() for value in state["model"].values())


def test_bf16_trains(tmp_path: Path) -> None:
    state = train(tmp_path / "run", 3, "train.precision=bf16")
    assert {value.dtype for value in state["model"].values()} == {torch.float32}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.num_classes=5", "with 10 classes"),
        ("model.input_size=16", "1 x 8 x 8"),
        ("model.width=33", "not a multiple of heads"),
        ("model.widht=32", "nearest: width"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", 1, setting)
    assert not (tmp_path / "run").exists()


def test_fresh_discards_the_run_and_nothing_else_and_not_for_bad_settings(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out, 5)
    (out / "notes.txt").write_text("a user's own")
    with pytest.raises(UserError, match="nearest: width"):
        run("sit-ti-digits", small("train.steps=5", "model.widht=1"), out, device="cpu", fresh=True, quiet=True)
    assert final(out)["step"] == 5
    run("sit-ti-digits", small("train.steps=3", "train.seed=1"), out, device="cpu", fresh=True, quiet=True)
    assert final(out)["step"] == 3 and (out / "notes.txt").exists()
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3


def test_parameters_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss and gradient of a step are fine; the step itself is not."""
    step = torch.optim.AdamW.step

    def overflow(self: torch.optim.AdamW, *rest: Any) -> Any:
        step(self, *rest)
        self.param_groups[0]["params"][0].data.view(-1)[0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(UserError, match=r"a parameter is not finite by step 1 .*nothing was saved yet"):
        train(tmp_path / "run", 4, "train.checkpoint_every=1")
    assert newest_state(tmp_path / "run") is None


def test_sample_grids_are_drawn_on_the_way(tmp_path: Path) -> None:
    train(tmp_path / "run", 2, "train.sample_every=1")
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == [
        "step-00000001.png",
        "step-00000002.png",
    ]
