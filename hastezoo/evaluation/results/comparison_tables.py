"""A comparison as tables: rows of strings, for the terminal and for a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hastezoo.evaluation.results.comparison import Comparison, Difference
from hastezoo.evaluation.results.result import EvaluationResult, protocol_words
from hastezoo.zoo.metrics import DASH, metric_name, shown

LONGEST = 40  # characters of a setting's value
Row = dict[str, str]


def letter(index: int) -> str:
    """A, B, ... Z, AA: what a result is called in a table whose columns are results.

    Args:
        index: Of the result, from 0.
    """
    return ("" if index < 26 else letter(index // 26 - 1)) + chr(ord("A") + index % 26)


def described(result: EvaluationResult) -> str:
    """What was measured, in one line: `sit-xl-repa, repa with steps 50, 10,000 samples, inception features`."""
    settings = result.settings
    protocol = f", {protocol_words(settings).replace('`', '')}" if settings.protocol else ""
    count = f", {settings.count:,} samples" if settings.count is not None else ""
    return f"{result.name}{protocol}{count}, {settings.features} features"


def metric_rows(comparison: Comparison) -> list[Row]:
    """A row a metric: `metric`, then of each result its value, and of all but the first its difference from that.

    Args:
        comparison: Its names are those of the columns, and `B - A` that of a difference.
    """
    features = {result.settings.features for result in comparison.results}
    rows = []
    for key in comparison.metrics:
        # Each result's features stand above the table; where they differ, the row names the kind of metric.
        row = {"metric": metric_name(key, *features) if len(features) == 1 else key}
        for index, (name, result) in enumerate(zip(comparison.names, comparison.results, strict=True)):
            row[name] = value_text(result, key)
            if index:
                row[f"{name} - {comparison.names[0]}"] = difference_text(key, comparison.differences[key][index - 1])
        rows.append(row)
    return rows


def value_text(result: EvaluationResult, key: str) -> str:
    """A metric with its error: `1.434 ± 0.021`; a dash for none."""
    value = result.metrics.get(key)
    if value is None or value.value is None:
        return DASH
    error = f" ± {shown(key, value.error, value.error)}" if value.error is not None else ""
    return shown(key, value.value, value.error) + error


def difference_text(key: str, difference: Difference | None) -> str:
    """A difference with its error: `+0.100 ± 0.035 (beyond the noise)`; a dash for none."""
    if difference is None:
        return DASH
    text = shown(key, difference.value, difference.error, "+")
    if difference.error is None:
        return f"{text} (no error known)"
    noise = "beyond the noise" if difference.beyond_noise else "within the noise"
    return f"{text} ± {shown(key, difference.error, difference.error)} ({noise})"


def settings_rows(names: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> list[Row]:
    """A row a setting: `setting`, then its value in each result.

    Args:
        names: Of the results.
        settings: By name, a value for each result, as `Comparison.settings` and `circumstances` are.
    """
    return [
        {"setting": key, **{name: short_text(value) for name, value in zip(names, values, strict=True)}}
        for key, values in settings.items()
    ]


def short_text(value: Any) -> str:
    """A setting's value in at most LONGEST characters."""
    text = DASH if value is None else json.dumps(value) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
