"""docs/scale.md holds what was computed and measured, by the tables that the benchmark prints."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from hastezoo.errors import REQUEUE
from hastezoo.training.config import ParallelConfig
from tests.conftest import ROOT
from tests.test_docs_numbers import result_of


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scaling_report")


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs" / "scale.md").read_text()


@pytest.mark.parametrize("name", ["dominates_table", "times_table", "shares_table"])
def test_tables_of_the_model(name: str, report: Any, text: str) -> None:
    assert getattr(report, name)(result_of("scaling_model")).strip() in text


@pytest.mark.parametrize("name", ["steps_table", "saving_table"])
def test_tables_of_the_measurement(name: str, report: Any, text: str) -> None:
    assert getattr(report, name)(result_of("scaling")).strip() in text


def test_shards_block_at_most_a_tenth_of_a_step_at_the_size_that_is_named(text: str) -> None:
    measured = result_of("scaling")["processes"]["4"]["saving"]["fsdp"]
    shares = {
        batch: one["blocked_seconds"]["median"] / one["step_seconds"]["median"] for batch, one in measured.items()
    }
    named = re.search(
        r"At (\d+) samples a step four processes of FSDP2 are kept for (\d+) % of a step", " ".join(text.split())
    )
    assert named is not None
    assert round(100 * shares[named[1]]) == int(named[2]) <= 10


def test_numbers_in_sentences(text: str) -> None:
    measured, words = result_of("scaling")["processes"], " ".join(text.split())

    def blocked(count: str, batch: str) -> str:
        one = measured[count]["saving"]["fsdp"][batch]
        return f"{100 * one['blocked_seconds']['median'] / one['step_seconds']['median']:.0f} %"

    assert f"and two for {blocked('2', '32')}. At 8 samples it is {blocked('4', '8')} and {blocked('2', '8')}" in words
    above = [f"{100 * (one['seconds']['median'] / one['most'] - 1):.0f} %" for one in measured["2"]["steps"].values()]
    assert f"Two processes of DDP lie {above[0]} above their upper bound, and of FSDP2 {above[1]}" in words
    inside = [one["least"] <= one["seconds"]["median"] <= one["most"] for one in measured["4"]["steps"].values()]
    assert all(inside)


def test_time_outs_and_the_code_are_those_of_the_code(text: str) -> None:
    assert f"exit with **{REQUEUE}**" in text
    assert f"`parallel.silence` ({ParallelConfig().silence:g} s)" in text
    assert f"`parallel.stall` ({ParallelConfig().stall:g} s)" in text
