"""The emoji's study and measures: their arithmetic on made-up pictures and curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.emoji_files import needs_emoji


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


def test_the_table_of_a_checkpoints_quality() -> None:
    from emoji_quality import table_of

    ranks, real = {"top1": 0.5, "top5": 0.75}, {"top1": 0.9, "top5": 1.0}
    spread = {"median": 0.2, "p10": 0.1, "p90": 0.3}
    kinds = {
        kind: {
            "prompts": count,
            "drawn": ranks,
            "real": real,
            "distance": spread,
            "copies": 0.125,
        }
        for kind, count in (("seen", 512), ("held_out", 94))
    }
    table = table_of({"candidates": 1000, **kinds, "real_held_out": {"distance": spread, "copies": 0.0}})
    assert "| drawn of names that are trained on | 512 | 50.0 % | 75.0 % | 0.200 (0.100, 0.300) | 12.5 % |" in table
    assert "| real ones of these | 512 | 90.0 % | 100.0 % | 0 |  |" in table
    assert "| real ones of these | 94 | 90.0 % | 100.0 % | 0.200 (0.100, 0.300) | 0.0 % |" in table
    assert "| by chance | | 0.1 % | 0.5 % | | |" in table


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


@pytest.mark.slow
@needs_emoji
def test_the_judge_asks_only_about_names_that_it_knows() -> None:
    """Seen names are trained on, held-out ones are not, and both are among the candidates."""
    from emoji_judge import Judge
    from emoji_quality import classified, twenty_four

    from hastezoo.data.emoji import is_in

    judge = Judge()
    seen, held_out = judge.names("seen"), judge.names("held-out")
    assert set(seen) | set(held_out) == set(judge.candidates) and not set(seen) & set(held_out)
    assert all(is_in("train", name) for name in seen) and not any(is_in("train", name) for name in held_out)
    assert judge.names("held-out", ["flag", "japan"]) == ["flag: Japan"]
    real = judge.real(seen[:200])
    wrong = np.roll(real, 1, axis=0)
    found = judge.retrieval(real, seen[:200])
    assert found["top1"] > 0.5 and found["top5"] > 0.8, "a judge that does not know the real pictures is none"
    assert judge.retrieval(wrong, seen[:200])["top5"] < 0.1, "and it is not content with any picture"
    assert [classified(judge, prompt) for prompt in ("Rocket!", "flag: Japan", "purple rocket")] == [
        "trained", "held out", "composed",
    ]  # fmt: skip
    prompts = twenty_four(judge, judge.everything.words)
    assert [classified(judge, prompt) for prompt in prompts] == 12 * ["trained"] + 6 * ["composed"] + 6 * ["held out"]
    assert judge.likeness(real, seen[:200]).mean() > judge.likeness(wrong, seen[:200]).mean() + 0.2


def test_the_page_holds_what_was_measured() -> None:
    import emoji_quality
    import emoji_study
    from pages import updated

    page = emoji_study.PAGE.read_text()
    result = json.loads((emoji_study.RESULTS / "emoji_study.json").read_text())
    tables = emoji_study.tables_of(result)
    assert updated(page, tables, emoji_study.COMMAND) == page, "python benchmarks/emoji_study.py report"
    assert tuple(result["settings"]["seeds"]) == emoji_study.SEEDS
    assert set(result["curves"]) == {*emoji_study.ARMS, *(f"haste-{tau}" for tau in emoji_study.TAUS)}
    assert all(np.shape(found["seen_error"]) == (2, len(found["steps"])) for found in result["curves"].values())
    drawn = json.loads((emoji_study.RESULTS / "emoji_quality.json").read_text())
    table = {"drawn": emoji_quality.table_of(drawn)}
    assert updated(page, table, emoji_quality.COMMAND) == page, "python benchmarks/emoji_quality.py"


@pytest.mark.slow
@needs_emoji
def test_a_run_and_its_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve steps, judged on the way; the fork leaves at step 8 and its curve begins with what it left."""
    import digits_report
    import emoji_report
    import emoji_study

    changes = {"STEPS": 12, "TAUS": (8,), "SEEN": 6, "HELD_OUT": 4, "SOLVER_STEPS": 1, "SEEDS": (0,)}
    for name, value in changes.items():
        monkeypatch.setattr(emoji_study, name, value)
    settings = emoji_study.settings
    small = ["model.width=32", "model.depth=3", "model.heads=2", "train.batch_size=8", "train.log_every=4"]
    small += ["train.checkpoint_every=4", "train.ema_decay=0.5", "train.optimizer.warmup_steps=0"]

    def shrunken(seed: int, arm: str, tau: int | None) -> list[str]:
        looks = ["train.diagnose_every=6"] if tau is None else []
        return [*settings(seed, arm, tau), *small, *looks, "alignment.termination.images=16"]

    monkeypatch.setattr(emoji_study, "settings", shrunken)
    for name, arm, seed, tau in emoji_study.runs((0,)):
        if arm == "haste-never":
            emoji_study.train_one(name, arm, seed, tau, tmp_path, (4, 12))
    found = digits_report.curves(tmp_path, ["haste-never", "haste-8"], (0,), emoji_report.MEASURES)
    assert found["haste-8"]["steps"] == [4, 12]
    never, ended = (found[arm]["unseen_loss"][0] for arm in ("haste-never", "haste-8"))
    assert ended[0] == never[0] and ended[1] != never[1]
    assert all(0 < value < 4 for value in never)
