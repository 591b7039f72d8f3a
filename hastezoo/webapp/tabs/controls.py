"""Controls that several tabs share: what to draw, and which checkpoint draws it how."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from hastezoo.conditioning.labels import class_names
from hastezoo.sampling.protocol import STOCHASTIC
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.words import card_line, family
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, find_protocol, protocols

EXAMPLES = ("a red bus on a bridge", "a smiling cat with sunglasses", "two people holding hands")
SOLVERS = {
    "euler": "Euler, ODE",
    "heun": "Heun, ODE",
    "dopri5": "dopri5, ODE, own steps",
    "euler-maruyama": "Euler-Maruyama, SDE",
    "stochastic-heun": "Stochastic Heun, SDE",
}
# An event that only changes the page: not in the API's description, no spinner, nobody waits for another.
QUIET: dict[str, Any] = {
    "api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None, "preprocess": False,
}  # fmt: skip
INTERVAL_JS = "(low, high, cfg) => hastezoo.interval(low, high, cfg)"


def default_card(studio: Studio) -> Card:
    """The checkpoint that is chosen at first."""
    cards = studio.cards
    return next((card for card in cards if card.name == DEFAULT_CHECKPOINT), cards[0])


def families(cards: Sequence[Card]) -> list[str]:
    """Their groups, in order."""
    return list(dict.fromkeys(family(card) for card in cards))


def class_choices(card: Card) -> list[tuple[str, int]]:
    """(number and names, label) of each class."""
    if card.classes is None:
        return []
    names = class_names(card.classes)
    return [(f"{label} {', '.join(names.synonyms[label])}", label) for label in range(len(names))]


def sampler_values(protocol: str) -> dict[str, Any]:
    """What the controls of a sampler show for a named protocol."""
    found = find_protocol(protocol)
    low, high = found.interval
    return {"solver": found.solver, "steps": found.steps, "cfg": found.cfg, "low": low, "high": high}


@dataclass
class Chooser:
    """A checkpoint, by family and name, with a line of its card."""

    family: gr.Radio
    model: gr.Dropdown
    line: gr.HTML


def chooser(studio: Studio, name: str) -> Chooser:
    """Build one.

    Args:
        studio: Knows the checkpoints.
        name: In front of the elements' ids.
    """
    card, every = default_card(studio), studio.cards
    groups = families(every)
    pick = gr.Radio(groups, value=family(card), label="Family", elem_id=f"{name}-family", visible=len(groups) > 1)
    model = gr.Dropdown(
        [one.name for one in every if family(one) == family(card)],
        value=card.name,
        label="Checkpoint",
        elem_id=f"{name}-model",
        filterable=True,
    )
    line = gr.HTML(card_line(card), elem_id=f"{name}-card-line")

    return Chooser(pick, model, line)


@dataclass
class SamplerControls:
    """How it is drawn, by the names of a Sampler form."""

    protocol: gr.Dropdown
    solver: gr.Dropdown
    steps: gr.Slider
    cfg: gr.Slider
    low: gr.Slider
    high: gr.Slider
    plot: gr.HTML

    @property
    def fields(self) -> dict[str, Component]:
        """By name."""
        return {key: value for key, value in vars(self).items() if key != "plot"}

    @property
    def settings(self) -> list[Component]:
        """What a protocol sets."""
        return [self.solver, self.steps, self.cfg, self.low, self.high]


def sampler(studio: Studio, name: str) -> SamplerControls:
    """Build the controls of a sampler, with the plot of its interval."""
    card = default_card(studio)
    now = sampler_values(card.protocol)
    most = min(1000, studio.settings.max_work)
    with gr.Row():
        protocol = gr.Dropdown(
            list(protocols()),
            value=card.protocol,
            label="Protocol",
            elem_id=f"{name}-protocol",
            info="Named settings.",
            min_width=140,
        )
        solver = gr.Dropdown(
            [(SOLVERS.get(one, one), one) for one in STOCHASTIC],
            value=now["solver"],
            label="Solver",
            elem_id=f"{name}-solver",
            info="Of the ODE or the SDE.",
            min_width=140,
        )
    with gr.Row():
        steps = gr.Slider(1, most, value=now["steps"], step=1, label="Steps", elem_id=f"{name}-steps", min_width=140)
        cfg = gr.Slider(0, 10, value=now["cfg"], step=0.05, label="CFG scale", elem_id=f"{name}-cfg", min_width=140)
    with gr.Row():
        low = gr.Slider(0, 1, value=now["low"], step=0.01, label="From t", elem_id=f"{name}-low", min_width=140)
        high = gr.Slider(0, 1, value=now["high"], step=0.01, label="To t", elem_id=f"{name}-high", min_width=140)
    plot = gr.HTML(padding=True, elem_id=f"{name}-interval")
    controls = SamplerControls(protocol, solver, steps, cfg, low, high, plot)
    for slider in (low, high, cfg):
        draw_interval(slider.change, controls)
    protocol.input(choose_protocol, protocol, controls.settings, **QUIET)
    return controls


def draw_interval(event: Any, controls: SamplerControls) -> None:
    """Draw the plot of the interval anew at an event, in the browser."""
    inputs = [controls.low, controls.high, controls.cfg]
    event(None, inputs, controls.plot, js=INTERVAL_JS, api_visibility="private", show_progress="hidden")


def choose_protocol(protocol: Any) -> list[Any]:
    """The settings of a protocol, for the controls; of what is none, nothing changes."""
    if not isinstance(protocol, str) or protocol not in protocols():
        return [gr.skip()] * 5
    return list(sampler_values(protocol).values())


@dataclass
class SubjectControls:
    """What is drawn, by the names of a Subject form."""

    classes: gr.Dropdown
    prompts: gr.Textbox
    negative: gr.Textbox
    number: gr.Slider
    seed: gr.Textbox
    text: gr.Column

    @property
    def fields(self) -> dict[str, Component]:
        """By name."""
        return {key: value for key, value in vars(self).items() if key != "text"}


def subject(studio: Studio, name: str, *, number: int = 8, most: int | None = None) -> SubjectControls:
    """Build the controls of what is drawn."""
    card = default_card(studio)
    classes = gr.Dropdown(
        class_choices(card), value=[], multiselect=True, label="Classes", elem_id=f"{name}-classes",
        info="Type a name or a number. With none, each image's class is drawn from its seed.",
        visible=card.classes is not None,
    )  # fmt: skip
    with gr.Column(visible=card.text is not None) as text:
        prompts = gr.Textbox(
            label="Prompts", lines=3, elem_id=f"{name}-prompts", info="What to draw, one prompt a line.",
            placeholder=EXAMPLES[0], max_length=10_000,
        )  # fmt: skip
        with gr.Row():
            for example in EXAMPLES:
                button = gr.Button(example, size="sm", min_width=120)
                button.click(
                    None, None, prompts, js=f"() => {example!r}", api_visibility="private", show_progress="hidden"
                )
        negative = gr.Textbox(
            label="Negative prompt", elem_id=f"{name}-negative", info="What guidance leads away from.",
            max_length=10_000,
        )  # fmt: skip
    images = gr.Slider(
        1, most or studio.settings.max_images, value=number, step=1, elem_id=f"{name}-number",
        label="Images of each class or prompt",
    )  # fmt: skip
    with gr.Row(elem_classes="hz-seed-row"):
        seed = gr.Textbox("0", label="First seed", elem_id=f"{name}-seed", max_length=20, min_width=110)
        dice = gr.Button("Random", elem_id=f"{name}-random", size="sm", min_width=70, scale=0)
    dice.click(random_seed, None, seed, **QUIET)
    return SubjectControls(classes, prompts, negative, images, seed, text)


def random_seed() -> str:
    """A seed that is easily told and typed."""
    return str(secrets.randbelow(2**32))
