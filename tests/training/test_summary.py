"""How runs went, in numbers and words, from small folders written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hastezoo.training.history import read_history
from hastezoo.training.summary import Reading, summarise
from tests.training.runs import ALIGNMENT, EVENTS, METRICS, with_termination, write_plain_run, write_run


def test_the_summary_has_the_last_of_everything(tmp_path: Path) -> None:
    summary = summarise(read_history(write_run(tmp_path / "run")))
    assert (summary.name, summary.step, summary.planned, summary.ended_at) == ("run", 40, 50, 20)
    assert list(summary.losses.items()) == [
        ("denoising", Reading(40, 0.25)), ("feature", Reading(20, -0.4)), ("attention", Reading(20, 0.9)),
        ("loss", Reading(40, 0.25)),
    ]  # fmt: skip
    assert summary.mean_cosine is not None and summary.mean_cosine.step == 20
    assert summary.mean_cosine.value == pytest.approx(-0.07)
    best = summary.best_cknna
    assert best is not None and (best.block, best.value, best.step) == (3, 0.35, 30)
    assert summary.missing == {}


@pytest.mark.parametrize(
    ("termination", "events", "said"),
    [
        ({}, EVENTS, "ended after step 20: mean cosine -0.07 below -0.05"),
        ({}, EVENTS[:1], "on until the mean cosine is below -0.05"),
        ({"kind": "step", "step": 20}, EVENTS[2:], "ended after step 20, as set"),
        ({"kind": "step", "step": 4000}, [], "on until step 4,000"),
        ({"kind": "never"}, [], "never ends (kind never)"),
    ],
    ids=["gradient", "gradient to come", "step", "step to come", "never"],
)
def test_when_alignment_ended_and_why(
    tmp_path: Path, termination: dict[str, Any], events: list[dict[str, Any]], said: str
) -> None:
    run = write_run(tmp_path / "run", alignment=with_termination(**termination), events=events)
    assert summarise(read_history(run)).alignment == said


def test_a_plain_run_lacks_what_only_alignment_and_the_probe_record(tmp_path: Path) -> None:
    summary = summarise(read_history(write_plain_run(tmp_path / "run")))
    assert summary.alignment == "none" and summary.termination is None
    assert summary.mean_cosine is None and summary.best_cknna is None
    assert list(summary.missing) == ["feature loss", "attention loss", "gradient cosine", "CKNNA", "attention KL"]
    assert "alignment" in summary.missing["feature loss"] and "alignment" in summary.missing["gradient cosine"]
    assert "train.diagnose_every" in summary.missing["CKNNA"]


@pytest.mark.parametrize(
    ("changed", "part", "setting"),
    [
        ({"alignment": {**ALIGNMENT, "attention_weight": 0}}, "attention loss", "alignment.attention_weight is 0"),
        ({}, "feature loss", "alignment ended at step 20, and metrics.jsonl begins at step 30"),
        ({}, "gradient cosine", "alignment ended at step 20, before anything looked"),
        ({"events": []}, "gradient cosine", "alignment.termination.start = 10"),
        ({"events": [], "alignment": with_termination(kind="never"), "diagnose_every": 0}, "gradient cosine",
         "set train.diagnose_every (or alignment.termination.kind=gradient)"),
        ({"diagnose_every": 0}, "CKNNA", "set train.diagnose_every"),
        ({"diagnose_every": 500}, "CKNNA", "the first look is at train.diagnose_every = 500"),
        ({"diagnose_every": 10}, "attention KL", "nothing was recorded, though train.diagnose_every is 10"),
        ({"diagnoses": [{"step": 30, "t": 0.5, "cknna": [0.1], "attention_kl": {}}]}, "attention KL",
         "alignment.attention_pairs names no pair"),
    ],
)  # fmt: skip
def test_what_is_missing_names_the_setting(tmp_path: Path, changed: dict[str, Any], part: str, setting: str) -> None:
    """A run that was forked where alignment ended, and variations of it."""
    values: dict[str, Any] = {"metrics": METRICS[2:], "events": EVENTS[2:], "diagnoses": [], **changed}
    assert setting in summarise(read_history(write_run(tmp_path / "run", **values))).missing[part]


def test_a_number_that_is_not_finite_is_none(tmp_path: Path) -> None:
    nan = float("nan")
    run = write_run(
        tmp_path / "run",
        metrics=[{"step": 1, "loss": nan}],
        events=[],
        diagnoses=[{"step": 1, "cknna": [nan, 0.2, 0.1], "times": [0.5], "cosines": [nan]}],
    )
    summary = summarise(read_history(run))
    assert summary.losses["loss"].value is None
    assert summary.mean_cosine == Reading(1, None)
    assert summary.best_cknna is not None and summary.best_cknna.block == 2
