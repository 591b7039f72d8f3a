"""A quick FID while a run trains: of the average, at every step that is due, into evaluations.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hastezoo import Pipeline
from hastezoo.data import digits
from hastezoo.errors import UserError
from hastezoo.evaluation.metrics import frechet_distance
from hastezoo.evaluation.statistics import Moments
from hastezoo.recipes.digits import DigitsConfig, run
from hastezoo.training.config import configure
from tests.evaluation.invented import Toy
from tests.recipes.small import train

TINY = (
    "model.depth=1", "model.width=16", "model.heads=1", "train.batch_size=8", "train.sample_every=0",
    "train.optimizer.lr=1e-3", "train.ema_decay=0.5", "evaluation.images=70", "evaluation.steps=2",
)  # fmt: skip


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]


def trained(out: Path, *settings: str) -> None:
    run("sit-ti-digits", configure(DigitsConfig(), None, [*TINY, *settings]), out, device="cpu", quiet=True)


def test_the_average_is_measured_when_it_is_due(tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(out, "train.steps=5", "evaluation.every=2")
    assert [line["step"] for line in lines(out)] == [2, 4, 5]
    pipeline = Pipeline.from_pretrained("sit-ti-digits", device="cpu", weights=out / "sit-ti-digits.safetensors")
    drawn = pipeline(seeds=range(70), protocol="digits-nocfg", steps=2).pixels
    wanted = frechet_distance(Moments.of(digits.from_bytes(drawn)), Moments.of(digits.load("all")[0]))
    assert lines(out)[-1]["fd_pixels"] == pytest.approx(wanted, rel=1e-5) and lines(out)[-1]["images"] == 70
    assert len({line["fd_pixels"] for line in lines(out)}) == 3, "the weights move it"


def test_it_changes_nothing_of_the_run_and_may_change_when_it_goes_on(tmp_path: Path) -> None:
    with_it, without = tmp_path / "with", tmp_path / "without"
    trained(with_it, "train.steps=4", "evaluation.every=1")
    trained(without, "train.steps=4")
    assert (with_it / "sit-ti-digits.safetensors").read_bytes() == (without / "sit-ti-digits.safetensors").read_bytes()
    assert not (without / "evaluations.jsonl").exists() or not lines(without)
    trained(with_it, "train.steps=6", "evaluation.every=2", "evaluation.images=80")
    assert [(line["step"], line["images"]) for line in lines(with_it)][-1] == (6, 80)


def test_too_few_images_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="63 samples are fewer than the 64 dimensions"):
        trained(tmp_path / "run", "train.steps=2", "evaluation.every=1", "evaluation.images=63")
    assert not (tmp_path / "run" / "config.json").exists()


def test_latent_models_are_held_against_their_own_data(
    prepared: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def toy(name: str, **settings: Any) -> Toy:
        told.append(name)
        return Toy()

    monkeypatch.setattr("hastezoo.evaluation.extractors.create_extractor", toy)
    out = tmp_path / "run"
    settings = ("evaluation.every=2", "evaluation.images=8", "evaluation.steps=2", "train.steps=2")
    result = train(prepared, teacher, out, *settings)
    assert result.exit_code == 0, result.output
    assert told == ["inception"]
    assert [(line["step"], line["fid"] > 0) for line in lines(out)] == [(2, True)]
