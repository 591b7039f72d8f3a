"""An evaluation that is followed, and stopped at any point: what is done stays, and nothing is half-written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hastezoo import Pipeline
from hastezoo.evaluation.asking import EvaluationAsk, settled
from hastezoo.evaluation.extractors import Pixels
from hastezoo.evaluation.planning import Follower, plan_drawn, run
from hastezoo.evaluation.references import Reference, load_reference
from hastezoo.evaluation.results.result import EvaluationResult
from hastezoo.home import home
from hastezoo.sampling.solvers import Cancelled, StepInfo
from hastezoo.zoo.registry import find_card

CARD = find_card("sit-ti-digits-haste")
COUNT, BATCH = 520, 100  # a chunk of 500 images in five batches, one of 20 in one
FAST: dict[str, Any] = {"overrides": {"solver": "euler", "steps": 2}, "batch_size": BATCH, "device": "cpu"}
NPZ = f"samples-{COUNT}/samples.npz"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_pretrained(CARD.name, device="cpu")


def evaluate(
    pipeline: Pipeline, out: Path, *, callback: Any = None, watcher: Follower | None = None, **changes: Any
) -> EvaluationResult:
    said = EvaluationAsk(model=CARD.name, num=COUNT, out=out, save_samples="npz", **{**FAST, **changes})
    asked = settled(said, CARD)
    plan, settings = plan_drawn(asked, CARD, pipeline=pipeline, callback=callback)
    return run(plan, settings, asked, CARD, watcher=watcher)[0]


@pytest.fixture(scope="module")
def whole(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationResult]:
    """An evaluation that nobody interrupted: its folder and its result."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASTEZOO_HOME", str(folder / "home"))
        return folder / "out", evaluate(pipeline, folder / "out")


@pytest.fixture
def drawn(whole: tuple[Path, EvaluationResult], tmp_path: Path) -> Path:
    """A folder in which all images are drawn, and nothing is measured yet."""
    shutil.copytree(whole[0], tmp_path / "drawn")
    for name in ("result.json", "result.md", "curve.png"):
        (tmp_path / "drawn" / name).unlink()
    return tmp_path / "drawn"


class Told(Follower):
    """Notes what it is told, and stops at one of these."""

    def __init__(self, stop_at: tuple[str, Any] | None = None) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.stop_at = stop_at

    def hear(self, what: str, value: Any) -> None:
        self.heard.append((what, value))
        if self.heard[-1] == self.stop_at:
            raise Cancelled

    def say(self, text: str) -> None:
        self.hear("say", text)

    def warn(self, text: str) -> None:
        self.hear("warn", text)

    def reference(self, done: int, total: int) -> None:
        self.hear("reference", (done, total))

    def images(self, done: int) -> None:
        self.hear("images", done)

    def stage(self, text: str) -> None:
        self.hear("stage", text)

    def all(self, what: str) -> list[Any]:
        return [value for kind, value in self.heard if kind == what]


class Stop:
    """Stops after the first of the two steps of a batch, counted from 1."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.steps: list[int] = []

    def __call__(self, info: StepInfo) -> None:
        self.steps.append(info.index)
        if self.steps.count(0) == self.batch:
            raise Cancelled


def numbers(result: EvaluationResult) -> dict[str, Any]:
    return result.model_dump(mode="json", include={"metrics", "curve", "notes", "expected"})


def left(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, but for the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(("batch", "chunks"), [(2, 0), (6, 1)], ids=["in the first chunk", "in the second"])
def test_a_run_that_is_cancelled_within_a_batch_goes_on_and_finds_the_same(
    batch: int, chunks: int, pipeline: Pipeline, whole: tuple[Path, EvaluationResult], tmp_path: Path
) -> None:
    stop = Stop(batch)
    with pytest.raises(Cancelled):
        evaluate(pipeline, tmp_path / "x", callback=stop)
    assert stop.steps == [*[0, 1] * (batch - 1), 0], "within the batch, not at its end"
    begun, every = left(tmp_path / "x"), left(whole[0])
    names = {"features/000000.safetensors", "grid.png", f"samples-{COUNT}/parts/000000000.npy"} if chunks else set()
    assert begun.keys() == names
    result = evaluate(pipeline, tmp_path / "x")
    assert numbers(result) == numbers(whole[1])
    found = left(tmp_path / "x")
    assert found.keys() == every.keys()
    for name in ("features/000000.safetensors", "features/000001.safetensors", "grid.png", NPZ):
        assert found[name] == every[name] == begun.get(name, every[name]), name


@pytest.mark.parametrize("stage", ["FID", "precision and recall", "KID"])
def test_a_run_that_is_cancelled_among_its_metrics_leaves_features_and_no_result(
    stage: str, pipeline: Pipeline, whole: tuple[Path, EvaluationResult], drawn: Path
) -> None:
    before = left(drawn)
    with pytest.raises(Cancelled):
        evaluate(pipeline, drawn, watcher=Told(("stage", stage)))
    assert left(drawn) == before
    stop = Stop(1)
    assert numbers(evaluate(pipeline, drawn, callback=stop)) == numbers(whole[1])
    assert not stop.steps and (drawn / "result.json").exists()


def test_a_second_question_that_is_cancelled_keeps_the_first_answer(
    pipeline: Pipeline, whole: tuple[Path, EvaluationResult], tmp_path: Path
) -> None:
    shutil.copytree(whole[0], tmp_path / "x")
    before = left(tmp_path / "x")
    with pytest.raises(Cancelled):
        evaluate(pipeline, tmp_path / "x", reference="digits-test", watcher=Told(("stage", "FID")))
    assert left(tmp_path / "x") == before


def test_a_run_that_is_cancelled_over_its_reference_leaves_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        evaluate(pipeline, tmp_path / "x", watcher=Told(("reference", (1797, 1797))))
    assert not (tmp_path / "x").exists() and not home().exists()


def test_a_follower_is_told_of_everything_in_its_order(pipeline: Pipeline, tmp_path: Path) -> None:
    told, again = Told(), Told()
    evaluate(pipeline, tmp_path / "x", watcher=told, batch_size=200)
    assert list(dict.fromkeys(kind for kind, _ in told.heard)) == ["reference", "say", "images", "stage"]
    assert told.all("reference")[-1] == (1797, 1797)
    assert told.all("images") == [200, 400, 500, 500, 520, 520, 520], "a batch at a time, a chunk, and all"
    assert told.all("stage") == ["FID", "precision and recall", "KID"]
    evaluate(pipeline, tmp_path / "x", watcher=again, batch_size=200)
    assert set(again.all("images")) == {COUNT} and not again.all("reference"), "what is there is not made again"


def followed(pipeline: Pipeline, out: Path, reference: Reference, watcher: Follower | None = None) -> EvaluationResult:
    """Held against a reference at hand, and not against the one that is asked for, which is nowhere."""
    asked = replace(settled(EvaluationAsk(model=CARD.name, num=80, out=out, **FAST), CARD), reference="nowhere")
    plan, settings = plan_drawn(asked, CARD, pipeline=pipeline)
    return run(plan, settings, asked, CARD, reference=reference, watcher=watcher)[0]


def test_a_reference_at_hand_is_not_loaded(pipeline: Pipeline, tmp_path: Path) -> None:
    told = Told()
    result = followed(pipeline, tmp_path / "x", load_reference("digits-test", Pixels()), told)
    assert result.settings.reference is not None and result.settings.reference.name == "digits-test"
    assert not told.all("say") and not told.all("reference")


def test_what_to_be_wary_of_reaches_the_follower(pipeline: Pipeline, tmp_path: Path) -> None:
    reference, told = replace(load_reference("digits", Pixels()), lossy=True), Told()
    followed(pipeline, tmp_path / "x", reference, told)
    (line,) = told.all("warn")
    assert line.startswith("the reference is JPEG and the samples are not")
    with pytest.warns(UserWarning, match="the reference is JPEG"):
        followed(pipeline, tmp_path / "x", reference)
