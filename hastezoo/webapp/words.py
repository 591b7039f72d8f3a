"""What the page says of checkpoints, runs and results, as HTML; everything that comes from outside is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from hastezoo.webapp.turns import Ticket
from hastezoo.zoo.card import Card
from hastezoo.zoo.documents import quality, steps

if TYPE_CHECKING:
    from hastezoo.webapp.drawing import Drawn

READY = {"embedded": "ready", "hub": "is fetched", "upstream": "is fetched", "recipe-only": "no weights known"}


def family(card: Card) -> str:
    """The group that a checkpoint belongs to."""
    kind = "MMDiT, text" if card.text is not None else "SiT"
    return f"{kind} · {card.resolution} px"


def card_line(card: Card) -> str:
    """A line of a card."""
    method = {"plain": "plain", "repa": "REPA", "haste": "HASTE"}[card.method]
    facts = [f"{card.parameters / 1e6:.1f} M parameters", f"{card.resolution} px", method, f"{steps(card)} steps"]
    number = "" if quality(card) == "-" else f"<br>{escape(quality(card).replace('`', '').replace('*', ''))}"
    status = f"<span class='hz-tag hz-{card.status}'>{READY[card.status]}</span>"
    return f"<p class='hz-card-line'>{status} {escape(card.title)}<br>{escape(', '.join(facts))}{number}</p>"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def progress(ticket: Ticket, position: int) -> str:
    """Where a ticket is: its place in the queue, or a bar and a line of numbers."""
    if ticket.state == "waiting":
        ahead = "next in the queue" if position <= 1 else f"number {position} in the queue"
        return _panel(0, f"waiting: {ahead}")
    now = ticket.progress
    parts = [now.text] if now.text else []
    if now.step:
        parts.append(f"step {now.step}" + (f" of {now.steps}" if now.steps else ""))
        parts.append(count(now.evaluations, "evaluation"))
    if ticket.seconds_left is not None:
        parts.append(f"{duration(ticket.seconds_left)} left")
    return _panel(now.fraction, ", ".join(parts) or "starting")


def preview(data: str, alt: str) -> str:
    """A picture of a run under way, given as a data address; nothing of none."""
    return f"<img class='hz-preview' alt='{escape(alt)}' src='{escape(data)}'>" if data else ""


def _panel(fraction: float, text: str) -> str:
    percent = round(100 * min(max(fraction, 0), 1))
    return (
        "<div class='hz-panel'>"
        f"<div class='hz-bar' role='progressbar' aria-label='Progress' aria-valuemin='0' aria-valuemax='100' "
        f"aria-valuenow='{percent}'><span style='width:{percent}%'></span></div>"
        f"<p class='hz-status' role='status'>{escape(text)}</p></div>"
    )


def outcome(text: str, kind: str = "done") -> str:
    """A line at the end of a run: done, cancelled or failed."""
    role = "alert" if kind == "failed" else "status"
    return f"<div class='hz-panel'><p class='hz-status hz-{kind}' role='{role}'>{escape(text)}</p></div>"


def stopped(ticket: Ticket) -> str:
    """What a ticket says that came to nothing."""
    if ticket.state == "failed":
        return outcome(ticket.error, "failed")
    after = f" after step {ticket.progress.step}" if ticket.progress.step else ""
    return outcome(f"cancelled{after}; nothing was kept", "cancelled")


def drawn(result: Drawn) -> str:
    """What was drawn, in a line."""
    images = len(result.files)
    spent = f"{count(result.evaluations, 'evaluation')}, {count(result.passes, 'network pass')} an image"
    lines = [f"{count(images, 'image')} in {duration(result.seconds)}: {spent.replace('passs', 'passes')}"]
    return outcome("; ".join([*lines, *result.notes]))
