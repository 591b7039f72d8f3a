"""Evaluate: a checkpoint held against real images; what is expected, what was found, and how to find it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.errors import UserError
from hastezoo.evaluation.results.expected import default_protocol, stated
from hastezoo.webapp import evaluating, forms, result_words, words
from hastezoo.webapp.evaluating import Evaluated
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import controls, running, side_by_side
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.webapp.turns import Ticket
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import protocols

NAME = "evaluate"
ALT = "The first images, as they come"
HINT = (
    "Choose a checkpoint and press Evaluate. Keep the page open until it is done: when it is closed, the evaluation is "
    "cancelled. What is done by then stays, and the same evaluation goes on from there."
)


@dataclass
class Measuring:
    """What is measured, by the names of an EvaluateForm."""

    reference: gr.Dropdown
    number: gr.Number
    seed: gr.Textbox
    labels: gr.Radio
    allow_few: gr.Checkbox

    @property
    def fields(self) -> dict[str, Component]:
        """By name."""
        return dict(vars(self))


@dataclass
class Results:
    """Where an evaluation is shown."""

    ticket: gr.State
    progress: gr.HTML
    preview: gr.HTML
    result: gr.HTML
    again: gr.Accordion
    file: gr.DownloadButton
    command: gr.Textbox

    @property
    def all(self) -> list[Any]:
        """In the order of `starting` and `finished`."""
        return list(vars(self).values())


@dataclass
class Evaluate:
    """The tab's controls."""

    chosen: controls.Chooser
    stated: gr.HTML
    about: gr.HTML
    measuring: Measuring
    sampler: controls.SamplerControls

    @property
    def fields(self) -> dict[str, Component]:
        """By the names of an EvaluateForm, which are those of a link too."""
        return {"model": self.chosen.model, **self.measuring.fields, **self.sampler.fields}

    @property
    def shown(self) -> list[Component]:
        """In the order of `show`."""
        return [self.chosen.family, self.chosen.line, self.stated, self.about, *self.fields.values()]


def build(studio: Studio) -> Evaluate:
    """Build the tab."""
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            chosen = controls.chooser(studio, NAME)
            card = controls.default_card(studio)
            said = gr.HTML(result_words.stated_line(card), elem_id=f"{NAME}-stated")
            measuring, about = _measuring(card)
            with gr.Row(elem_classes="hz-go-row"):
                go = gr.Button("Evaluate", variant="primary", elem_id=f"{NAME}-go", scale=3)
                cancel = gr.Button("Cancel", variant="stop", elem_id=f"{NAME}-cancel", interactive=False, min_width=80)
            with gr.Accordion("Sampler", open=True):
                sampler = controls.sampler(studio, NAME)
        with gr.Column(scale=3, min_width=320):
            results = _results()
    tab = Evaluate(chosen, said, about, measuring, sampler)
    for field, value in zip(tab.fields.values(), fields_of(card).values(), strict=True):
        field.value = value
    pair = side_by_side.build(studio)
    _choosing(studio, tab)
    ended = running.wire(studio, _run(studio, tab.fields, results), go, cancel)
    ended.then(lambda: side_by_side.choices(studio), None, pair.pickers, **QUIET)
    return tab


def _run(studio: Studio, fields: dict[str, Component], results: Results) -> running.Run:
    def queue(values: Sequence[Any]) -> Ticket:
        return studio.evaluate(forms.read(forms.EvaluateForm, dict(zip(fields, values, strict=True))))

    return running.Run(
        list(fields.values()), results.all, queue, starting, finished, stopped=result_words.stopped, alt=ALT
    )


def _measuring(card: Card) -> tuple[Measuring, gr.HTML]:
    value = str(fields_of(card)["reference"])
    reference = gr.Dropdown(
        _references(), value=value, label="Reference", elem_id=f"{NAME}-reference",
        info="The real images that the drawn ones are held against.",
    )  # fmt: skip
    about = gr.HTML(result_words.reference_line(value), elem_id=f"{NAME}-reference-line")
    with gr.Row(elem_classes="hz-seed-row"):
        number = gr.Number(label="Images", precision=0, minimum=1, elem_id=f"{NAME}-number", min_width=110)
        seed = gr.Textbox("0", label="First seed", elem_id=f"{NAME}-seed", max_length=20, min_width=110)
    labels = gr.Radio(
        [("random", "random"), ("balanced", "balanced")], label="Labels", elem_id=f"{NAME}-labels",
        info="Balanced: every class as often as any other.",
    )  # fmt: skip
    few = gr.Checkbox(label="Allow few images: fewer than the features have dimensions", elem_id=f"{NAME}-allow-few")
    return Measuring(reference, number, seed, labels, few), about


def _references() -> list[tuple[str, str]]:
    return [(one if evaluating.is_here(one) else f"{one} (not here)", one) for one in evaluating.references()]


def _results() -> Results:
    ticket, progress, preview = running.places(NAME, HINT)
    result = gr.HTML(elem_id=f"{NAME}-result", visible=False)
    with gr.Accordion(
        "The same numbers again", open=True, visible=False, elem_classes="hz-again", elem_id=f"{NAME}-again"
    ) as again:
        command = gr.Textbox(
            label="As a command", elem_id=f"{NAME}-command", buttons=["copy"], interactive=False, lines=1, max_lines=6
        )
        file = gr.DownloadButton("Download result.json", visible=False, elem_id=f"{NAME}-file", size="sm")
    return Results(ticket, progress, preview, result, again, file, command)


def fields_of(card: Card) -> dict[str, Any]:
    """The fields as the figure that the card states was taken, so that the two can be compared."""
    figure = stated(card)
    protocol = default_protocol(card)
    found = {**controls.sampler_values(protocol), "labels": protocols()[protocol].labels}
    if figure is not None:
        found |= {key: value for key, value in figure.overrides.items() if key in found}
        low, high = figure.overrides.get("interval", (found["low"], found["high"]))
        found |= {"low": low, "high": high, "labels": figure.labels or found["labels"]}
    count = figure.count if figure is not None else None
    labels = found.pop("labels")
    return {
        "model": card.name,
        "reference": _reference_of(card),
        "number": count or evaluating.protocol_count(protocol),
        "seed": "0",
        "labels": labels,
        "allow_few": False,
        "protocol": protocol,
        **found,
    }


def _reference_of(card: Card) -> str:
    figure = stated(card)
    known = evaluating.references()
    if figure is not None and figure.reference in known:
        return figure.reference
    near = {"digits": "digits", "imagenet": f"imagenet{card.resolution}"}.get(card.classes or "", "coco256-val")
    return near if near in known else known[0]


def show(studio: Studio, values: dict[str, Any]) -> list[Any]:
    """The tab with some fields as given, and the others as the checkpoint's stated figure was taken.

    Args:
        studio: Knows the checkpoints.
        values: By name; the model among them, or the first one there is.

    Raises:
        gr.Error: If there is no such checkpoint, protocol or reference here.
    """
    try:
        card = forms.offered_card(str(values.get("model") or controls.default_card(studio).name), studio.settings)
        fields = fields_of(card)
        if values.get("protocol") not in (None, "", fields["protocol"]):
            fields |= _by_protocol(str(values["protocol"]))
        fields |= {key: value for key, value in values.items() if key in fields}
        form = forms.read(forms.EvaluateForm, fields)
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None
    if form.reference not in evaluating.references():
        raise gr.Error(f"no reference is called {form.reference!r}", print_exception=False)
    group = [one.name for one in studio.cards if words.family(one) == words.family(card)]
    known = {**form.model_dump(), "seed": str(form.seed)}
    return [
        words.family(card),
        words.card_line(card),
        result_words.stated_line(card),
        result_words.reference_line(str(form.reference)),
        gr.update(choices=group, value=card.name),
        *(known[key] for key in fields if key != "model"),
    ]


def _by_protocol(name: str) -> dict[str, Any]:
    """The fields that a named protocol says."""
    found = {"protocol": name, **controls.sampler_values(name)}
    return {**found, "number": evaluating.protocol_count(name), "labels": protocols()[name].labels}


def _choosing(studio: Studio, tab: Evaluate) -> None:
    """What choosing one control does to the others."""
    model, family, measuring = tab.chosen.model, tab.chosen.family, tab.measuring
    model.input(lambda name: show(studio, {"model": name}), model, tab.shown, **QUIET)

    def first_of(group: Any) -> list[Any]:
        card = next((one for one in studio.cards if words.family(one) == group), studio.cards[0])
        return show(studio, {"model": card.name})

    family.input(first_of, family, tab.shown, **QUIET)
    measuring.reference.input(
        lambda name: result_words.reference_line(name) if name in evaluating.references() else gr.skip(),
        measuring.reference, tab.about, **QUIET,
    )  # fmt: skip
    tab.sampler.protocol.input(_of_protocol, tab.sampler.protocol, [measuring.number, measuring.labels], **QUIET)


def _of_protocol(name: Any) -> list[Any]:
    """The number of images and the labels of a named protocol."""
    if not isinstance(name, str) or name not in protocols():
        return [gr.skip()] * 2
    return [_by_protocol(name)[key] for key in ("number", "labels")]


def starting() -> list[Any]:
    """What is shown when an evaluation has been taken: nothing of the one before."""
    return [
        words.outcome("starting", "running"),
        gr.update(value="", visible=False),
        *[gr.update(visible=False)] * 2,
        "",
    ]


def finished(found: Evaluated) -> list[Any]:
    """What is shown when it is done."""
    return [
        words.outcome(f"measured in {words.duration(found.seconds)}"),
        gr.update(value=result_words.evaluated(found), visible=True),
        gr.update(visible=True),
        gr.update(value=str(found.files[0]), visible=True),
        found.command,
    ]
