"""What a run says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hastezoo.training.tracking import JsonLines, TrainingBar


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = JsonLines(path)
    for step in (2, 4, 6, 8):
        lines.log(step=step, loss=1.0)
    with path.open("a") as stream:
        stream.write('{"step": 10, "lo')  # a kill cut it short
    JsonLines(path, resumed_step=5).log(step=6, loss=0.5)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 1.0), (4, 1.0), (6, 0.5)]


def test_without_a_terminal_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingBar(10, 20, seconds=0.0) as bar:
        bar.update(11)
        bar.update(15, 0.25)
    with TrainingBar(0, 20, quiet=True, seconds=0.0) as bar:
        bar.update(1, 0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("step 15/20  loss 0.2500")
