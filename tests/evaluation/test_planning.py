"""What an evaluation is asked for, settled by the card, and planned with what is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hastezoo import Pipeline
from hastezoo.errors import UserError
from hastezoo.evaluation.asking import EvaluationAsk, count_of, protocol_of, settled
from hastezoo.evaluation.extractors import Pixels
from hastezoo.evaluation.generated import Generated
from hastezoo.evaluation.planning import plan_drawn, plan_existing, run
from hastezoo.evaluation.results.settings import CIRCUMSTANCES
from hastezoo.zoo.registry import find_card, find_protocol
from tests.evaluation.commands import measured
from tests.evaluation.invented import Toy

CARD = find_card("sit-ti-digits-haste")
TEXT = find_card("mmdit-coco-haste")
FAST: dict[str, Any] = {"overrides": {"solver": "euler", "steps": 2}, "num": 80, "device": "cpu"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.from_pretrained(CARD.name, device="cpu")


def ask(**changes: Any) -> EvaluationAsk:
    return settled(EvaluationAsk(model=CARD.name, **{**FAST, **changes}), CARD)


def test_what_was_not_said_comes_from_the_figure_that_the_card_states() -> None:
    figure = next(one for one in CARD.results if one.key == "fid")
    found = settled(EvaluationAsk(model=CARD.name), CARD)
    assert (found.features, found.reference, found.protocol) == (figure.features, figure.reference, figure.protocol)
    assert found.num == find_protocol(figure.protocol).count == 1797
    assert settled(found, CARD) == found, "settled once, it stays"


def test_what_was_said_stays() -> None:
    said = EvaluationAsk(model=CARD.name, reference="digits-test", features="inception", protocol="digits", num=5)
    assert settled(said, CARD) == said


def test_overrides_and_labels_change_the_named_protocol() -> None:
    protocol = protocol_of(ask(overrides={"steps": 3}, labels="balanced"))
    assert protocol == find_protocol("digits-nocfg").model_copy(update={"steps": 3, "labels": "balanced"})
    assert protocol_of(ask(overrides={}, labels=None)) == find_protocol("digits-nocfg")


def test_images_that_exist_are_seen_as_their_reference_is() -> None:
    by_digits = settled(EvaluationAsk(samples="digits", reference="digits-test"), None)
    assert by_digits.features == "pixels" and by_digits.num is None and not by_digits.protocol
    assert settled(EvaluationAsk(samples="digits", reference="."), None).features == "inception"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": ("fid", "fd")}, "unknown metric 'fd'"),
        ({"features": "pixel"}, "nearest: pixels"),
        ({"reference": "nowhere"}, "there is no file, folder or name 'nowhere'"),
        ({"protocol": "digit"}, "unknown protocol 'digit'; nearest: digits"),
        ({"overrides": {"steps": 0}}, "steps"),
        ({"num": 0}, "--num must be at least 1, not 0"),
        ({"prompts": "x.txt"}, "draws classes, not text: leave out --prompts"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_mistakes_are_said_before_anything_is_loaded(
    changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "from_pretrained", None)
    with pytest.raises(UserError, match=words):
        ask(**changes)


def test_a_model_of_text_wants_prompts_and_no_labels() -> None:
    with pytest.raises(UserError, match="name its prompts with --prompts: COCO"):
        settled(EvaluationAsk(model=TEXT.name), TEXT)
    with pytest.raises(UserError, match="leave out --labels"):
        settled(EvaluationAsk(model=TEXT.name, prompts="x.txt", labels="random"), TEXT)


def test_somebody_has_to_say_how_many() -> None:
    nameless = EvaluationAsk(protocol="digits-nocfg", overrides={"count": None})
    with pytest.raises(UserError, match="the protocol digits-nocfg states no number of images; give --num"):
        count_of(nameless)
    assert count_of(replace(nameless, num=3)) == 3


def test_a_plan_is_what_the_command_does(pipeline: Pipeline) -> None:
    """The result of a plan with a pipeline at hand is that of `hastezoo eval-fid`, but for circumstances."""
    typed = measured("--solver", "euler", "--steps", 2, "--num", 150, "--device", "cpu", out="typed")
    plan, settings = plan_drawn(ask(out=Path("planned"), num=150), CARD, pipeline=pipeline, command="by hand")
    result, files = run(plan, settings, ask(), CARD)
    found = result.model_dump(mode="json")
    assert found["settings"]["command"] == "by hand" and found["settings"]["device"] == "cpu"
    for one in (found, typed):
        for key in CIRCUMSTANCES:
            del one["settings"][key]
    assert found == typed
    assert {path.name for path in files} == {"result.json", "result.md", "grid.png", "curve.png"}
    assert all(path.exists() for path in files)


def test_a_pipeline_and_an_extractor_at_hand_are_used(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "from_pretrained", None)
    monkeypatch.setattr("hastezoo.evaluation.extractors.create_extractor", None)
    extractor = Toy()
    plan, _ = plan_drawn(ask(batch_size=7), CARD, pipeline=pipeline, extractor=extractor)
    assert isinstance(plan.images, Generated) and plan.images.pipeline is pipeline and plan.extractor is extractor
    assert (plan.count, plan.batch_size, plan.rank, plan.ranks) == (80, 7, 0, 1)
    assert plan.metrics == ("fid", "sfid", "is", "pr", "kid")
    assert plan.images.seeds == range(80) and plan.images.protocol.steps == 2


@pytest.mark.parametrize(
    "changes", [{"dtype": "bfloat16"}, {"compile": True}, {"vae_tiling": True}], ids=lambda changes: next(iter(changes))
)
def test_a_pipeline_that_is_not_as_asked_is_refused(pipeline: Pipeline, changes: dict[str, Any]) -> None:
    (key,) = changes
    with pytest.raises(ValueError, match=f"the pipeline's {key} is "):
        plan_drawn(ask(**changes), CARD, pipeline=pipeline)
    with pytest.raises(ValueError, match="the pipeline's model is sit-ti-digits-haste"):
        plan_drawn(ask(), find_card("sit-ti-digits"), pipeline=pipeline)


def test_weights_of_ones_own_are_loaded_and_recorded() -> None:
    other = find_card("sit-ti-digits")
    assert other.weights is not None
    plan, settings = plan_drawn(ask(weights=str(other.weights_path)), CARD)
    assert settings["weights"] == str(other.weights_path) and settings["weights_sha256"] == other.weights.sha256
    assert settings["model"] == CARD.name and settings["step"] is None
    assert plan.images.identity["weights_sha256"] == other.weights.sha256


@pytest.mark.parametrize("form", ["npz", "png"])
def test_planning_writes_nothing_and_running_keeps_the_images(form: str, pipeline: Pipeline, elsewhere: Path) -> None:
    asked = ask(save_samples=form)
    plan, settings = plan_drawn(asked, CARD, pipeline=pipeline)
    assert not list(elsewhere.iterdir()) and plan.out.parent == Path("outputs")
    _, files = run(plan, settings, asked, CARD)
    assert files[-1] == plan.out / "samples-80"
    kept = {path.name for path in files[-1].iterdir()}
    assert kept == {"samples.npz"} if form == "npz" else len(kept) == 80


def test_images_that_exist_are_planned_by_their_number(elsewhere: Path) -> None:
    np.savez("some.npz", arr_0=np.full((70, 8, 8, 1), 9, np.uint8))
    existing = settled(EvaluationAsk(samples="some.npz", reference="digits", device="cpu"), None)
    plan, settings = plan_existing(existing)
    assert (plan.count, plan.batch_size, plan.metrics) == (70, 64, ("fid", "pr", "kid"))
    assert isinstance(plan.extractor, Pixels) and settings["samples"] == plan.images.description
    assert plan_existing(replace(existing, num=65, batch_size="10"))[0].batch_size == 10
    with pytest.raises(UserError, match=r"--num 71: .* has 70 images"):
        plan_existing(replace(existing, num=71))
    with pytest.raises(UserError, match="batch size 0 is neither"):
        plan_existing(replace(existing, batch_size=0))


def test_weights_go_with_their_features(pipeline: Pipeline) -> None:
    with pytest.raises(UserError, match="--inception goes with --features inception, not pixels"):
        plan_drawn(ask(inception=Path("w.pth")), CARD, pipeline=pipeline)
