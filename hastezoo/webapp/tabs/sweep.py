"""Sweep, a part of Compare: the same images with several values of one setting, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.webapp import films, forms, words
from hastezoo.webapp.columns import MOST_COLUMNS, MOST_ROWS, SweepForm
from hastezoo.webapp.comparing import Sweep
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import controls, picking
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.webapp.tabs.running import Run, places, wire
from hastezoo.webapp.turns import Ticket

NAME = "sweep"
AXES = {"cfg": ("CFG scale", "1, 1.5, 2, 3"), "steps": ("Steps", "2, 5, 10, 25, 50")}  # their labels, and examples
HINT = "A column for each value, a row for each image. Press Sweep."


@dataclass
class Results:
    """Where a sweep is shown."""

    ticket: gr.State
    progress: gr.HTML
    preview: gr.HTML
    picture: gr.HTML
    download: gr.DownloadButton
    archive: gr.DownloadButton
    again: gr.Accordion
    commands: gr.Textbox

    @property
    def all(self) -> list[Any]:
        """The ticket, and the rest in the order of `starting` and `finished`."""
        return list(vars(self).values())


@dataclass
class Swept:
    """The controls: what is drawn, by which checkpoint and sampler, and what is varied."""

    subject: controls.SubjectControls
    picked: picking.Picked
    axis: gr.Radio
    values: gr.Textbox

    @property
    def fields(self) -> dict[str, Component]:
        """By the names of a SweepForm, which are those of a link too."""
        return {**self.picked.fields, **self.subject.fields, "axis": self.axis, "values": self.values}

    @property
    def shown(self) -> list[Any]:
        """In the order of `show`."""
        subject = [*self.subject.fields.values(), self.subject.text]
        return [self.picked.line, *self.picked.fields.values(), *subject, self.axis, self.values]

    def show(self, studio: Studio, values: Mapping[str, Any]) -> list[Any]:
        """The view with some fields as given, the others as the checkpoint's card has them.

        Raises:
            gr.Error: If there is no such checkpoint or protocol here.
        """
        card, fields = picking.restored(studio, values, controls.default_card(studio))
        subject = picking.restored_subject(values, self.subject, card)
        rest = [values.get("axis", gr.skip()), values.get("values", gr.skip())]
        return [words.card_line(card), *fields.values(), *subject, *rest]


def build(studio: Studio) -> Swept:
    """Build it."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            most = min(MOST_ROWS, studio.settings.max_images)
            subject = controls.subject(studio, NAME, number=min(4, most), most=most)
            axis, values = _axis()
            with gr.Row():
                go = gr.Button("Sweep", variant="primary", elem_id=f"{NAME}-go", scale=3)
                cancel = gr.Button("Cancel", variant="stop", elem_id=f"{NAME}-cancel", interactive=False, min_width=80)
            picked = picking.build(studio, NAME, controls.default_card(studio), open=True)
        with gr.Column(scale=3, min_width=320):
            results = _results()
    picking.decide(studio, picked, subject)
    swept = Swept(subject, picked, axis, values)
    _wire(studio, swept.fields, results, go, cancel)
    return swept


def _axis() -> tuple[gr.Radio, gr.Textbox]:
    axis = gr.Radio([(label, key) for key, (label, _) in AXES.items()], value="cfg", label="Vary", elem_id="sweep-axis")
    values = gr.Textbox(
        AXES["cfg"][1], label="Values", elem_id="sweep-values", max_length=200,
        info=f"Up to {MOST_COLUMNS} numbers with commas between; they replace the sampler's own.",
    )  # fmt: skip
    axis.input(lambda chosen: AXES.get(str(chosen), ("", gr.skip()))[1], axis, values, **QUIET)
    return axis, values


def _results() -> Results:
    ticket, progress, preview = places(NAME, HINT)
    picture = gr.HTML("", elem_id=f"{NAME}-result", visible=False)
    with gr.Row():
        download = gr.DownloadButton("Download the picture", visible=False, elem_id=f"{NAME}-download", size="sm")
        archive = gr.DownloadButton("Download all (zip)", visible=False, elem_id=f"{NAME}-zip", size="sm")
    with gr.Accordion(
        "The same images again", open=True, visible=False, elem_classes="hz-again", elem_id=f"{NAME}-again"
    ) as again:
        commands = gr.Textbox(
            label="As commands, one a column", elem_id=f"{NAME}-commands", buttons=["copy"], interactive=False,
            lines=2, max_lines=20,
        )  # fmt: skip
    return Results(ticket, progress, preview, picture, download, archive, again, commands)


def _wire(studio: Studio, fields: dict[str, Component], results: Results, go: gr.Button, cancel: gr.Button) -> None:
    def queue(values: Sequence[Any]) -> Ticket:
        return studio.sweep(forms.read(SweepForm, dict(zip(fields, values, strict=True))))

    run = Run(list(fields.values()), results.all, queue, starting, lambda result: finished(result, studio))
    wire(studio, run, go, cancel)


def starting() -> list[Any]:
    """What is shown when a request has been taken: nothing of the one before."""
    gone = [gr.update(visible=False)] * 3
    return [words.outcome("starting", "running"), gr.update(value="", visible=False), *gone, ""]


def finished(result: Sweep, studio: Studio) -> list[Any]:
    """What is shown when it is done."""
    return [
        words.outcome(films.sweep_line(result)),
        gr.update(value=films.sweep(result, studio.settings.root_path), visible=True),
        gr.update(value=str(result.picture), visible=True),
        gr.update(value=str(result.archive), visible=True),
        gr.update(visible=True),
        "\n".join(one.command for one in result.columns),
    ]
