"""What programs call: stable names over the same studio as the page. docs/app.md describes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr

from hastezoo.conditioning.labels import class_names
from hastezoo.errors import UserError
from hastezoo.webapp import forms
from hastezoo.webapp.drawing import Drawn
from hastezoo.webapp.evaluating import Evaluated
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs.events import polite
from hastezoo.webapp.turns import Ticket
from hastezoo.webapp.watching import watch
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT

Answer = dict[str, Any]
OPEN: dict[str, Any] = {"concurrency_limit": None}


def build(studio: Studio) -> None:
    """Add the endpoints to the page that is being built."""
    _drawing(studio)
    _measuring(studio)
    _looking(studio)


def _drawing(studio: Studio) -> None:
    @polite
    async def generate(
        model: str = DEFAULT_CHECKPOINT,
        classes: list[str | int] = [],  # noqa: B006  # Gradio reads defaults off the signature, and nothing changes it
        prompts: list[str] = [],  # noqa: B006
        negative: str = "",
        number: int = 1,
        seed: str = "0",
        protocol: str = "",
        solver: str = "",
        steps: int | None = None,
        cfg: float | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Draw images of classes or prompts, as `hastezoo sample` does. Each class or prompt is drawn `number` times,
        with the seeds from `seed` on. What is left out comes from the checkpoint's card. While it waits and works it
        says where it is; the last answer has the images.

        Args:
            model: Name of a checkpoint, as /checkpoints lists.
            classes: Numbers or names, of a model of classes; none to draw them from the seeds.
            prompts: Of a model of text.
            negative: What guidance leads away from, of a model of text.
            number: Images of each class or prompt.
            seed: The first seed, a whole number in 0..2**63-1, as a text so that it stays exact.
            protocol: A named protocol.
            solver: euler, heun, dopri5, euler-maruyama, stochastic-heun.
            steps: Integration steps.
            cfg: Scale of classifier-free guidance; 1 is none.
            low: Guide from this t on; 0 is data.
            high: Guide up to this t.
        """
        ticket = studio.draw(forms.read(forms.DrawForm, locals_of(locals())))
        async with aclosing(follow(studio, ticket)) as answers:
            async for answer in answers:
                yield answer

    gr.api(generate, api_name="generate", **OPEN)


def _measuring(studio: Studio) -> None:
    @polite
    async def evaluate(
        model: str = DEFAULT_CHECKPOINT,
        reference: str = "",
        number: int | None = None,
        seed: str = "0",
        labels: str = "",
        allow_few: bool = False,
        protocol: str = "",
        solver: str = "",
        steps: int | None = None,
        cfg: float | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> AsyncGenerator[Answer, None]:
        """Measure a checkpoint against real images, as `hastezoo eval-fid` does. What is left out is as in the figure
        that the checkpoint's card states. A cancelled evaluation that is asked for again goes on.

        Args:
            model: Name of a checkpoint of classes.
            reference: digits, imagenet256, imagenet512.
            number: Images.
            seed: Of the first image, a whole number as a text.
            labels: random or balanced.
            allow_few: Measure also with fewer images than the features have dimensions.
            protocol: A named protocol.
            solver: As for /generate.
            steps: Integration steps.
            cfg: Scale of classifier-free guidance; 1 is none.
            low: Guide from this t on; 0 is data.
            high: Guide up to this t.
        """
        ticket = studio.evaluate(forms.read(forms.EvaluateForm, locals_of(locals())))
        async with aclosing(follow(studio, ticket)) as answers:
            async for answer in answers:
                yield answer

    gr.api(evaluate, api_name="evaluate", **OPEN)


def _looking(studio: Studio) -> None:
    def cancel(ticket: str) -> bool:
        """Leave the queue, or stop the work at its next step; whether there was something to cancel.

        Args:
            ticket: As the answers of /generate and /evaluate name it.
        """
        return isinstance(ticket, str) and studio.turns.cancel(ticket)

    gr.api(cancel, api_name="cancel", **OPEN)

    def checkpoints() -> list[Answer]:
        """The checkpoints offered here: their cards."""
        return [described(card) for card in studio.cards]

    def classes(model: str) -> list[str]:
        """The names of a checkpoint's classes, in the order of their numbers; none of a model of text.

        Args:
            model: Name of a checkpoint.
        """
        try:
            card = forms.offered_card(str(model), studio.settings)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return list(class_names(card.classes)) if card.classes is not None else []

    def status() -> Answer:
        """How many requests run and wait, and what a request may ask for."""
        limits = studio.settings.model_dump(include={"waiting", "max_images", "max_work", "max_evaluation"})
        return {**studio.health(), "limits": limits}

    for function in (checkpoints, classes, status):
        gr.api(function, api_name=function.__name__, **OPEN)


def described(card: Card) -> Answer:
    """A card; its `path`, which Gradio's clients would take for that of a file, is called `interpolant`."""
    facts = card.model_dump(mode="json")
    return {**{key: value for key, value in facts.items() if key != "path"}, "interpolant": card.path}


def locals_of(values: dict[str, Any]) -> dict[str, Any]:
    """An endpoint's parameters, without what it closes over."""
    return {key: value for key, value in values.items() if key != "studio"}


async def follow(studio: Studio, ticket: Ticket) -> AsyncGenerator[Answer, None]:
    """Where a ticket is, until it is over.

    Raises:
        gr.Error: If it failed or was cancelled.
    """
    async with aclosing(watch(ticket, studio.turns)) as changes:
        async for _ in changes:
            if not ticket.over:
                yield {"ticket": ticket.id, "state": ticket.state, **_position(studio, ticket)}
    if ticket.state != "done":
        raise gr.Error(ticket.error or "cancelled", print_exception=False, title=ticket.state.capitalize())
    yield {"ticket": ticket.id, "state": "done", **answer_of(ticket.result)}


def _position(studio: Studio, ticket: Ticket) -> Answer:
    if ticket.state == "waiting":
        return {"position": studio.turns.position(ticket)}
    now = ticket.progress
    left = ticket.seconds_left
    return {
        "text": now.text,
        "fraction": round(now.fraction, 4),
        "step": now.step,
        "steps": now.steps,
        "evaluations": now.evaluations,
        "seconds_left": None if left is None else round(left, 1),
    }


def answer_of(result: Drawn | Evaluated) -> Answer:
    """What was drawn or measured, for a program."""
    if isinstance(result, Evaluated):
        found = result.result.model_dump(mode="json")
        files = {"command": result.command, "notes": result.notes, "files": [file_of(path) for path in result.files]}
        return {"metrics": found["metrics"], "settings": found["settings"], **files}
    request = result.request
    conditions = {"prompts": request.asked} if request.prompts else {"classes": request.labels}
    return {
        "images": [file_of(path) for path in result.files],
        **conditions,
        "seeds": [str(seed) for seed in request.seeds],
        "protocol": request.protocol.model_dump(mode="json"),
        "evaluations": result.evaluations,
        "passes": result.passes,
        "seconds": round(result.seconds, 3),
        "command": result.command,
        "python": result.script,
        "notes": result.notes,
        "archive": file_of(result.archive),
    }


def file_of(path: Path) -> Answer:
    """A file as Gradio's clients know it: they fetch it and give its place on their machine."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
