"""Generate: a checkpoint, what to draw, how; images, and what makes them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.errors import UserError
from hastezoo.webapp import forms, words
from hastezoo.webapp.drawing import Drawn
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import controls
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.webapp.tabs.running import Run, places, wire
from hastezoo.webapp.turns import Ticket

NAME = "generate"


@dataclass
class Results:
    """Where a run is shown."""

    ticket: gr.State
    progress: gr.HTML
    preview: gr.HTML
    gallery: gr.Gallery
    archive: gr.DownloadButton
    again: gr.Accordion
    command: gr.Textbox
    script: gr.Textbox

    @property
    def all(self) -> list[Any]:
        """The ticket, and the rest in the order of `starting` and `finished`."""
        return list(vars(self).values())


@dataclass
class Generate:
    """The tab's controls."""

    chosen: controls.Chooser
    subject: controls.SubjectControls
    sampler: controls.SamplerControls

    @property
    def fields(self) -> dict[str, Component]:
        """By the names of a DrawForm, which are those of a link too."""
        return {"model": self.chosen.model, **self.subject.fields, **self.sampler.fields}

    @property
    def shown(self) -> list[Any]:
        """In the order of `show`."""
        return [self.chosen.family, self.chosen.line, self.subject.text, *self.fields.values()]


def build(studio: Studio) -> Generate:
    """Build the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            chosen = controls.chooser(studio, NAME)
            subject = controls.subject(studio, NAME)
            with gr.Row():
                go = gr.Button("Generate", variant="primary", elem_id=f"{NAME}-go", scale=3)
                cancel = gr.Button("Cancel", variant="stop", elem_id=f"{NAME}-cancel", interactive=False, min_width=80)
            with gr.Accordion("Sampler", open=True):
                sampler = controls.sampler(studio, NAME)
        with gr.Column(scale=3, min_width=320):
            results = _results()
    tab = Generate(chosen, subject, sampler)
    chosen.model.input(lambda name: show(studio, {"model": name}), chosen.model, tab.shown, **QUIET)
    chosen.family.input(
        lambda group: show(studio, {"model": first_of(studio, group)}), chosen.family, tab.shown, **QUIET
    )
    _wire(studio, tab.fields, results, go, cancel)
    return tab


def first_of(studio: Studio, group: Any) -> str:
    """The first checkpoint of a family."""
    return next((card.name for card in studio.cards if words.family(card) == group), studio.cards[0].name)


def show(studio: Studio, values: dict[str, Any]) -> list[Any]:
    """The tab with some fields as given, and the others as the checkpoint's card has them.

    Args:
        studio: Knows the checkpoints.
        values: By name; the model among them, or the first one there is.

    Raises:
        gr.Error: If there is no such checkpoint or protocol here.
    """
    try:
        card = forms.offered_card(str(values.get("model") or controls.default_card(studio).name), studio.settings)
        protocol = str(values.get("protocol") or card.protocol)
        fields = {"protocol": protocol, **controls.sampler_values(protocol)}
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
    fields |= {key: value for key, value in values.items() if key in fields}
    kept = {key: values[key] if key in values else gr.skip() for key in ("prompts", "negative", "number", "seed")}
    group = [one.name for one in studio.cards if words.family(one) == words.family(card)]
    classes = gr.update(
        choices=controls.class_choices(card), value=values.get("classes", []), visible=card.classes is not None
    )
    return [
        words.family(card),
        words.card_line(card),
        gr.update(visible=card.text is not None),
        gr.update(choices=group, value=card.name),
        classes,
        *kept.values(),
        *fields.values(),
    ]


def _results() -> Results:
    ticket, progress, preview = places(NAME, "Choose a class and press Generate.")
    gallery = gr.Gallery(
        label="Images", show_label=False, elem_id=f"{NAME}-gallery", elem_classes="hz-gallery", columns=4, format="png",
        object_fit="contain", height="auto", interactive=False, visible=False, buttons=["download", "fullscreen"],
    )  # fmt: skip
    archive = gr.DownloadButton("Download all (zip)", visible=False, elem_id=f"{NAME}-zip", size="sm")
    with gr.Accordion(
        "The same images again", open=True, visible=False, elem_classes="hz-again", elem_id=f"{NAME}-again"
    ) as again:
        command = gr.Textbox(
            label="As a command", elem_id=f"{NAME}-command", buttons=["copy"], interactive=False, lines=1, max_lines=6
        )
        script = gr.Textbox(
            label="As Python", elem_id=f"{NAME}-python", buttons=["copy"], interactive=False, lines=2, max_lines=20
        )
    return Results(ticket, progress, preview, gallery, archive, again, command, script)


def _wire(studio: Studio, fields: dict[str, Component], results: Results, go: gr.Button, cancel: gr.Button) -> None:
    def queue(values: Sequence[Any]) -> Ticket:
        return studio.draw(forms.read(forms.DrawForm, dict(zip(fields, values, strict=True))))

    wire(studio, Run(list(fields.values()), results.all, queue, starting, finished), go, cancel)


def starting() -> list[Any]:
    """What is shown when a request has been taken: nothing of the one before."""
    return [
        words.outcome("starting", "running"),
        gr.update(value=None, visible=False),
        gr.update(visible=False),
        gr.update(visible=False),
        "",
        "",
    ]


def finished(result: Drawn) -> list[Any]:
    """What is shown when it is done."""
    images = [(str(path), caption) for path, caption in zip(result.files, result.captions, strict=True)]
    return [
        words.drawn(result),
        gr.update(value=images, visible=True),
        gr.update(value=str(result.archive), visible=True),
        gr.update(visible=True),
        result.command,
        result.script,
    ]
