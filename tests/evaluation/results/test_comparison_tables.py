"""A comparison as rows of strings. The results are examples, written by hand."""

from __future__ import annotations

import json

import pytest

from hastezoo.evaluation.results.comparison import Comparison, compare
from hastezoo.evaluation.results.comparison_tables import (
    LONGEST,
    described,
    letter,
    metric_rows,
    settings_rows,
    short_text,
)
from tests.evaluation.examples import DIGITS, REPA, result


@pytest.fixture
def comparison() -> Comparison:
    """The second has a worse FID and another seed."""
    worse = {**REPA, "metrics": {**REPA["metrics"], "fid": {"value": 1.534, "error": 0.028}}}
    return compare([result(REPA), result(worse, seed=5)], ["A", "B"])


def test_there_are_letters_for_any_number_of_results() -> None:
    letters = [letter(index) for index in range(800)]
    assert letters[:3] == ["A", "B", "C"] and letters[25:28] == ["Z", "AA", "AB"] and letters[702] == "AAA"
    assert len(set(letters)) == 800


def test_a_result_in_a_line() -> None:
    assert described(result(REPA)) == "sit-xl-repa, repa, 50,000 samples, inception features"
    changed = result(REPA, count=10_000, sampling={"steps": 50})
    assert described(changed) == "sit-xl-repa, repa with steps 50, 10,000 samples, inception features"
    assert described(result(REPA, count=None, protocol=None)) == "sit-xl-repa, inception features"


def test_a_row_a_metric_with_the_difference_from_the_first(comparison: Comparison) -> None:
    rows = {row["metric"]: row for row in metric_rows(comparison)}
    # The error of both: hypot(0.021, 0.028) = 0.035.
    assert rows["FID"] == {
        "metric": "FID", "A": "1.434 ± 0.021", "B": "1.534 ± 0.028", "B - A": "+0.100 ± 0.035 (beyond the noise)",
    }  # fmt: skip
    assert rows["sFID"]["B - A"] == "+0.000 ± 0.042 (within the noise)"
    assert rows["precision"]["B - A"] == "+0.000 (no error known)"
    assert rows["KID"] == {"metric": "KID", "A": "-", "B": "-", "B - A": "-"}


def test_each_result_has_its_own_difference_from_the_first() -> None:
    results = [result({**REPA, "metrics": {"fid": {"value": 1 + index}}}) for index in range(3)]
    assert metric_rows(compare(results, ["A", "B", "C"])) == [
        {
            "metric": "FID", "A": "1.00", "B": "2.00", "B - A": "+1.00 (no error known)", "C": "3.00",
            "C - A": "+2.00 (no error known)",
        }
    ]  # fmt: skip


def test_other_features_are_not_subtracted_and_the_metric_has_a_general_name() -> None:
    rows = metric_rows(compare([result(REPA), result(DIGITS)], ["A", "B"]))
    fid = next(row for row in rows if row["metric"] == "fid")
    assert fid["B"] == "10.60 ± 0.50" and fid["B - A"] == "-"


def test_a_row_a_setting_of_strings(comparison: Comparison) -> None:
    assert settings_rows(comparison.names, comparison.settings) == [{"setting": "seed", "A": "0", "B": "5"}]
    (row,) = settings_rows(["A", "B", "C"], {"interval": [[0.0, 0.7], None, "x" * 60]})
    assert row == {"setting": "interval", "A": "[0.0, 0.7]", "B": "-", "C": "x" * 37 + "..."}
    json.dumps(row)


def test_values_are_cut_where_they_are_too_long_and_not_before() -> None:
    assert short_text("x" * LONGEST) == "x" * LONGEST
    assert len(short_text("x" * (LONGEST + 1))) == LONGEST
