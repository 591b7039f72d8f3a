"""The events of Compare, driven as a browser would drive them, without one."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

from hastezoo.sampling.stopping import Cancelled
from hastezoo.webapp.columns import read_comparison
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import compare


class Page:
    """The tab alone: the value of each control by its id, and the events of its buttons."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        with gr.Blocks() as self.blocks:
            compare.build(studio)
        self.ids = {block.elem_id: block for block in self.blocks.blocks.values() if block.elem_id}
        self.values = {key: getattr(block, "value", None) for key, block in self.ids.items()}

    def event(self, button: str) -> Any:
        """What a click on a button runs."""
        target = (self.ids[button]._id, "click")
        (found,) = [one for one in self.blocks.fns.values() if target in one.targets]
        return found

    def press(self, button: str, most: int | None = None) -> list[dict[str, Any]]:
        """Everything that a click yields, by the ids of what it changes; at most so many, then the client is gone."""
        event = self.event(button)
        names = [block.elem_id or "ticket" for block in event.outputs]

        async def run() -> list[dict[str, Any]]:
            found = []
            steps = event.fn(*(self.values[block.elem_id] for block in event.inputs))
            async for values in steps:
                found.append(dict(zip(names, values, strict=True)))
                if len(found) == most:
                    await steps.aclose()
                    with pytest.raises(Cancelled):  # at once, not when the loop gets to it
                        self.studio.turns.find(found[0]["ticket"]).check()
                    break
            return found

        return asyncio.run(run())


@pytest.fixture
def page(studio: Studio) -> Page:
    return Page(studio)


def test_the_columns_begin_with_plain_repa_and_haste(page: Page) -> None:
    chosen = [page.values[f"compare-{letter}-model"] for letter in "abc"]
    assert chosen == ["sit-ti-digits", "sit-ti-digits-repa", "sit-ti-digits-haste"]
    assert [page.values[f"compare-{letter}-steps"] for letter in "abc"] == [25] * 3
    offered = {value for _, value in page.ids["compare-b-model"].choices}
    assert {"sit-xl-haste", "mmdit-coco", "sit-ti-digits"} <= offered


def test_few_checkpoints_fill_the_columns(studio: Studio) -> None:
    one = Studio(AppSettings(outputs=studio.settings.outputs, models=["sit-xl"], max_images=2))
    assert [card.name for card in compare.first_cards(one)] == ["sit-xl"] * 3
    page = Page(one)
    one.close()
    assert page.values["compare-number"] == 2 and page.values["compare-a-protocol"] == "sit-ode"


def test_pressing_compare_shows_films_and_commands(page: Page) -> None:
    page.values |= {"compare-number": 2, **{f"compare-{letter}-steps": 3 for letter in "abc"}}
    seen = page.press("compare-go")
    assert seen[0]["compare-go"]["interactive"] is False and seen[0]["compare-cancel"]["interactive"] is True
    assert page.studio.turns.find(seen[0]["ticket"]) is not None
    last = seen[-1]
    assert last["compare-result"]["value"].count("<figure") == 3
    assert "3 columns in" in last["compare-progress"] and last["ticket"] == ""
    assert last["compare-command-b"]["value"].startswith("hastezoo sample --model sit-ti-digits-repa")
    assert last["compare-go"]["interactive"] is True and last["compare-cancel"]["interactive"] is False


def test_without_the_third_column_there_are_two(page: Page) -> None:
    page.values |= {"compare-number": 1, "compare-third": False, "compare-c-model": "no-such-model"}
    page.values |= {"compare-a-steps": 2, "compare-b-steps": 2}
    last = page.press("compare-go")[-1]
    assert last["compare-result"]["value"].count("<figure") == 2
    assert last["compare-command-c"] == gr.update(value="", visible=False)


@pytest.mark.parametrize("button", ["compare-go", "sweep-go"])
def test_a_client_that_goes_frees_the_queue(page: Page, button: str) -> None:
    page.values |= {f"compare-{letter}-steps": 800 for letter in "abc"} | {"sweep-steps": 900}
    ticket = page.studio.turns.find(page.press(button, most=2)[0]["ticket"])
    assert ticket is not None
    again = page.studio.compare(read_comparison({"number": 1}, [{"model": "sit-ti-digits", "steps": 1}] * 2))
    while not again.over:
        pass
    assert (ticket.state, again.state) == ("cancelled", "done")


def test_pressing_sweep_shows_the_picture(page: Page) -> None:
    page.values |= {"sweep-number": 2, "sweep-steps": 2, "sweep-values": "1, 2.5"}
    last = page.press("sweep-go")[-1]
    assert "sweep.png" in last["sweep-result"]["value"] and "4 images in" in last["sweep-progress"]
    assert last["sweep-download"]["value"].endswith("sweep.png") and last["sweep-zip"]["visible"]
    assert len(last["sweep-commands"].splitlines()) == 2


@pytest.mark.parametrize(
    ("button", "changes", "line"),
    [
        ("compare-go", {"compare-c-model": "mmdit-coco"}, "choose checkpoints that draw the same"),
        ("compare-go", {"compare-b-steps": {"a": 1}}, "column B: steps"),
        ("compare-go", {"compare-classes": ["ten"]}, "ten"),
        ("sweep-go", {"sweep-values": "one"}, "'one' is no number"),
        ("sweep-go", {"sweep-axis": "seed"}, "axis"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(page: Page, button: str, changes: dict[str, Any], line: str) -> None:
    page.values |= changes
    with pytest.raises(gr.Error) as caught:
        page.press(button)
    assert line in caught.value.message and "\n" not in caught.value.message
    assert page.studio.turns.counts() == {"running": 0, "waiting": 0}


def test_every_control_has_a_label_and_an_id(page: Page) -> None:
    for block in page.blocks.blocks.values():
        if isinstance(block, gr.components.FormComponent):
            assert block.elem_id and block.label, block
