"""What an address says becomes values of controls, or a line about what it is not."""

from __future__ import annotations

import gradio as gr
import pytest
from gradio.components import Component

from hastezoo.webapp.tabs import links


@pytest.fixture(scope="module")
def fields() -> dict[str, Component]:
    with gr.Blocks():
        return {
            "model": gr.Dropdown(["a", "b"]),
            "classes": gr.Dropdown([("0 zero", 0), ("1 one", 1)], multiselect=True),
            "solver": gr.Dropdown(["heun", "euler"]),
            "steps": gr.Slider(1, 1000, step=1),
            "cfg": gr.Slider(0, 10, step=0.05),
            "seed": gr.Textbox(),
            "few": gr.Checkbox(),
        }


def test_values_have_the_types_of_their_controls(fields: dict[str, Component]) -> None:
    address = "?tab=generate&model=a&classes=1&classes=207&solver=euler&steps=30&cfg=1.5&seed=9007199254740993&few=true"
    values, notes = links.read(links.parsed(address), fields)
    assert notes == []
    assert values == {
        "model": "a",
        "classes": [1, 207],  # of a checkpoint that is not shown yet
        "solver": "euler",
        "steps": 30,
        "cfg": 1.5,
        "seed": "9007199254740993",
        "few": True,
    }
    assert isinstance(values["steps"], int)


@pytest.mark.parametrize(
    ("address", "note"),
    [
        ("cfg=strong", "the link's cfg 'strong' is no number; it is passed over"),
        ("cfg=nan", "is no number"),
        ("steps=0", "is not in 1..1000"),
        ("steps=1e9", "is not in 1..1000"),
        ("solver=ddim", "is none of the choices"),
    ],
)
def test_what_cannot_be_is_passed_over_and_said(fields: dict[str, Component], address: str, note: str) -> None:
    values, notes = links.read(links.parsed(f"{address}&seed=1"), fields)
    assert values == {"seed": "1"}
    assert len(notes) == 1 and note in notes[0]


@pytest.mark.parametrize("address", [None, "", "?", 7, {"a": 1}, "&".join("a=1" for _ in range(5000)), "%ff=%ff"])
def test_an_address_that_is_none_says_nothing(fields: dict[str, Component], address: object) -> None:
    assert links.read(links.parsed(address), fields) == ({}, [])


def test_a_value_is_cut(fields: dict[str, Component]) -> None:
    values, _ = links.read(links.parsed("seed=" + "1" * 10_000), fields)
    assert len(values["seed"]) == links.LONGEST
