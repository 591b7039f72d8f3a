"""A button that queues work, another that cancels it, and the places where it is shown: the same in every tab."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hastezoo.webapp import words
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs.controls import QUIET
from hastezoo.webapp.tabs.events import polite
from hastezoo.webapp.turns import Ticket
from hastezoo.webapp.watching import watch


@dataclass(frozen=True)
class Run:
    """Where and how a piece of work is shown.

    Attributes:
        inputs: The controls that say what to do.
        outputs: What `places` made, then what is shown of the result.
        queue: Takes the controls' values, gives the ticket.
        starting: What the progress and the rest show when the ticket has been taken.
        finished: What they show of a result.
        stopped: What the progress says of a ticket that came to nothing.
        alt: What the preview shows, in words.
    """

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    queue: Callable[[Sequence[Any]], Ticket]
    starting: Callable[[], list[Any]]
    finished: Callable[[Any], list[Any]]
    stopped: Callable[[Ticket], str] = words.stopped
    alt: str = "The clean images predicted so far"


def places(name: str, hint: str) -> tuple[gr.State, gr.HTML, gr.HTML]:
    """Build what every run has: (the ticket, the progress, the preview).

    Args:
        name: In front of the elements' ids.
        hint: What the progress says before the first run.
    """
    progress = gr.HTML(words.outcome(hint, "hint"), elem_id=f"{name}-progress", min_height=48)
    return gr.State(""), progress, gr.HTML("", elem_id=f"{name}-preview", elem_classes="hz-preview-place")


def wire(studio: Studio, run: Run, go: gr.Button, cancel: gr.Button) -> Any:
    """Let `go` do it and `cancel` stop it; the event of `go`, for what is to follow it.

    A page that is closed meanwhile cancels it too. The ticket is kept by the server and not sent: nobody can cancel
    somebody else's.
    """
    on, off = gr.update(interactive=True), gr.update(interactive=False)
    unchanged = [gr.skip()] * (len(run.outputs) - 3)

    @polite
    async def work(*values: Any) -> AsyncGenerator[list[Any], None]:
        ticket = run.queue(values)
        line, *rest = run.starting()
        yield [ticket.id, line, "", *rest, off, on]
        sent = ""
        async with aclosing(watch(ticket, studio.turns)) as changes:
            async for _ in changes:
                preview, now = gr.skip(), ticket.progress.preview
                if now != sent:  # it is large, and sent when it is new
                    preview, sent = words.preview(now, run.alt), now
                if not ticket.over:
                    shown = words.progress(ticket, studio.turns.position(ticket))
                    yield [gr.skip(), shown, preview, *unchanged, gr.skip(), gr.skip()]
        line, *rest = run.finished(ticket.result) if ticket.state == "done" else [run.stopped(ticket), *unchanged]
        yield ["", line, "", *rest, on, off]

    def stop(ticket: str) -> None:
        studio.turns.cancel(ticket)

    cancel.click(stop, run.outputs[0], None, **{**QUIET, "preprocess": True})
    return go.click(work, list(run.inputs), [*run.outputs, go, cancel], **QUIET)
