"""The app without its page: forms in, tickets out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hastezoo.webapp import columns, comparing, drawing, evaluating, forms
from hastezoo.webapp.outputs import Outputs
from hastezoo.webapp.results import Found, find, listed
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.shelf import Shelf, tidy
from hastezoo.webapp.turns import Ticket, Turns
from hastezoo.zoo.card import Card


class Studio:
    """One device, one pipeline, one queue, one folder.

    Args:
        settings: Of the server.

    Raises:
        UserError: If the folder cannot be made, or there is no such device or model.
    """

    def __init__(self, settings: AppSettings) -> None:
        if settings.device not in ("auto", "cpu"):  # which there always is: torch can wait
            from hastezoo.devices import find_device

            find_device(settings.device)
        for name in settings.models:
            forms.offered_card(name, settings)
        self.settings = settings
        self.outputs = Outputs(settings.outputs, settings.keep_hours)
        self.shelf = Shelf(settings.device, settings.dtype)
        self.turns = Turns(settings.waiting, after=tidy)

    @property
    def cards(self) -> list[Card]:
        """The checkpoints to choose from."""
        return forms.offered(self.settings)

    def draw(self, form: forms.DrawForm) -> Ticket:
        """Queue a request for images; the ticket's result is a `Drawn`.

        Raises:
            UserError: If it is not valid or not allowed, or the queue is full.
        """
        ask = forms.asked(form, form, self.settings)
        what = f"{form.count} images of {form.model}"
        return self._join(what, lambda ticket: drawing.draw(ticket, self.shelf, ask, self.outputs.folder(ticket.id)))

    def compare(self, form: columns.CompareForm) -> Ticket:
        """Queue a comparison; the ticket's result is a `Comparison`.

        Raises:
            UserError: As `draw`; or if the columns do not draw the same things.
        """
        asks = columns.compared(form, self.settings)
        what = f"{form.count} images of {', '.join(ask.model for ask in asks)}"
        return self._join(
            what, lambda ticket: comparing.compare(ticket, self.shelf, asks, self.outputs.folder(ticket.id))
        )

    def sweep(self, form: columns.SweepForm) -> Ticket:
        """Queue a sweep; the ticket's result is a `Sweep`.

        Raises:
            UserError: As `draw`; or if a value is none of the axis.
        """
        asks, axis = columns.swept(form, self.settings), form.axis
        what = f"{form.count} images of {form.model} with {len(asks)} values of {axis}"
        return self._join(
            what, lambda ticket: comparing.sweep(ticket, self.shelf, asks, self.outputs.folder(ticket.id), axis)
        )

    def evaluate(self, form: forms.EvaluateForm) -> Ticket:
        """Queue an evaluation; the ticket's result is an `Evaluated`.

        Raises:
            UserError: If it is not valid or not allowed, or the queue is full.
        """
        ask, folder = evaluating.asked(form, self.settings), self.outputs.evaluations
        what = f"an evaluation of {ask.model} over {ask.num} images"
        return self._join(what, lambda ticket: evaluating.evaluate(ticket, self.shelf, ask, folder))

    def results(self) -> list[Found]:
        """What evaluations found, newest first."""
        return listed(self.outputs.evaluations)

    def result(self, id: object) -> Found:
        """One of them, by its name.

        Raises:
            UserError: If there is none.
        """
        return find(self.outputs.evaluations, id)

    def _join(self, what: str, work: Callable[[Ticket], Any]) -> Ticket:
        return self.turns.join(what, work)

    def health(self) -> dict[str, Any]:
        """How the server is."""
        from hastezoo import __version__

        return {"status": "ok", "hastezoo": __version__, "loaded": self.shelf.loaded or None, **self.turns.counts()}

    def close(self) -> None:
        """Cancel what is under way and stop."""
        self.outputs.close()
        self.turns.close()
