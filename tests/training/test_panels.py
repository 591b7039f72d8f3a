"""What pictures of runs show: which panels there are, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hastezoo.training.history import read_histories, read_history
from hastezoo.training.panels import Panel, panels_of, panels_of_several
from tests.training.runs import ALIGNMENT, METRICS, write_plain_run, write_run


def titles_of(panels: Sequence[Panel]) -> list[str]:
    return [panel.title for panel in panels]


@pytest.mark.parametrize(
    ("changed", "titles"),
    [
        ({}, ["Denoising loss"]),
        ({"metrics": [{"step": 1, "loss": 1.0}]}, ["Loss"]),
        (
            {"alignment": ALIGNMENT, "metrics": METRICS},
            ["Denoising and total loss", "Feature loss", "Attention loss"],
        ),
        (
            {"diagnoses": [{"step": 9, "cknna": [0.1, 0.2], "attention_kl": {}}]},
            ["Denoising loss", "CKNNA (k = 10) after each block"],
        ),
        (
            {"alignment": ALIGNMENT, "events": [{"step": 9, "times": [0.5], "cosines": [0.1]}]},
            ["Denoising loss", "Cosine of the gradients"],
        ),
    ],
    ids=["plain", "only a total", "aligned", "probed", "triggered"],
)
def test_a_panel_without_data_is_left_out(tmp_path: Path, changed: dict[str, Any], titles: list[str]) -> None:
    assert titles_of(panels_of(read_history(write_plain_run(tmp_path / "run", **changed)))) == titles


def test_a_panel_for_which_no_run_has_data_is_left_out(tmp_path: Path) -> None:
    runs = [write_plain_run(tmp_path / name) for name in ("a", "b")]
    assert titles_of(panels_of_several(read_histories(runs))) == ["Denoising loss"]


def test_feature_layers_that_differ_are_compared_each_at_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "two")
    write_run(tmp_path / "one", alignment={**ALIGNMENT, "feature_layer": 1})
    panels = panels_of_several(read_histories([tmp_path / "two", tmp_path / "one"]))
    (panel,) = [panel for panel in panels if panel.title == "CKNNA (k = 10) after the feature layer"]
    assert [curve.series[1] for curve in panel.curves] == [[0.2, 0.3, 0.3], [0.1, 0.2, 0.2]]


def test_a_feature_layer_that_is_the_last_block_is_not_drawn_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, alignment={**ALIGNMENT, "feature_layer": 3})
    titles = titles_of(panels_of_several(read_histories([tmp_path / "a", tmp_path / "b"])))
    assert [title for title in titles if "CKNNA" in title] == ["CKNNA (k = 10) after the last block"]
