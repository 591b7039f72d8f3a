"""What `eval-fid` wrote into a run's folder, as figures of the card: found again by a later evaluation."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hastezoo.evaluation.results.expected import expected_for
from hastezoo.training.results import evaluated
from hastezoo.zoo.card import Result
from hastezoo.zoo.overrides import stated_protocol
from hastezoo.zoo.registry import find_card, find_protocol
from hastezoo.zoo.toml import to_toml
from tests.evaluation.examples import DIGITS, REPA, changed, write


def exported(tmp_path: Path, **examples: dict[str, Any]) -> list[Result]:
    """The figures of a run with these evaluations, as they come back from a card's TOML."""
    folder = tmp_path / "run" / "evaluations"
    folder.mkdir(parents=True)
    for name, example in examples.items():
        write(tmp_path / name, example).joinpath("result.json").rename(folder / f"{name}.json")
    found = evaluated(tmp_path / "run", 40, newest=True)
    dumped = [result.model_dump(mode="json", exclude_none=True, exclude_defaults=True) for result in found]
    return [Result(**table) for table in tomllib.loads(to_toml({"results": dumped}))["results"]]


def test_metrics_are_told_by_their_features(tmp_path: Path) -> None:
    results = exported(tmp_path, a=changed(DIGITS, step=40), b=changed(REPA, step=40))
    assert [(one.metric, one.key, one.features) for one in results] == [
        ("pixel FD", "fid", "pixels"),
        ("FID", "fid", "inception"),
        ("sFID", "sfid", "inception"),
        ("IS", "is", "inception"),
        ("pixel precision", "precision", "pixels"),
        ("precision", "precision", "inception"),
        ("pixel recall", "recall", "pixels"),
        ("recall", "recall", "inception"),
        ("pixel KD", "kid", "pixels"),
    ]
    pixels, fid = results[:2]
    assert (pixels.reference, pixels.count, pixels.protocol, pixels.note) == (
        "digits",
        1797,
        "digits-nocfg",
        "error 0.5",
    )
    assert (fid.reference, fid.labels, fid.step, fid.protocol, fid.overrides) == (
        "imagenet256", "random", None, "repa", {},
    )  # fmt: skip


def test_settings_that_were_changed_are_the_figures_too(tmp_path: Path) -> None:
    sampling = {"steps": 7, "cfg": 2.0, "interval": [0.0, 0.5]}
    (figure, *_) = exported(tmp_path, a=changed(DIGITS, step=40, sampling=sampling))
    assert figure.overrides == sampling and figure.note == "with steps 7, cfg 2, interval [0, 0.5]; error 0.5"
    drawing = stated_protocol(figure.protocol, figure.overrides)
    assert drawing == find_protocol("digits-nocfg").model_copy(update={**sampling, "interval": (0.0, 0.5)})


def test_an_evaluation_repeated_is_held_against_the_exported_figure(tmp_path: Path) -> None:
    example = changed(DIGITS, step=40, sampling={"steps": 7, "cfg": 2.0}, count=500, labels="balanced")
    card = find_card("sit-ti-digits-haste").model_copy(update={"steps": 40, "results": exported(tmp_path, a=example)})
    found = expected_for(example["settings"], card)
    assert [figure.key for figure in found] == ["fid", "precision", "recall", "kid"]
    assert all(figure.reasons == [] for figure in found)
    other = expected_for(changed(example, count=400, sampling={"cfg": 1.5})["settings"], card)
    assert other[0].reasons == ["cfg 1.5 instead of 2", "400 samples instead of 500"]


def test_a_setting_that_was_unset_leaves_no_protocol(tmp_path: Path) -> None:
    """TOML has no null, and the card may not say that the figure was taken with the named protocol."""
    sampling = find_protocol("sit-ode").model_copy(update={"channels": None}).model_dump(mode="json")
    (figure, *_) = exported(tmp_path, a=changed(REPA, step=40, protocol="sit-ode", sampling=sampling))
    assert (figure.protocol, figure.overrides, figure.note) == ("", {}, "with channels all; error 0.021")
