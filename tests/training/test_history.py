"""What a run's folder tells of it, from small folders written by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hastezoo.errors import UserError
from hastezoo.training.history import read_histories, read_history
from tests.training.runs import EVENTS, write_plain_run, write_run


def test_every_value_is_read(tmp_path: Path) -> None:
    history = read_history(write_run(tmp_path / "run"))
    assert history.name == "run" and history.step == 40 and history.ended_at == 20
    assert history.losses == {
        "loss": ([10, 20, 30, 40], [2.0, 1.0, 0.5, 0.25]),
        "denoising": ([10, 20, 30, 40], [1.5, 0.75, 0.5, 0.25]),
        "feature": ([10, 20], [-0.2, -0.4]),
        "attention": ([10, 20], [1.2, 0.9]),
    }
    assert history.cknna == {1: ([5, 10, 30], [0.1, 0.2, 0.2]), 2: ([5, 10, 30], [0.2, 0.3, 0.3]),
                             3: ([5, 10, 30], [0.15, 0.25, 0.35])}  # fmt: skip
    assert history.attention_kl == {"1<-2": ([5, 10, 30], [2.0, 1.0, 0.5]), "2<-3": ([5, 10, 30], [3.0, 1.5, 0.75])}
    assert history.mean_kl == ([5, 10, 30], [2.5, 1.25, 0.625])
    assert history.settings.alignment is not None and history.settings.alignment.feature_layer == 2


def test_looks_of_trigger_and_probe_make_one_series_and_the_triggers_counts(tmp_path: Path) -> None:
    history = read_history(write_run(tmp_path / "run"))
    assert history.cosines == {0.1: ([5, 10, 20], [0.3, 0.2, -0.2]), 0.8: ([5, 10, 20], [0.5, 0.4, 0.06])}
    assert history.mean_cosine == ([5, 10, 20], pytest.approx([0.4, 0.3, -0.07]))
    early = read_history(write_run(tmp_path / "early", events=[{**EVENTS[0], "step": 3}]))
    assert early.mean_cosine[0] == [3, 5, 10]


@pytest.mark.parametrize("name", ["metrics", "alignment", "diagnostics"])
@pytest.mark.parametrize("rest", [b'{"step": 50, "lo', b'{"step": 50, "note": "\xc3'], ids=["cut", "cut in a letter"])
def test_a_last_line_that_was_cut_short_is_passed_over(tmp_path: Path, name: str, rest: bytes) -> None:
    whole = read_history(write_run(tmp_path / "run"))
    path = tmp_path / "run" / f"{name}.jsonl"
    path.write_bytes(path.read_bytes() + rest)
    assert read_history(tmp_path / "run") == whole


def test_a_last_line_without_its_newline_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run") / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert read_history(tmp_path / "run").step == 40


def test_settings_of_another_version_are_read(tmp_path: Path) -> None:
    """One from before alignment and diagnoses, and keys that are not known."""
    write_plain_run(tmp_path / "old")
    (tmp_path / "old" / "config.json").write_text(json.dumps({"train": {"steps": 50, "log_every": 10, "new": 1}}))
    history = read_history(tmp_path / "old")
    assert history.settings.alignment is None and history.settings.train.diagnose_every == 0


def test_names_tell_runs_apart_and_a_run_given_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a/run", "b/run", "b/other"):
        write_run(tmp_path / place)
    monkeypatch.chdir(tmp_path / "b" / "run")
    same = [Path("."), tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    assert [history.name for history in read_histories(same)] == ["b/run", "a/run", "b/other"]
    assert [history.name for history in read_histories([Path("."), Path("../other")])] == ["run", "other"]
    assert read_history(Path(".")).name == "run"


def broken(folder: Path, what: str) -> Path:
    write_run(folder)
    config, metrics = folder / "config.json", folder / "metrics.jsonl"
    if what == "no folder":
        return folder / "nowhere"
    if what == "a file":
        return metrics
    if what == "no config":
        config.unlink()
    elif what == "no metrics":
        metrics.unlink()
    elif what == "only a cut line":
        metrics.write_text('{"step": 1')
    elif what == "config is cut":
        config.write_text('{"train": {')
    elif what == "config of something else":
        config.write_text('{"model_type": "vit"}')
    elif what == "config is a folder":
        config.unlink()
        config.mkdir()
    elif what == "a bad line in the middle":
        metrics.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo\n{"step": 3, "loss": 1.0}\n')
    elif what == "a line of something else":
        (folder / "diagnostics.jsonl").write_text('{"step": "soon"}\n')
    elif what == "a cosine without its time":
        (folder / "alignment.jsonl").write_text('{"step": 1, "cosines": [0.1, 0.2], "times": [0.5]}\n')
    return folder


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no folder", "nowhere does not exist; give the folder that a recipe trained into"),
        ("a file", "metrics.jsonl is a file, not a run's folder"),
        ("no config", "holds no run: it has no config.json"),
        ("no metrics", "metrics.jsonl has no line yet; a run writes the first at step 10"),
        ("only a cut line", "metrics.jsonl has no line yet"),
        ("config is cut", "config.json is not valid JSON"),
        ("config of something else", "config.json is no run's: train: field required"),
        ("config is a folder", "cannot read"),
        ("a bad line in the middle", "metrics.jsonl line 2 is not valid JSON"),
        ("a line of something else", "diagnostics.jsonl line 1: step: "),
        ("a cosine without its time", "alignment.jsonl line 1: 1 times do not go with 2 cosines"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path, what: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_history(broken(tmp_path / "run", what))
    message = str(caught.value)
    assert said in message and "\n" not in message


def test_reading_and_planning_a_picture_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, hastezoo.cli.diagnose\nfrom hastezoo.training import history, panels, plots, summary\n"
        "print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr
