"""Compare: the same images drawn in two or three ways, side by side. Beside it, a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.webapp import films, words
from hastezoo.webapp.columns import LETTERS, read_comparison
from hastezoo.webapp.comparing import Comparison
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import controls, picking, sweep
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.webapp.tabs.running import Run, places, wire
from hastezoo.webapp.turns import Ticket
from hastezoo.zoo.card import Card

NAME = "compare"
MOST, FIRST = 16, 8  # images of each class or prompt
HINT = "Each column draws the same classes from the same noise. Press Compare."


@dataclass
class Compare:
    """The controls: what is drawn, each column's checkpoint and sampler, and whether there is a third."""

    subject: controls.SubjectControls
    columns: list[picking.Picked]
    third: gr.Checkbox
    last: gr.Column

    @property
    def fields(self) -> dict[str, Component]:
        """By their names in a link, in the order of `sorted_out`."""
        columns = {
            f"{letter.lower()}_{name}": field
            for letter, column in zip(LETTERS, self.columns, strict=True)
            for name, field in column.fields.items()
        }
        return {**self.subject.fields, **columns, "third": self.third}

    @property
    def shown(self) -> list[Any]:
        """In the order of `show`."""
        columns = [one for column in self.columns for one in (column.line, *column.fields.values())]
        return [*self.subject.fields.values(), self.subject.text, *columns, self.third, self.last]

    def show(self, studio: Studio, values: Mapping[str, Any]) -> list[Any]:
        """The tab with some fields as given, the others as the checkpoints' cards have them.

        Raises:
            gr.Error: If there is no such checkpoint or protocol here.
        """
        columns, cards = [], []
        for letter, default in zip(LETTERS, first_cards(studio), strict=True):
            own = {key[2:]: value for key, value in values.items() if key.startswith(f"{letter.lower()}_")}
            card, fields = picking.restored(studio, own, default)
            cards.append(card)
            columns += [words.card_line(card), *fields.values()]
        third = bool(values.get("third", True))
        subject = picking.restored_subject(values, self.subject, cards[0])
        return [*subject, *columns, third, gr.update(visible=third)]


@dataclass
class Results:
    """Where a comparison is shown."""

    ticket: gr.State
    progress: gr.HTML
    preview: gr.HTML
    films: gr.HTML
    archive: gr.DownloadButton
    again: gr.Accordion
    commands: list[gr.Textbox]

    @property
    def all(self) -> list[Any]:
        """The ticket, and the rest in the order of `starting` and `finished`."""
        return [self.ticket, self.progress, self.preview, self.films, self.archive, self.again, *self.commands]


@dataclass
class Views:
    """The two parts of the tab."""

    tabs: gr.Tabs
    first: gr.Tab
    second: gr.Tab
    compared: Compare
    swept: sweep.Swept

    @property
    def samplers(self) -> list[controls.SamplerControls]:
        """Those whose plots are to be drawn when the page is there."""
        return [*(column.sampler for column in self.compared.columns), self.swept.picked.sampler]


def build(studio: Studio) -> Views:
    """Build the tab."""
    with gr.Tabs(elem_id=f"{NAME}-views") as tabs:
        with gr.Tab("Side by side", id=NAME) as first:
            compared = _side_by_side(studio)
        with gr.Tab("Sweep", id=sweep.NAME) as second:
            swept = sweep.build(studio)
    return Views(tabs, first, second, compared, swept)


def _side_by_side(studio: Studio) -> Compare:
    most = min(MOST, studio.settings.max_images)
    with gr.Row():
        subject = controls.subject(studio, NAME, number=min(FIRST, most), most=most)
    columns: list[picking.Picked] = []
    with gr.Row():
        for letter, card in zip(LETTERS, first_cards(studio), strict=True):
            with gr.Column(min_width=280) as place:
                name, like = f"{NAME}-{letter.lower()}", columns[0] if columns else None
                columns.append(picking.build(studio, name, card, letter=letter, like=like))
    with gr.Row(elem_classes="hz-go-row"):
        third = gr.Checkbox(True, label="Column C too", elem_id=f"{NAME}-third", container=False)
        go = gr.Button("Compare", variant="primary", elem_id=f"{NAME}-go", scale=4, min_width=150)
        cancel = gr.Button("Cancel", variant="stop", elem_id=f"{NAME}-cancel", interactive=False, min_width=80)
    picking.decide(studio, columns[0], subject)
    third.input(lambda there: gr.update(visible=bool(there)), third, place, **QUIET)
    tab = Compare(subject, columns, third, place)
    _wire(studio, tab, _results(), go, cancel)
    return tab


def first_cards(studio: Studio) -> list[Card]:
    """What the columns begin with: checkpoints of the default's family, the last again where there are too few."""
    default = controls.default_card(studio)
    alike = [card for card in studio.cards if words.family(card) == words.family(default)]
    return [alike[min(index, len(alike) - 1)] for index in range(len(LETTERS))]


def _results() -> Results:
    ticket, progress, preview = places(NAME, HINT)
    shown = gr.HTML("", elem_id=f"{NAME}-result", visible=False)
    archive = gr.DownloadButton("Download all (zip)", visible=False, elem_id=f"{NAME}-zip", size="sm")
    with gr.Accordion(
        "The same images again", open=True, visible=False, elem_classes="hz-again", elem_id=f"{NAME}-again"
    ) as again:
        commands = [
            gr.Textbox(
                label=f"{letter} as a command", elem_id=f"{NAME}-command-{letter.lower()}", buttons=["copy"],
                interactive=False, lines=1, max_lines=6,
            )
            for letter in LETTERS
        ]  # fmt: skip
    return Results(ticket, progress, preview, shown, archive, again, commands)


def _wire(studio: Studio, tab: Compare, results: Results, go: gr.Button, cancel: gr.Button) -> None:
    def queue(values: Sequence[Any]) -> Ticket:
        return studio.compare(read_comparison(*sorted_out(values, tab)))

    run = Run(list(tab.fields.values()), results.all, queue, starting, lambda result: finished(result, studio))
    wire(studio, run, go, cancel)


def sorted_out(values: Sequence[Any], tab: Compare) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what to draw, each column's sampler) of the values of all controls."""
    rest = iter(values)
    drawn = {name: next(rest) for name in tab.subject.fields}
    samplers = [{name: next(rest) for name in column.fields} for column in tab.columns]
    return drawn, samplers if next(rest) else samplers[:-1]


def starting() -> list[Any]:
    """What is shown when a request has been taken: nothing of the one before."""
    return [
        words.outcome("starting", "running"),
        gr.update(value="", visible=False),
        gr.update(visible=False),
        gr.update(visible=False),
        *[""] * len(LETTERS),
    ]


def finished(result: Comparison, studio: Studio) -> list[Any]:
    """What is shown when it is done."""
    commands = [column.drawn.command for column in result.columns]
    commands += [""] * (len(LETTERS) - len(commands))
    seconds = sum(column.drawn.seconds for column in result.columns)
    return [
        words.outcome(f"{words.count(len(result.columns), 'column')} in {words.duration(seconds)}"),
        gr.update(value=films.comparison(result, studio.settings.root_path), visible=True),
        gr.update(value=str(result.archive), visible=True),
        gr.update(visible=True),
        *[gr.update(value=command, visible=bool(command)) for command in commands],
    ]
