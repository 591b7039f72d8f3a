"""The results that evaluations left in the app's folder, and two of them side by side."""

from __future__ import annotations

import datetime
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hastezoo.errors import UserError
from hastezoo.evaluation.results.comparison import Comparison, compare
from hastezoo.evaluation.results.comparison_tables import letter
from hastezoo.evaluation.results.result import EvaluationResult, protocol_words, read_result

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 200  # results that are listed
_drawing = threading.Lock()  # matplotlib's style is one for all threads


@dataclass(frozen=True)
class Found:
    """A result.

    Attributes:
        id: What the page calls it; no path.
        label: What a person calls it.
        result: As it was read.
    """

    id: str
    label: str
    result: EvaluationResult


def listed(folder: Path) -> list[Found]:
    """The results of all evaluations, newest first. What cannot be read is passed over."""
    found = []
    for id, path in _paths(folder).items():
        try:
            found.append(_found(id, path))
        except (UserError, OSError):
            continue
    return found


def find(folder: Path, id: object) -> Found:
    """The result of that name.

    Raises:
        UserError: If there is none, or no longer.
    """
    path = _paths(folder).get(str(id))
    if path is None:
        raise UserError("a result that was chosen is there no longer; refresh the list" if id else "choose two results")
    return _found(str(id), path)


def _found(id: str, path: Path) -> Found:
    result = read_result(path)
    return Found(id, label(result, path), result)


def _paths(folder: Path) -> dict[str, Path]:
    """`eval-.../result.json` and the older answers beside it, by name, newest first."""
    dated = []
    for path in [*folder.glob("*/result.json"), *folder.glob("*/result-*.json")]:
        try:
            dated.append((path.stat().st_mtime, f"{path.parent.name}/{path.name}", path))
        except OSError:  # cleaned away meanwhile
            continue
    return {id: path for _, id, path in sorted(dated, reverse=True)[:MOST]}


def label(result: EvaluationResult, path: Path) -> str:
    """Checkpoint, protocol, number of images, and when."""
    when = datetime.datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    count = "" if result.settings.count is None else f"{result.settings.count:,} images, "
    return f"{result.name}, {protocol_words(result.settings).replace('`', '')}, {count}{when}"


def compared(one: Found, other: Found) -> Comparison:
    """Hold the second against the first."""
    return compare([one.result, other.result], [letter(0), letter(1)])


def curves(results: Sequence[Found]) -> bytes:
    """FID against the number of samples of all of them, as a PNG.

    Raises:
        UserError: If there is nothing to draw, or the features differ.
    """
    from matplotlib import rc_context

    from hastezoo.evaluation.results.plots import STYLE, draw

    names = [f"{letter(place)} {one.result.name}" for place, one in enumerate(results)]
    buffer = io.BytesIO()
    with _drawing:
        figure = draw([one.result for one in results], names)
        with rc_context(STYLE):
            figure.savefig(buffer, format="png")
    return buffer.getvalue()
