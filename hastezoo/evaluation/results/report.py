"""What an evaluation leaves in its folder: result.json, the row for a README, the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hastezoo.evaluation.results.expected import expected_for
from hastezoo.evaluation.results.plots import curve
from hastezoo.evaluation.results.result import EvaluationResult, markdown_table, read_result, write_result
from hastezoo.evaluation.results.settings import CIRCUMSTANCES
from hastezoo.evaluation.run import GRID, Outcome
from hastezoo.files import atomic_write
from hastezoo.zoo.card import Card

RESULT, ROW, CURVE = "result.json", "result.md", "curve.png"


def conclude(
    out: Path, outcome: Outcome, settings: dict[str, Any], card: Card | None
) -> tuple[EvaluationResult, list[Path]]:
    """Write everything. A result of another question, such as another reference, is kept beside under a number.

    Args:
        out: The evaluation's folder.
        outcome: What was measured.
        settings: How the images came about.
        card: Of the checkpoint, which states what to expect.

    Returns:
        The result, and the files to look at.
    """
    every = {**outcome.settings, **settings}
    result = EvaluationResult(
        metrics=outcome.measured.metrics,
        settings=every,
        expected=expected_for(every, card),
        notes=outcome.measured.notes,
        curve=outcome.measured.curve,
    )
    _keep_older(out, result)
    files = [out / RESULT, out / ROW]
    write_result(result, out / RESULT)
    atomic_write(out / ROW, (markdown_table([result]) + "\n").encode())
    if result.curve is not None:
        curve([result], out / CURVE)
        files.append(out / CURVE)
    if (out / GRID).exists():
        files.append(out / GRID)
    return result, files


def _keep_older(out: Path, result: EvaluationResult) -> None:
    path = out / RESULT
    if not path.exists() or _question(read_result(path)) == _question(result):
        return
    number = 1 + len(list(out.glob("result-*.json")))
    path.rename(path.with_name(f"result-{number}.json"))


def _question(result: EvaluationResult) -> dict[str, Any]:
    """The settings that decide the numbers, and which numbers."""
    settings: dict[str, Any] = result.model_dump(mode="json")["settings"]
    kept = {key: value for key, value in settings.items() if key not in CIRCUMSTANCES}
    return {**kept, "metrics": sorted(result.metrics)}
