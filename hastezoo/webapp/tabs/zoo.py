"""Zoo: every checkpoint in a table that is filtered as one types, and the card of the chosen one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.errors import UserError
from hastezoo.webapp import card_words, forms
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import controls
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.zoo.card import Card

NAME = "zoo"
LONGEST = 200  # characters of a filter
# The table is not drawn anew when a row is chosen: the keyboard's focus would be lost.
ROWS_JS = """
const mark = (row) => element.querySelectorAll("tr[data-name]").forEach((one) => {
  one.classList.toggle("hz-chosen", one === row);
  one.querySelector("button").setAttribute("aria-pressed", String(one === row));
});
element.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-name]");
  if (!row) return;
  mark(row);
  trigger("select", { name: row.dataset.name });
});
element.addEventListener("keydown", (event) => {
  const row = event.target.closest("tr[data-name]");
  const to = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  if (!row || !to || !row[to]) return;
  event.preventDefault();
  row[to].querySelector("button").focus();
});
"""
INTO_VIEW_JS = "() => document.getElementById('zoo-card').scrollIntoView({ behavior: 'smooth', block: 'nearest' })"


@dataclass
class Zoo:
    """The tab's controls. The two buttons do nothing here: who builds the page knows the other tabs."""

    words: gr.Textbox
    model: gr.Textbox
    table: gr.HTML
    card: gr.HTML
    generate: gr.Button
    evaluate: gr.Button

    @property
    def fields(self) -> dict[str, Component]:
        """By their names in a link."""
        return {"words": self.words, "model": self.model}

    @property
    def shown(self) -> list[Component]:
        """In the order of `show`."""
        return [self.words, self.model, self.table, *self.chosen]

    @property
    def chosen(self) -> list[Component]:
        """In the order of `choose`."""
        return [self.card, self.generate, self.evaluate]


def build(studio: Studio) -> Zoo:
    """Build the tab."""
    card = controls.default_card(studio)
    words = gr.Textbox(
        label="Filter", elem_id=f"{NAME}-words", max_length=LONGEST, placeholder="haste 256 px",
        info="Name, method, family, data, licence: a checkpoint is shown if it has all the words.",
    )  # fmt: skip
    model = gr.Textbox(card.name, visible="hidden", elem_id=f"{NAME}-model", label="Chosen checkpoint")
    table = gr.HTML(card_words.listing(studio.cards, card.name), js_on_load=ROWS_JS, elem_id=f"{NAME}-table")
    with gr.Row(elem_classes="hz-go-row"):
        generate = gr.Button(f"Generate with {card.name}", variant="primary", elem_id=f"{NAME}-generate")
        evaluate = gr.Button(f"Evaluate {card.name}", elem_id=f"{NAME}-evaluate", interactive=card.text is None)
    shown = gr.HTML(card_words.described(card), elem_id=f"{NAME}-card")
    tab = Zoo(words, model, table, shown, generate, evaluate)

    def chosen(event: gr.EventData) -> list[Any]:
        data = event._data
        picked = _offered(studio, data.get("name") if isinstance(data, dict) else data)
        return [picked.name, *choose(picked)]

    last: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
    words.change(lambda text, name: listed(studio, text, name), [words, model], table, **last)
    rows = table.select(chosen, None, [model, *tab.chosen], **last)
    rows.then(None, js=INTO_VIEW_JS, api_visibility="private", show_progress="hidden")
    return tab


def _offered(studio: Studio, name: Any) -> Card:
    try:
        return forms.offered_card(str(name), studio.settings)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def listed(studio: Studio, text: Any, chosen: Any = "") -> str:
    """The table of the checkpoints that have all the words."""
    return card_words.listing(card_words.matching(studio.cards, str(text or "")[:LONGEST]), str(chosen))


def choose(card: Card) -> list[Any]:
    """The card in full, and what can be done with it."""
    return [
        card_words.described(card),
        f"Generate with {card.name}",
        gr.update(value=f"Evaluate {card.name}", interactive=card.text is None),
    ]


def show(studio: Studio, values: dict[str, Any]) -> list[Any]:
    """The tab with some fields as given.

    Args:
        studio: Knows the checkpoints.
        values: By name: words, model.

    Raises:
        gr.Error: If there is no such checkpoint here.
    """
    card = _offered(studio, values.get("model") or controls.default_card(studio).name)
    text = str(values.get("words") or "")[:LONGEST]
    return [text, card.name, listed(studio, text, card.name), *choose(card)]
