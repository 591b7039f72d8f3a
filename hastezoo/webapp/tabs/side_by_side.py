"""Two results of evaluations side by side: what they differ by, in what, and what forbids to compare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from hastezoo.errors import UserError
from hastezoo.webapp import result_words, words
from hastezoo.webapp.results import Found, compared, curves
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs.controls import QUIET

NAME = "results"
HINT = "Choose two results of evaluations done here: the second is held against the first."


@dataclass
class SideBySide:
    """Its controls."""

    first: gr.Dropdown
    second: gr.Dropdown
    shown: gr.HTML

    @property
    def pickers(self) -> list[gr.Dropdown]:
        """In the order of `choices`."""
        return [self.first, self.second]


def build(studio: Studio) -> SideBySide:
    """Build them."""
    gr.HTML("<h2 class='hz-heading'>Two results side by side</h2>")
    with gr.Row(elem_classes="hz-seed-row"):
        first = gr.Dropdown([], value=None, label="A", elem_id=f"{NAME}-a", scale=4, min_width=300)
        second = gr.Dropdown([], value=None, label="B", elem_id=f"{NAME}-b", scale=4, min_width=300)
        refresh = gr.Button("Refresh", elem_id=f"{NAME}-refresh", size="sm", scale=0, min_width=90)
    shown = gr.HTML(words.outcome(HINT, "hint"), elem_id=f"{NAME}-compared")
    pair = SideBySide(first, second, shown)
    pick = {"inputs": pair.pickers, "outputs": shown, **QUIET}
    gr.on([first.input, second.input], lambda a, b: show(studio, a, b), trigger_mode="always_last", **pick)
    refresh.click(lambda: choices(studio), None, pair.pickers, **QUIET)
    gr.on(fn=lambda: choices(studio), outputs=pair.pickers, **QUIET)  # when the page is opened
    return pair


def choices(studio: Studio) -> list[Any]:
    """The dropdowns with the results that are there, newest first; what is chosen stays chosen."""
    found = [(one.label, one.id) for one in studio.results()]
    return [gr.update(choices=found)] * 2


def show(studio: Studio, a: Any, b: Any) -> str:
    """Two results side by side as HTML; or, in a line, why not."""
    if not a or not b:
        return words.outcome(HINT, "hint")
    try:
        results = [studio.result(one) for one in (a, b)]
    except UserError as error:
        return words.outcome(str(error), "failed")
    return result_words.compared(compared(*results), _plot(results))


def _plot(results: list[Found]) -> bytes | None:
    """Both curves; nothing where there are none, or they do not go in one picture."""
    try:
        return curves(results)
    except UserError:
        return None
