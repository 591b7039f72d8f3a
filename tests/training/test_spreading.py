"""However a step is spread over backward passes, processes and readers, it is the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.data.batch import Batch
from hastezoo.errors import UserError
from hastezoo.files import alone_in
from hastezoo.training.config import TrainConfig
from hastezoo.training.feeding import check_batch, known_errors
from hastezoo.training.objective import Draws, clean, draw
from tests.training.test_alignment_run import train


def test_latents_are_drawn_from_their_posteriors() -> None:
    """mean + std * normal, anew at each step; the normals of a row are the same however the batch is spread."""
    whole = draw(1, 7, 8, (2, 3), 0.5, posterior=True)
    assert whole.posterior is not None
    batch = Batch(torch.full((8, 2, 3), 5.0), torch.arange(8), std=torch.full((8, 2, 3), 0.1))
    torch.testing.assert_close(clean(batch, whole), 5 + 0.1 * whole.posterior)
    parts = [draw(1, 7, 8, (2, 3), 0.5, posterior=True, rank=rank, processes=4) for rank in range(4)]
    spread = [part.rows(slice(row, row + 1)) for part in parts for row in range(2)]
    for name in ("t", "noise", "dropped", "posterior"):
        assert torch.equal(torch.cat([getattr(part, name) for part in spread]), getattr(whole, name))
    other = draw(1, 8, 8, (2, 3), 0.5, posterior=True)
    assert other.posterior is not None and not torch.equal(other.posterior, whole.posterior)
    assert not torch.equal(whole.posterior, whole.noise)


def test_drawing_latents_changes_no_other_draw() -> None:
    plain, latents = draw(1, 7, 8, (2, 3), 0.5), draw(1, 7, 8, (2, 3), 0.5, posterior=True)
    assert plain.posterior is None and torch.equal(plain.noise, latents.noise) and torch.equal(plain.t, latents.t)


def test_data_without_deviations_is_what_it_is() -> None:
    data = torch.randn(4, 2)
    draws = Draws(torch.rand(4), torch.randn(4, 2), torch.zeros(4, dtype=torch.bool))
    assert clean(Batch(data, torch.arange(4)), draws) is data


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("runs") / "at-once", 14, "step")


@pytest.mark.parametrize("settings", [["accumulation=4"], ["activation_checkpointing=true"], ["workers=2"]])
def test_a_step_is_the_same_however_it_is_done(at_once: dict[str, Any], tmp_path: Path, settings: list[str]) -> None:
    """With alignment and after its end; up to the order of sums, which reading and recomputing do not change."""
    state = train(tmp_path / "run", 14, "step", *(f"train.{setting}" for setting in settings))
    found = differences(state, at_once)
    assert max(found.values()) < 1e-6 if "accumulation" in settings[0] else set(found.values()) == {0.0}, found


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """The largest of each parameter and its average, but for the keys' bias: softmax does not depend on it, so that its
    gradient is rounding noise, which Adam makes as large as any other."""
    found = {}
    for kind in ("model", "ema"):
        for name, value in a[kind].items():
            gap = (value - b[kind][name]).abs()
            if name.endswith("attn.qkv.bias"):
                queries, _, values = gap.chunk(3)
                gap = torch.cat([queries, values])
            found[f"{kind}.{name}"] = float(gap.max())
    return found


def test_how_a_run_is_spread_may_change_when_it_goes_on(at_once: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path / "run", 5, "step", "train.accumulation=2", "train.workers=1")
    state = train(tmp_path / "run", 14, "step", "train.activation_checkpointing=true")
    assert max(differences(state, at_once).values()) < 1e-6


@pytest.mark.parametrize(
    ("batch", "samples", "processes", "accumulation", "message"),
    [
        (256, 1000, 3, 1, "batch_size 256 does not divide over 3 processes: 256 / 3 = 85.3333"),
        (256, 1000, 2, 3, r"over 2 processes x accumulation 3: 256 / 6 = 42.6667; .* can be 1, 2, 4, 8"),
        (256, 255, 1, 1, "255 samples, fewer than a batch of 256; set train.batch_size to 255 or less"),
    ],
)
def test_batches_that_cannot_be(batch: int, samples: int, processes: int, accumulation: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_batch(TrainConfig(steps=1, batch_size=batch, accumulation=accumulation), samples, processes)
    check_batch(TrainConfig(steps=1, batch_size=256, accumulation=4), 256, 8)


def test_milestones_stay(tmp_path: Path) -> None:
    settings = ("train.checkpoint_every=2", "train.keep=1", "train.milestone_every=6", "train.keep_at=[3]")
    train(tmp_path / "run", 14, "step", *settings)
    kept = sorted(path.stem for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000006", "step-00000012", "step-00000014"]


def test_a_folder_is_one_command_s_at_a_time(tmp_path: Path) -> None:
    doing = "training in"
    with (
        alone_in(tmp_path, doing, 0.1),
        pytest.raises(UserError, match="another process is training in"),
        alone_in(tmp_path, doing, 0.1),
    ):
        pass
    with alone_in(tmp_path, "training in", 0.1):
        pass


def test_trackers_are_told(tmp_path: Path) -> None:
    """What metrics.jsonl has, grids, and across a resume each step once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tests.training.test_alignment_run import lines

    settings = ('train.trackers=["tensorboard"]', "train.sample_every=4")
    train(tmp_path / "run", 4, "step", *settings)
    train(tmp_path / "run", 8, "step", *settings)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("denoising")] == [
        (row["step"], row["denoising"]) for row in rows
    ]
    assert [event.step for event in events.Images("samples")] == [4, 8]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "does not fit the memory; raise train.acc"),
        (torch.distributed.DistNetworkError("timed out"), "another process of this run has ended"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer"), "another process of this run"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "has died .*killed by signal: Killed"),
        (ConnectionResetError(104, "Connection reset by peer"), "a process that reads data has died"),
        (FileNotFoundError(2, "No such file or directory"), "a process that reads data has died"),
        (
            UserError("Caught UserError in DataLoader worker process 0.\nTraceback\n  x\nerrors.UserError: a: b"),
            "^a: b$",
        ),
    ],
)
def test_errors_that_are_known_are_one_line(error: Exception, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught, known_errors():
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), FileNotFoundError(2, "no such", "x.png"), UserError("x")]
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, known_errors():
        raise error
    assert caught.value is error
