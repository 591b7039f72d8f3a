"""The emoji's study and measures: their arithmetic on made-up pictures and curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules, which lie beside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def plain(value: int) -> np.ndarray:
    """A picture of one grey."""
    return np.full((2, 2, 3), value, dtype=np.uint8)


def test_the_nearest_picture_and_how_far_it_is() -> None:
    from emoji_judge import nearest

    apart, which = nearest(np.stack([plain(0), plain(100)]), np.stack([plain(255), plain(51), plain(99)]))
    assert which.tolist() == [1, 2]
    assert apart == pytest.approx([51 / 255, 1 / 255], abs=1e-6)


def test_a_copy_is_far_nearer_to_one_name_than_to_all_others() -> None:
    """A third of the distance to the next name is the limit; other pictures of the same name do not count."""
    from emoji_quality import copies

    training = np.stack([plain(0), plain(12), plain(200)])
    names = ["a", "a", "b"]
    assert copies(np.stack([plain(4)]), training, names).tolist() == [True]
    assert copies(np.stack([plain(90)]), training, names).tolist() == [False]
    assert copies(np.stack([plain(49)]), training, ["a", "c", "b"]).tolist() == [False]
    assert copies(np.stack([plain(58)]), training, names).tolist() == [True], "46 from a, 142 from b"
    assert copies(np.stack([plain(60)]), training, names).tolist() == [False], "48 from a, 140 from b"


def test_tables_of_the_study() -> None:
    import digits_report
    import emoji_report

    found: dict[str, Any] = {
        arm: {"steps": [10, 20], "seen_error": rows, "seen_top1": [[0.0, 0.5], [0.1, 0.7]]}
        for arm, rows in {"none": [[0.4, 0.2], [0.4, 0.1]], "repa": [[0.2, 0.1], [0.1, 0.1]]}.items()
    }
    table = emoji_report.quality_table(found, (10, 20))
    assert "| none (plain) | 0.400 ± 0.000, 5.0 % | 0.150 ± 0.050, 60.0 % |" in table
    needed = digits_report.speedups(found, (20,), emoji_report.FALLING)
    assert needed == {"none": {"20": [20, 20]}, "repa": {"20": [10, 10]}}
    assert "| REPA | 10 (0.50x) |" in digits_report.speed_table(needed, (20,), 20)


def test_every_run_of_the_study_is_planned_once_and_forks_come_last() -> None:
    import emoji_study

    planned = list(emoji_study.runs(emoji_study.SEEDS))
    names = [name for name, *_ in planned]
    assert len(set(names)) == len(names) == len(emoji_study.SEEDS) * (len(emoji_study.ARMS) + len(emoji_study.TAUS))
    first = next(place for place, (_, _, _, tau) in enumerate(planned) if tau is not None)
    assert all(tau is not None for _, _, _, tau in planned[first:])
    assert set(emoji_study.TAUS) <= set(emoji_study.LOOKS) and emoji_study.LOOKS[-1] == emoji_study.STEPS
