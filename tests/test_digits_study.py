"""The study on the digits: its arithmetic on made-up curves, a run in miniature, and that its page is up to date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stored import newest as newest_state

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The two modules, which lie beside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import digits_report
    import digits_study

    return digits_study, digits_report


def curve(steps: list[int], *rows: list[float]) -> dict[str, Any]:
    return {"steps": steps, "frechet": list(rows), "recognised": [[0.5 for _ in row] for row in rows]}


def test_where_a_level_is_reached(benchmarks: tuple[Any, Any]) -> None:
    _, report = benchmarks
    falling = curve([100, 200, 400], [100.0, 10.0, 1.0])
    assert report.reaches(falling, 0, 100.0) == 100
    assert report.reaches(falling, 0, 10.0) == 200
    assert report.reaches(falling, 0, 10**0.5) == pytest.approx(300), "half way on a log scale"
    assert report.reaches(falling, 0, 0.5) is None


def test_steps_needed_are_paired_by_seed(benchmarks: tuple[Any, Any]) -> None:
    _, report = benchmarks
    found = {
        "none": curve([100, 200], [100.0, 10.0], [100.0, 1.0]),
        "repa": curve([100, 200], [10.0, 10.0], [10.0, 10.0]),
    }
    assert report.speedups(found, (200,)) == {"none": {"200": [200, 200]}, "repa": {"200": [100, None]}}
    assert "1 of 2 seeds never" in report.speed_table(report.speedups(found, (200,)), (200,))
    assert "| REPA | 10.0 ± 0.0, 50.0 % |" in report.quality_table(found, (100,))


@pytest.mark.slow
def test_a_run_and_its_fork(benchmarks: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve steps, judged on the way; the fork leaves at step 8 and its curve begins with what it left."""
    study, report = benchmarks
    for name, value in {"STEPS": 12, "TAUS": (8,), "SAMPLES": 100, "SOLVER_STEPS": 1, "SEEDS": (0,)}.items():
        monkeypatch.setattr(study, name, value)
    settings = study.settings
    small = ["model.width=32", "model.depth=3", "train.log_every=4", "train.diagnose_every=6"]
    small += ["train.ema_decay=0.5", "train.optimizer.lr=0.01", "train.optimizer.warmup_steps=0"]
    small += ["alignment.termination.images=100"]
    monkeypatch.setattr(study, "settings", lambda seed, tau: [*settings(seed, tau), *small])
    names = []
    for name, arm, seed, tau in study.runs((0,)):
        if arm == "haste-never":
            study.train_one(name, arm, seed, tau, tmp_path, (4, 12))
            names.append(name)
    assert names == ["haste-never-0", "haste-8-0"]
    found = report.curves(tmp_path, ["haste-never", "haste-8"], (0,))
    assert found["haste-8"]["steps"] == [4, 12]
    assert found["haste-8"]["frechet"][0][0] == found["haste-never"]["frechet"][0][0]
    assert found["haste-8"]["frechet"][0][1] != found["haste-never"]["frechet"][0][1]
    state = newest_state(tmp_path / "haste-8-0")
    assert state is not None and state["alignment"]["ended_at"] == 8
    looked = report.trigger(tmp_path, (0,), threshold=2.0)
    assert looked["steps"] == [6, 12] and looked["would_end"] == [6]
    assert report.trigger(tmp_path, (0,), threshold=-2.0)["would_end"] == [None]


def test_the_page_holds_what_was_measured(benchmarks: tuple[Any, Any]) -> None:
    study, _ = benchmarks
    result = json.loads((study.RESULTS / "digits_study.json").read_text())
    page = study.PAGE.read_text()
    assert study.updated(page, study.tables_of(result), study.COMMAND) == page, (
        "python benchmarks/digits_study.py report"
    )
    assert tuple(result["settings"]["seeds"]) == study.SEEDS and result["settings"]["steps"] == study.STEPS
    arms = {"none", "repa", "attention", "haste-never", *(f"haste-{tau}" for tau in study.TAUS)}
    assert set(result["curves"]) == arms
    assert all(np.shape(found["frechet"]) == (3, len(found["steps"])) for found in result["curves"].values())
