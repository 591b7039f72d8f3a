"""The work of Evaluate: `hastezoo eval-fid` with a ticket, and features that stay for the next time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hastezoo.errors import UserError
from hastezoo.evaluation.asking import EvaluationAsk, count_of, protocol_of, settled
from hastezoo.evaluation.images import DIGITS
from hastezoo.evaluation.references.named import named_references
from hastezoo.evaluation.results.expected import default_protocol, stated
from hastezoo.webapp.forms import ADAPTIVE_STEPS, EvaluateForm, offered_card
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.shelf import Shelf
from hastezoo.webapp.turns import Ticket
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import find_card, protocols

if TYPE_CHECKING:
    from hastezoo.evaluation.extractors import Extractor
    from hastezoo.evaluation.results.result import EvaluationResult


@dataclass(frozen=True)
class Evaluated:
    """What came of an evaluation.

    Attributes:
        result: The numbers, and all that they depend on.
        files: `result.json` first, then what there is to look at.
        command: The line that measures the same.
        seconds: Spent on it this time.
        notes: What to know before the numbers are believed.
    """

    result: EvaluationResult
    files: list[Path]
    command: str
    seconds: float
    notes: list[str] = field(default_factory=list)

    def picture(self, name: str) -> Path | None:
        """A picture that was made, by its file's name."""
        return next((path for path in self.files if path.name == name), None)


def references() -> list[str]:
    """What samples can be held against here: names only, for a path is the server's own affair."""
    return [*DIGITS, *named_references()]


def is_here(reference: str) -> bool:
    """Whether a named reference needs no file that would have to be fetched by hand first."""
    return reference in DIGITS or named_references()[reference].find() is not None


def asked(form: EvaluateForm, settings: AppSettings) -> EvaluationAsk:
    """What `hastezoo eval-fid` would be asked for, settled.

    Raises:
        UserError: If it cannot be measured, or is more than is allowed here.
    """
    card = offered_card(form.model, settings)
    if card.text is not None:
        raise UserError(
            f"{card.name} draws from text, and is measured with a file of prompts, which this page does not take; use "
            f"`hastezoo eval-fid --model {card.name} --prompts FILE`"
        )
    named = form.model_copy(update={"protocol": form.protocol or default_protocol(card)})
    protocol, changed, whole = named.settled(card)
    ask = EvaluationAsk(
        model=card.name,
        reference=_reference(form.reference, card),
        protocol=protocol,
        overrides=changed,
        labels=None if form.labels == whole.labels else form.labels,
        num=form.number,
        seed=form.seed,
        allow_few=form.allow_few,
        device=settings.device,
        dtype=settings.dtype,
    )
    _check_work(ask, settings)
    return settled(ask, card)


def _reference(name: str | None, card: Card) -> str:
    figure = stated(card)
    name = name or (figure.reference if figure else "")
    if name not in references():
        what = f"no reference is called {name!r}" if name else f"the card of {card.name} names no reference"
        raise UserError(f"{what}; choose one of {', '.join(references())}")
    if not is_here(name):
        known = named_references()[name]
        raise UserError(
            f"the reference {name} is not on this server: {known.file}, which is to be had from {known.url}, has to be "
            "put into its folder of references first"
        )
    return name


def _check_work(ask: EvaluationAsk, settings: AppSettings) -> None:
    count, protocol = count_of(ask), protocol_of(ask)
    steps = ADAPTIVE_STEPS if protocol.solver == "dopri5" else protocol.steps
    if count * steps > settings.max_evaluation:
        raise UserError(
            f"{count:,} images x {steps} steps are more than the {settings.max_evaluation:,} image steps of one "
            "evaluation here; take fewer of either"
        )


def evaluate(ticket: Ticket, shelf: Shelf, ask: EvaluationAsk, folder: Path) -> Evaluated:
    """Measure what is asked for. Features that are there are used, and what is done stays when it is cancelled.

    Args:
        ticket: Told of every step; it stops the work.
        shelf: Gives the pipeline.
        ask: Settled.
        folder: Of all evaluations; each has a folder of its own in it, by what its features depend on.

    Raises:
        UserError: If it cannot be measured.
        Cancelled: If the ticket was cancelled.
    """
    from hastezoo.evaluation.command import evaluation_command
    from hastezoo.evaluation.planning import plan_drawn, run
    from hastezoo.webapp.following import Shown, Watched

    began, card = time.monotonic(), find_card(ask.model)
    extractor = _extractor(ask, ticket)  # before the checkpoint: it is the smaller download, and the likelier to fail
    pipeline = shelf.get(ask.model, ticket)
    watched = Watched(ticket, pipeline, count_of(ask))
    plan, settings = plan_drawn(ask, card, pipeline=pipeline, extractor=extractor, callback=watched.step)
    plan = replace(plan, out=folder / plan.out.name, images=Shown(plan.images, watched.see))
    command = evaluation_command(replace(ask, batch_size=plan.batch_size))
    if plan.out.exists():
        os.utime(plan.out)  # or it could be taken for old, and removed, while it is worked in
        watched.look(plan.out)
    result, files = run(plan, settings | {"command": command}, ask, card, watcher=watched)
    return Evaluated(result, files, command, time.monotonic() - began, watched.notes)


def _extractor(ask: EvaluationAsk, ticket: Ticket) -> Extractor:
    from hastezoo.evaluation.loading import find_processes, load_extractor

    def progress(done: int, total: int | None) -> None:
        share = f" of {total / 2**20:,.0f}" if total else ""
        ticket.report(text=f"fetching what sees the images: {done / 2**20:,.0f}{share} MiB")

    ticket.report(text=f"loading what sees the images: {ask.features}")
    return load_extractor(ask, find_processes(ask).device, progress)


def protocol_count(protocol: str) -> int | None:
    """How many images a named protocol takes; None of one that says nothing, or is not known."""
    known = protocols().get(protocol)
    return known.count if known is not None else None
