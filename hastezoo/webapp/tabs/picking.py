"""A checkpoint among those of all families, with the sampler that draws it: of a column, or of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.errors import UserError
from hastezoo.webapp import forms, words
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import controls
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.zoo.card import Card


@dataclass
class Picked:
    """The controls of a checkpoint and its sampler."""

    model: gr.Dropdown
    line: gr.HTML
    sampler: controls.SamplerControls

    @property
    def fields(self) -> dict[str, Component]:
        """By the names of a Sampler form."""
        return {"model": self.model, **self.sampler.fields}


def build(
    studio: Studio, name: str, card: Card, *, letter: str = "", like: Picked | None = None, open: bool = False
) -> Picked:
    """Build them.

    Args:
        studio: Knows the checkpoints.
        name: In front of the elements' ids.
        card: Of the checkpoint that is chosen at first.
        letter: Of the column.
        like: Other controls, whose sampler can be taken over.
        open: Whether the sampler is shown at once.
    """
    choices = [(f"{one.name} ({words.family(one)})", one.name) for one in studio.cards]
    called = f"{letter}: checkpoint" if letter else "Checkpoint"
    model = gr.Dropdown(choices, value=card.name, label=called, elem_id=f"{name}-model", filterable=True)
    line = gr.HTML(words.card_line(card), elem_id=f"{name}-card-line")
    with gr.Accordion(f"{letter}: sampler" if letter else "Sampler", open=open, elem_id=f"{name}-settings"):
        copy = gr.Button("Copy A's settings", size="sm", elem_id=f"{name}-copy") if like is not None else None
        sampler = controls.sampler(studio, name)
    for field, value in zip(sampler.fields.values(), sampler_of(card), strict=True):
        field.value = value
    if copy is not None and like is not None:
        copy.click(
            None, list(like.sampler.fields.values()), list(sampler.fields.values()), js="(...values) => values",
            api_visibility="private", show_progress="hidden",
        )  # fmt: skip
    model.input(lambda chosen: show(studio, chosen), model, [line, *sampler.fields.values()], **QUIET)
    return Picked(model, line, sampler)


def sampler_of(card: Card) -> list[Any]:
    """The protocol of a card and its settings, in the order of a sampler's fields."""
    return [card.protocol, *controls.sampler_values(card.protocol).values()]


def show(studio: Studio, name: Any) -> list[Any]:
    """The line of a checkpoint, and its sampler as its card has it.

    Raises:
        gr.Error: If there is no such checkpoint here.
    """
    card = card_of(studio, name)
    return [words.card_line(card), *sampler_of(card)]


def restored(studio: Studio, values: Mapping[str, Any], default: Card) -> tuple[Card, dict[str, Any]]:
    """(card, values of the fields): some as given, the others as the checkpoint's card, or a named protocol, has them.

    Raises:
        gr.Error: If there is no such checkpoint or protocol here.
    """
    card = card_of(studio, values.get("model") or default.name)
    protocol = str(values.get("protocol") or card.protocol)
    try:
        fields = {"model": card.name, "protocol": protocol, **controls.sampler_values(protocol)}
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
    return card, fields | {key: values[key] for key in fields if key in values}


def restored_subject(values: Mapping[str, Any], subject: controls.SubjectControls, card: Card) -> list[Any]:
    """The values of a subject's fields, those not given as they are; and whether prompts are to be seen."""
    kept = [values.get(name, gr.skip()) for name in subject.fields if name != "classes"]
    choices = controls.class_choices(card)
    classes = gr.update(choices=choices, value=values.get("classes", []), visible=card.classes is not None)
    return [classes, *kept, gr.update(visible=card.text is not None)]


def card_of(studio: Studio, name: Any) -> Card:
    """The card of what was chosen.

    Raises:
        gr.Error: If there is no such checkpoint here.
    """
    try:
        return forms.offered_card(str(name), studio.settings)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def decide(studio: Studio, picked: Picked, subject: controls.SubjectControls) -> None:
    """Let a checkpoint decide what can be drawn: which classes there are, or that it is text."""

    def shown(name: Any) -> list[Any]:
        card = card_of(studio, name)
        classes = gr.update(choices=controls.class_choices(card), value=[], visible=card.classes is not None)
        return [classes, gr.update(visible=card.text is not None)]

    picked.model.input(shown, picked.model, [subject.classes, subject.text], **QUIET)
