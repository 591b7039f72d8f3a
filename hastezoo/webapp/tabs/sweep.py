"""Sweep, a part of Compare: the same images with several values of one setting, as one picture."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
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
from hastezoo.webapp.tabs.events import polite
from hastezoo.webapp.watching import watch

NAME = "sweep"
AXES = {"cfg": ("CFG scale", "1, 1.5, 2, 3"), "steps": ("Steps", "2, 5, 10, 25, 50")}  # their labels, and examples
HINT = "A column for each value, a row for each image. Press Sweep."


@dataclass
class Results:
    """Where a sweep is shown."""

    ticket: gr.State
    progress: gr.HTML
    picture: gr.HTML
    download: gr.DownloadButton
    archive: gr.DownloadButton
    commands: gr.Textbox

    @property
    def all(self) -> list[Component]:
        """The ticket, and the rest in the order of `starting` and `finished`."""
        return list(vars(self).values())


def build(studio: Studio) -> controls.SamplerControls:
    """Build it; its sampler, whose plot is to be drawn when the page is there."""
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
    _wire(studio, {**picked.fields, **subject.fields, "axis": axis, "values": values}, results, go, cancel)
    return picked.sampler


def _axis() -> tuple[gr.Radio, gr.Textbox]:
    axis = gr.Radio([(label, key) for key, (label, _) in AXES.items()], value="cfg", label="Vary", elem_id="sweep-axis")
    values = gr.Textbox(
        AXES["cfg"][1], label="Values", elem_id="sweep-values", max_length=200,
        info=f"Up to {MOST_COLUMNS} numbers with commas between; they replace the sampler's own.",
    )  # fmt: skip
    axis.input(lambda chosen: AXES.get(str(chosen), ("", gr.skip()))[1], axis, values, **QUIET)
    return axis, values


def _results() -> Results:
    ticket = gr.State("")
    progress = gr.HTML(words.outcome(HINT, "hint"), elem_id=f"{NAME}-progress", min_height=48)
    picture = gr.HTML("", elem_id=f"{NAME}-result", visible=False)
    with gr.Row():
        download = gr.DownloadButton("Download the picture", visible=False, elem_id=f"{NAME}-download", size="sm")
        archive = gr.DownloadButton("Download all (zip)", visible=False, elem_id=f"{NAME}-zip", size="sm")
    with gr.Accordion("The same images again", open=True, elem_classes="hz-again"):
        commands = gr.Textbox(
            label="As commands, one a column", elem_id=f"{NAME}-commands", buttons=["copy"], interactive=False,
            lines=2, max_lines=20,
        )  # fmt: skip
    return Results(ticket, progress, picture, download, archive, commands)


def _wire(studio: Studio, fields: dict[str, Component], results: Results, go: gr.Button, cancel: gr.Button) -> None:
    names = list(fields)

    @polite
    async def run(*values: Any) -> AsyncGenerator[list[Any], None]:
        ticket = studio.sweep(forms.read(SweepForm, dict(zip(names, values, strict=True))))
        yield [ticket.id, *starting(), gr.update(interactive=False), gr.update(interactive=True)]
        async with aclosing(watch(ticket, studio.turns)) as changes:
            async for _ in changes:
                if not ticket.over:
                    yield [gr.skip(), words.progress(ticket, studio.turns.position(ticket)), *[gr.skip()] * 6]
        done = ticket.state == "done"
        last = finished(ticket.result, studio) if done else [words.stopped(ticket), *[gr.skip()] * 4]
        yield ["", *last, gr.update(interactive=True), gr.update(interactive=False)]

    go.click(run, list(fields.values()), [*results.all, go, cancel], **QUIET)
    cancel.click(studio.turns.cancel, results.ticket, None, **{**QUIET, "preprocess": True})


def starting() -> list[Any]:
    """What is shown when a request has been taken: nothing of the one before."""
    gone = [gr.update(visible=False)] * 2
    return [words.outcome("starting", "running"), gr.update(value="", visible=False), *gone, ""]


def finished(result: Sweep, studio: Studio) -> list[Any]:
    """What is shown when it is done."""
    return [
        words.outcome(films.sweep_line(result)),
        gr.update(value=films.sweep(result, studio.settings.root_path), visible=True),
        gr.update(value=str(result.picture), visible=True),
        gr.update(value=str(result.archive), visible=True),
        "\n".join(one.command for one in result.columns),
    ]
