"""Trackers: TensorBoard read back from its event files, W&B by the calls that a stand-in records."""

from __future__ import annotations

import io
import json
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hastezoo.errors import UserError
from hastezoo.training.trackers import Tracker, create_trackers

CONFIG = {"architecture": "sit_ti_2", "train": {"steps": 40}}


@pytest.fixture
def ordered_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event files are read by name: time in seconds, process, a counter. Two of the same second sort by the counter,
    which a long session of tests could let pass from 9 to 10."""
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(100))


def begin(out: Path, step: int = 0, name: str = "tensorboard") -> Tracker:
    (tracker,) = create_trackers([name], out, CONFIG, step)
    return tracker


def events(out: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(out: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(out).Scalars(name)]


def picture(path: Path) -> np.ndarray:
    pixels = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6) * 10
    Image.fromarray(pixels).save(path)
    return pixels


def test_tensorboard_holds_what_was_logged(
    tmp_path: Path, ordered_events: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorboard.backend.event_processing.event_accumulator  # noqa: F401 - takes longer than the slow disk
    from tensorboard.summary.writer.record_writer import RecordWriter

    write = RecordWriter.write
    monkeypatch.setattr(RecordWriter, "write", lambda self, data: (time.sleep(0.05), write(self, data)))  # a slow disk
    tracker = begin(tmp_path)
    tracker.log(10, {"loss": 2.0, "denoising": 1.5})
    tracker.log(20, {"loss": 0.5})
    # Nothing waits in a queue: what a kill would leave is all that was logged.
    assert scalars(tmp_path, "loss") == [(10, 2.0), (20, 0.5)] and scalars(tmp_path, "denoising") == [(10, 1.5)]
    pixels = picture(tmp_path / "grid.png")
    tracker.image(20, "samples", tmp_path / "grid.png")
    (image,) = events(tmp_path).Images("samples")
    assert (image.step, image.height, image.width) == (20, 4, 6)
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert np.array_equal(shown, np.stack([pixels] * 3, axis=-1))
    tracker.close()


@pytest.mark.parametrize(("resumed", "kept"), [(20, [(10, 1.0), (20, 2.0)]), (0, [])])
def test_no_step_stands_twice_after_a_resume(
    tmp_path: Path, ordered_events: None, resumed: int, kept: list[tuple[int, float]]
) -> None:
    """Also where the run was killed before its first checkpoint and begins again from step 0."""
    first = begin(tmp_path)
    for step in (10, 20, 30):  # killed after 30: never closed
        first.log(step, {"loss": step / 10})
    second = begin(tmp_path, resumed)
    again = [(step, step / 4) for step in range(resumed + 10, 50, 10)]
    for step, value in again:
        second.log(step, {"loss": value})
    second.close()
    assert scalars(tmp_path, "loss") == kept + again
    first.close()


def test_a_name_given_twice_is_one_tracker(tmp_path: Path, ordered_events: None) -> None:
    (tracker,) = create_trackers(["tensorboard", "tensorboard"], tmp_path, CONFIG, 0)
    tracker.close()
    assert create_trackers([], tmp_path, CONFIG, 0) == []


class Wandb(types.ModuleType):
    """A stand-in for the package: what was called, with what."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.calls: list[tuple[Any, ...]] = []

    def init(self, **arguments: Any) -> Wandb:
        self.calls.append(("init", arguments))
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.calls.append(("log", values, step))

    def Image(self, path: str) -> tuple[str, str]:
        return "image", path

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    stand_in = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return stand_in


def test_wandb_is_told_everything_and_resumed_under_its_id(tmp_path: Path, wandb: Wandb) -> None:
    out = tmp_path / "mine"
    tracker = begin(out, name="wandb")
    kept = json.loads((out / "wandb.json").read_text())["id"]
    tracker.log(10, {"loss": 0.5})
    tracker.image(10, "samples", out / "grid.png")
    tracker.close()
    begun = {
        "project": "hastezoo", "name": "mine", "id": kept, "resume": "allow", "dir": str(out), "config": CONFIG,
    }  # fmt: skip
    assert wandb.calls == [
        ("init", begun),
        ("log", {"loss": 0.5}, 10),
        ("log", {"samples": ("image", str(out / "grid.png"))}, 10),
        ("finish",),
    ]
    begin(out, 10, name="wandb")
    begin(tmp_path / "other", name="wandb")
    ids = [call[1]["id"] for call in wandb.calls if call[0] == "init"]
    assert ids[0] == ids[1] != ids[2]


def test_wandbs_project_is_the_environments(tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    begin(tmp_path, name="wandb")
    assert wandb.calls[0][1]["project"] == "theirs"


def test_a_file_that_holds_no_id_is_refused(tmp_path: Path, wandb: Wandb) -> None:
    (tmp_path / "wandb.json").write_text("[]")
    with pytest.raises(UserError, match=r"wandb.json holds no id .* remove it"):
        begin(tmp_path, name="wandb")
    assert wandb.calls == []


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")], ids=["absent", "a folder of that name"])
def test_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: types.ModuleType | None
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(UserError, match=r"pip install 'hastezoo\[wandb\]'$"):
        begin(tmp_path, name="wandb")
    assert not (tmp_path / "wandb.json").exists()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'hastezoo\[tensorboard\]'$"):
        begin(tmp_path)


def test_an_unknown_name_is_told_the_nearest_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown tracker 'tensorbord'; nearest: tensorboard"):
        create_trackers(["tensorboard", "tensorbord"], tmp_path, CONFIG, 0)
    assert not list(tmp_path.glob("tensorboard*"))


def test_one_that_cannot_be_begun_closes_those_before(
    tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch, ordered_events: None
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError("no\nspace")

    monkeypatch.setattr(SummaryWriter, "__init__", refused)
    with pytest.raises(UserError, match=r"^the tracker tensorboard could not be begun: no space; leave it out"):
        create_trackers(["wandb", "tensorboard"], tmp_path, CONFIG, 0)
    assert wandb.calls[-1] == ("finish",)


def test_a_failure_is_one_warning_and_the_tracker_is_switched_off(
    tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = begin(tmp_path, name="wandb")

    def failing(values: Any, step: int) -> None:
        wandb.calls.append(("failed", step))
        raise RuntimeError("the network\nis gone")

    monkeypatch.setattr(wandb, "log", failing)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tracker.log(10, {"loss": 1.0})
        tracker.log(20, {"loss": 1.0})
        tracker.image(20, "samples", tmp_path / "absent.png")
        tracker.close()
    (warning,) = caught
    assert "the tracker wandb failed at step 10 (the network is gone) and is switched off" in str(warning.message)
    assert [call for call in wandb.calls if call[0] != "init"] == [("failed", 10), ("finish",)]


def test_a_picture_that_is_not_there_does_not_end_the_run(tmp_path: Path, ordered_events: None) -> None:
    tracker = begin(tmp_path)
    tracker.log(10, {"loss": 1.0})
    with pytest.warns(UserWarning, match=r"tensorboard failed at step 10 \(.*absent.png"):
        tracker.image(10, "samples", tmp_path / "absent.png")
    tracker.log(20, {"loss": 1.0})
    tracker.close()
    assert scalars(tmp_path, "loss") == [(10, 1.0)]


def test_ctrl_c_is_no_failure_of_a_tracker(tmp_path: Path, wandb: Wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = begin(tmp_path, name="wandb")

    def stopped(values: Any, step: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wandb, "log", stopped)
    with pytest.raises(KeyboardInterrupt):
        tracker.log(10, {"loss": 1.0})
