"""Requests of several columns: what they ask for, and the line that each bad one gives."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hastezoo.errors import UserError
from hastezoo.webapp.columns import MOST_COLUMNS, MOST_ROWS, SweepForm, compared, read_comparison, swept
from hastezoo.webapp.forms import read
from hastezoo.webapp.settings import AppSettings

DIGITS = {"model": "sit-ti-digits"}
SWEEP = {"model": "sit-ti-digits", "classes": [3], "number": 2, "values": "1, 2"}
LIMITS = AppSettings(max_images=16, max_work=600)


def comparison(subject: dict[str, Any], *samplers: dict[str, Any], settings: AppSettings = LIMITS) -> Any:
    return compared(read_comparison(subject, samplers), settings)


def sweep(settings: AppSettings = LIMITS, **changes: Any) -> Any:
    return swept(read(SweepForm, {**SWEEP, **changes}), settings)


def test_columns_share_what_is_drawn_and_have_each_their_sampler() -> None:
    asks = comparison(
        {"classes": [3, "seven"], "number": 2, "seed": "9"},
        {**DIGITS, "steps": 4, "cfg": None, "solver": ""},
        {"model": "sit-ti-digits-haste", "protocol": "digits-nocfg", "cfg": 1.5, "high": 0.7},
    )
    assert [ask.model for ask in asks] == ["sit-ti-digits", "sit-ti-digits-haste"]
    assert all(list(ask.classes) == [3, "seven"] and list(ask.seeds) == [9, 10] for ask in asks)
    assert [ask.overrides for ask in asks] == [{"steps": 4}, {"cfg": 1.5, "interval": (0.0, 0.7)}]
    assert asks[1].protocol == "digits-nocfg"


@pytest.mark.parametrize(
    ("samplers", "line"),
    [
        ([DIGITS], "samplers: list should have at least 2 items"),
        ([DIGITS, {"model": "sit-ti-digit"}], "column B: unknown model 'sit-ti-digit'"),
        ([DIGITS, {}], "column B: model: field required"),
        ([DIGITS, {**DIGITS, "steps": "many"}], "column B: steps: input should be a valid integer"),
        ([DIGITS, DIGITS, {**DIGITS, "steps": 0}], "column C: steps: input should be greater than or equal to 1"),
        ([{**DIGITS, "low": 0.9, "high": 0.1}, DIGITS], "column A: interval (0.9, 0.1) is not"),
        ([{**DIGITS, "colour": 1}, DIGITS], "column A: unknown key 'colour'"),
        (
            [DIGITS, DIGITS, {"model": "mmdit-coco"}],
            "column A (sit-ti-digits) draws classes of digits and column C (mmdit-coco) from text; choose checkpoints",
        ),
        ([DIGITS, {"model": "sit-xl"}], "column B (sit-xl) classes of imagenet"),
    ],
)
def test_a_bad_column_is_named_in_one_line(samplers: list[dict[str, Any]], line: str) -> None:
    with pytest.raises(UserError) as caught:
        comparison({"number": 1}, *samplers)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_checkpoints_of_text_are_compared_by_their_prompts() -> None:
    with pytest.raises(UserError, match="draws from text: say what"):
        comparison({"number": 1}, {"model": "mmdit-coco"}, {"model": "mmdit-coco-haste"})
    asks = comparison({"number": 1, "prompts": "a dog"}, {"model": "mmdit-coco"}, {"model": "mmdit-coco-haste"})
    assert [tuple(ask.prompts) for ask in asks] == [("a dog",)] * 2


def test_all_columns_together_take_what_one_request_may() -> None:
    """4 images x (100 + 50) steps are 600."""
    columns = [{**DIGITS, "steps": 100}, {**DIGITS, "steps": 50}]
    assert len(comparison({"number": 4}, *columns)) == 2
    with pytest.raises(UserError, match="4 images x 151 steps of 2 columns are more than the 600 image steps"):
        comparison({"number": 4}, columns[0], {**DIGITS, "steps": 51})
    with pytest.raises(UserError, match="17 images are more than the 16 of one request"):
        comparison({"number": 17}, {**DIGITS, "steps": 1}, {**DIGITS, "steps": 1})


def test_a_model_that_is_not_offered_is_refused_in_any_column() -> None:
    with pytest.raises(UserError, match="column B: sit-ti-digits-haste is not offered here"):
        settings = AppSettings(models=["sit-ti-digits"])
        comparison({"number": 1}, DIGITS, {"model": "sit-ti-digits-haste"}, settings=settings)


@pytest.mark.parametrize("text", ["1, 1.5, 2e0", "1 1.5  2", "1;1.5;2.", " 1,1.50,\n2,"])
def test_values_are_read_from_a_text(text: str) -> None:
    asks = sweep(values=text)
    assert [ask.overrides.get("cfg", 2.0) for ask in asks] == [1.0, 1.5, 2.0]  # 2 is the protocol's own


def test_steps_are_swept_as_whole_numbers() -> None:
    asks = sweep(axis="steps", values="2, 5.0, 1e1", cfg=3)
    assert [ask.overrides for ask in asks] == [{"steps": steps, "cfg": 3.0} for steps in (2, 5, 10)]
    assert all(type(ask.overrides["steps"]) is int for ask in asks)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"values": "1, zwei"}, "values: 'zwei' is no number; write numbers with commas between, such as 1, 1.5, 2"),
        ({"values": "1, nan"}, "'nan' is no number"),
        ({"values": "1, 1e999"}, "'1e999' is no number"),
        ({"values": "1, 2_0"}, "'2_0' is no number"),
        ({"values": "1, \uff12"}, "is no number"),
        ({"values": [1, "inf"]}, "values.1: input should be a finite number"),
        ({"values": "1, 2, 1.0"}, "values: 1 is there twice; name each value once"),
        ({"values": "1"}, "values: list should have at least 2 items"),
        ({"values": ""}, "values: field required"),
        ({"values": {"a": 1}}, "values: input should be a valid list"),
        ({"values": ",".join(map(str, range(MOST_COLUMNS + 1)))}, f"at most {MOST_COLUMNS} items"),
        ({"values": "1, -2"}, "cfg: input should be greater than or equal to 0"),
        ({"axis": "steps", "values": "2, 2.5"}, "2.5 is no number of steps; steps are whole numbers from 1 on"),
        ({"axis": "steps", "values": "0, 2"}, "0 is no number of steps"),
        ({"axis": "steps", "solver": "dopri5"}, "dopri5 chooses its steps itself; sweep the CFG scale"),
        ({"axis": "seed"}, "axis: input should be 'cfg' or 'steps'"),
        ({"model": "sit-xl-digits"}, "unknown model 'sit-xl-digits'"),
        ({"number": MOST_ROWS + 1}, f"{MOST_ROWS + 1} rows are more than the {MOST_ROWS} of a sweep"),
        ({"classes": [0, 1, 2], "number": 6}, "18 rows are more than the 16 of a sweep"),
        ({"number": 6, "values": "1, 2, 3, 4, 5"}, "6 images x 125 steps of 5 columns are more than the 600"),
        ({"axis": "steps", "values": "100, 201"}, "2 images x 301 steps of 2 columns are more than the 600"),
    ],
)
def test_a_bad_sweep_gives_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep(**changes)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_sweep_may_take_all_that_is_allowed() -> None:
    assert len(sweep(axis="steps", values="100, 200")) == 2


@pytest.mark.parametrize("text", ["1" * 500_000 + "x", ",".join(map(str, range(100_000))), " " * 500_000 + "x"])
def test_a_huge_text_is_refused_at_once(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        sweep(values=text)
    assert time.monotonic() - began < 2 and len(str(caught.value)) < 300
