"""What a result is: read, written, and shown on the terminal and in a README."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hastezoo.errors import UserError
from hastezoo.evaluation.results.expected import expected_for
from hastezoo.evaluation.results.figures import Expected
from hastezoo.evaluation.results.result import (
    Curve,
    EvaluationResult,
    Value,
    footnotes,
    markdown_row,
    markdown_table,
    read_result,
    table_rows,
    write_result,
)
from hastezoo.zoo.metrics import KEYS, decimals, higher_is_better, metric_name, metrics_of, shown
from hastezoo.zoo.registry import find_card
from tests.evaluation.examples import DIGITS, REPA, result, write


def with_expected(example: dict[str, object], **settings: object) -> EvaluationResult:
    found = result(example, **settings)
    card = find_card(str(found.settings.model))
    return found.model_copy(update={"expected": expected_for(found.settings, card)})


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    every = with_expected(REPA, another_key={"of": "a later version"})
    write_result(every, tmp_path)
    write_result(every, tmp_path / "copy.json")
    assert (
        read_result(tmp_path) == read_result(tmp_path / "result.json") == read_result(tmp_path / "copy.json") == every
    )
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["metrics"] == REPA["metrics"] and written["curve"] == REPA["curve"]
    assert {key: written["settings"][key] for key in REPA["settings"] if key != "reference"} == {
        key: value for key, value in REPA["settings"].items() if key != "reference"
    }
    assert written["settings"]["another_key"] == {"of": "a later version"}
    assert not list(tmp_path.glob(".*"))


def test_little_is_needed(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"metrics": {"fid": {"value": 3}}}')
    found = read_result(tmp_path)
    assert found.metrics["fid"] == Value(value=3.0) and found.settings.features == "inception"
    assert found.curve is None and found.name == "samples" and not found.settings.drawn


def test_numbers_of_numpy_are_numbers_and_what_is_not_finite_is_none(tmp_path: Path) -> None:
    values = {"fid": Value(value=math.nan, error=0.1), "is": Value(value=np.float64(2.5), error=math.inf)}
    found = EvaluationResult(metrics={**values, "kid": Value(value=-math.inf, reason="no images")})
    assert found.metrics["fid"] == Value(error=0.1, reason="it is not finite")
    assert found.metrics["is"] == Value(value=2.5) and found.metrics["kid"].reason == "no images"
    write_result(found, tmp_path)
    assert "NaN" not in (tmp_path / "result.json").read_text() and read_result(tmp_path) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"result.json cannot be read: Expecting"),
        ("[1]", r"result.json: .*no result of an evaluation$"),
        ('{"step": 1}', r"result.json: metrics: field required.*no result of an evaluation$"),
        ('{"metrics": {"fid": {"value": "good"}}}', r"metrics.fid.value: .*given: 'good'"),
        ('{"metrics": {"fid": 3}}', r"metrics.fid: .*given: 3"),
        ('{"metrics": {}, "curve": {"count": [1], "fid": []}}', r"curve: 1 counts do not go with 0 distances"),
        ('{"metrics": {}, "settings": {"labels": "sorted"}}', r"settings.labels: .*given: 'sorted'"),
        ('{"a": ' * 100_000, "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_what_is_no_result_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_result(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no result.json; name a folder or file that `hastezoo eval-fid` wrote$"):
        read_result(tmp_path)
    with pytest.raises(UserError, match=r"there is no file .*none.json;"):
        read_result(tmp_path / "none.json")


def test_a_curve_has_a_distance_for_each_count() -> None:
    with pytest.raises(ValueError, match="2 counts do not go with 1 distances"):
        Curve(count=[1, 2], fid=[1.0])


def test_names_say_what_the_features_are() -> None:
    assert [metric_name(key) for key in KEYS] == ["FID", "sFID", "IS", "precision", "recall", "KID"]
    assert [metric_name(key, "pixels") for key in metrics_of("pixels")] == [
        "pixel FD", "pixel precision", "pixel recall", "pixel KD",
    ]  # fmt: skip
    assert [metric_name(key, "dinov2") for key in metrics_of("dinov2")] == [
        "FD-DINOv2", "precision-DINOv2", "recall-DINOv2", "KD-DINOv2",
    ]  # fmt: skip
    assert metric_name("recall_float32") == "recall (float32)" and metric_name("loss") == "loss"
    named = [metric_name(key, features) for features in ("inception", "dinov2", "pixels", "clip") for key in KEYS]
    assert len(set(named)) == len(named)
    assert [key for key in (*KEYS, "recall_float32") if higher_is_better(key)] == [
        "is", "precision", "recall", "recall_float32",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "error", "text"),
    [
        ("fid", 1.42, None, "1.42"),
        ("fid", 1.4249, 0.5, "1.42"),  # never fewer digits than are published
        ("fid", 1.4249, 0.021, "1.425"),
        ("fid", 1.42494, 0.0021, "1.4249"),
        ("fid", 1.4249, 1e-12, "1.424900"),
        ("fid", 1.4249, 0.0, "1.42"),
        ("is", 305.68, 2.4, "305.68"),
        ("precision", 0.80123, None, "0.801"),
        ("recall_float32", 0.80123, None, "0.801"),
        ("kid", 0.00213, 0.00004, "0.002130"),
        ("kid", 0.00213, None, "0.00213"),
        ("kid", -40.29, 59.2, "-40"),
        ("fid", None, None, "-"),
        ("fid", 1234.5, 20.0, "1234.50"),
    ],
)
def test_as_many_digits_as_the_error_warrants(key: str, value: float | None, error: float | None, text: str) -> None:
    assert shown(key, value, error) == text


def test_decimals_do_not_stumble_over_errors_that_are_none() -> None:
    assert {decimals("fid", error) for error in (None, 0.0, math.nan, math.inf)} == {2}


def test_the_terminals_table() -> None:
    rows = {str(row["metric"]): row for row in table_rows(with_expected(REPA))}
    assert list(rows) == [
        "FID", "sFID", "IS", "precision", "recall", "KID", "precision (float32)", "recall (float32)",
    ]  # fmt: skip
    assert rows["FID"] == {
        "metric": "FID", "value": "1.434", "error": "0.021", "expected": "1.42 reported",
        "comparable": "yes: agrees within the noise",
    }  # fmt: skip
    assert rows["sFID"]["expected"] == "4.70 reported" and rows["IS"]["expected"] == "305.70 reported"
    assert rows["precision"] == {
        "metric": "precision", "value": "0.801", "error": "-", "expected": "", "comparable": "",
    }  # fmt: skip
    assert rows["KID"]["value"] == "-"


def test_the_notes_under_the_table() -> None:
    notes = footnotes(with_expected(REPA, dtype="bfloat16"))
    assert notes == [
        "expected: FID 1.42, sFID 4.70, IS 305.70 reported by HASTE rebuttal",
        "no KID: not asked for",
        "drawn in bfloat16 (the sources of the figures do not state theirs)",
        "written by hand",
    ]


def test_what_cannot_be_compared_has_no_verdict_and_its_reasons_below() -> None:
    found = with_expected(REPA, count=10_000, order="permuted")
    rows = {str(row["metric"]): row["comparable"] for row in table_rows(found)}
    assert (rows["FID"], rows["sFID"], rows["IS"]) == ("no [1]", "no [1]", "no [2]")
    first, second, *_ = footnotes(found)
    because = "not comparable, because 10,000 samples instead of 50,000"
    assert first == f"[1] FID 1.42, sFID 4.70 reported by HASTE rebuttal: {because}"
    assert second == (
        f"[2] IS 305.70 reported by HASTE rebuttal: {because}; the samples were shuffled for the Inception Score, "
        "not taken in their order"
    )


def test_two_figures_of_one_metric_are_two_rows() -> None:
    found = with_expected(REPA, model="sit-xl")
    rows = table_rows(found)
    assert [(row["metric"], row["value"], row["expected"]) for row in rows[:2]] == [
        ("FID", "1.434", "2.06 reported"),
        ("", "", "8.30 reported"),
    ]
    assert all(row["comparable"] != "" for row in rows[:2])


def test_without_a_card_there_are_no_columns_for_it() -> None:
    rows = table_rows(result(DIGITS))
    assert [list(row) for row in rows] == [["metric", "value", "error"]] * 6
    assert list(rows[0].values()) == ["pixel FD", "10.60", "0.50"]
    assert list(rows[-1].values()) == ["pixel KD", "0.123", "0.010"]
    assert footnotes(result(DIGITS)) == [
        "no pixel sFD: pixels have no spatial features",
        "no pixel IS: pixels have no classifier",
    ]


def figure(value: float, key: str = "fid", **fields: object) -> Expected:
    return Expected.model_validate({"key": key, "value": value, "kind": "reported", "source": "a paper", **fields})


@pytest.mark.parametrize(
    ("expected", "value", "error", "verdict"),
    [
        # 2 x sqrt(2) x 0.02 = 0.0566 of noise, and half a unit of the last digit.
        (1.42, 1.42, 0.02, "agrees within the noise"),
        (1.42, 1.42 + 0.0566 + 0.0049, 0.02, "agrees within the noise"),
        (1.42, 1.42 - 0.0566 - 0.0049, 0.02, "agrees within the noise"),
        (1.42, 1.42 + 0.0566 + 0.0051, 0.02, "differs by +0.062, more than the noise"),
        (1.42, 1.30, 0.02, "differs by -0.120, more than the noise"),
        # Without an error only the evaluator's own tolerance is known.
        (1.42, 1.4269, None, "agrees"),
        (1.42, 1.4271, None, "differs by +0.01; no error is known"),
        (49.5, 49.51, None, "differs by +0.01; no error is known"),
        (1.42, None, None, ""),
    ],
)
def test_the_verdict(expected: float, value: float | None, error: float | None, verdict: str) -> None:
    assert figure(expected).verdict(value, error) == verdict
    assert figure(expected, reasons=["another count"]).verdict(value, error) == ""


def test_the_tolerance_of_the_inception_score_is_relative() -> None:
    assert figure(250.0, "is").verdict(250.25) == "agrees"
    assert figure(250.0, "is").verdict(250.26) == "differs by +0.26; no error is known"
    assert figure(0.8, "precision").verdict(0.802) == "agrees"
    assert figure(0.8, "kid").verdict(0.802) == "differs by +0.00200; no error is known"


def test_a_row_for_a_readme() -> None:
    assert markdown_row(result(REPA)) == (
        "| `sit-xl-repa` | 4,000,000 | `repa` | 50,000 | random | 1.434 ± 0.021 | 4.690 ± 0.030 | 306.20 ± 2.40 | "
        "0.801 | 0.641 | imagenet256 |"
    )
    overridden = result(REPA, sampling={"steps": 50, "interval": [0.0, 1.0]}, weights="/somewhere/mine.pt", step=None)
    assert markdown_row(overridden).startswith(
        "| `sit-xl-repa` with mine.pt | - | `repa` with steps 50, interval [0, 1] |"
    )
    existing = result(REPA, model=None, samples="a|b.npz", step=None, protocol=None, sampling=None, labels=None)
    assert markdown_row(existing).startswith("| a\\|b.npz | - | - | 50,000 | - |")


def test_a_table_for_a_readme() -> None:
    lines = markdown_table([result(REPA), result(REPA, model="other", reference=None)]).splitlines()
    assert lines[0] == "| model | steps | protocol | n | labels | FID | sFID | IS | P | R | reference |"
    assert set(lines[1]) == {"|", "-", " "} and len({line.count("|") for line in lines[:4]}) == 1
    assert (
        lines[2] == markdown_row(result(REPA)) and lines[3].endswith("| - |") and len(lines) == 4
    )  # KID has no column


def test_features_have_tables_of_their_own_and_what_is_missing_stands_below() -> None:
    lost = result(REPA)
    lost.metrics["sfid"] = lost.metrics["recall"] = Value(reason="the file holds only mu and sigma")
    first, notes, second = markdown_table([lost, result(DIGITS)]).split("\n\n")
    assert "| 1.434 ± 0.021 | - | 306.20 ± 2.40 | 0.801 | - |" in first
    assert notes == "- `sit-xl-repa`: no sFID, recall: the file holds only mu and sigma"
    assert second.splitlines()[0] == (
        "| model | steps | protocol | n | labels | pixel FD | pixel precision | pixel recall | pixel KD | reference |"
    )


def test_an_example_on_disk_is_read(tmp_path: Path) -> None:
    assert read_result(write(tmp_path / "digits", DIGITS)).name == "sit-ti-digits-haste"
