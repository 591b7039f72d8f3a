"""Following a ticket from an event's generator, and letting go of it when whoever watches is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from hastezoo.webapp.turns import Ticket, Turns

LOOK = 0.03  # seconds between two looks at a ticket
RATE = 0.15  # seconds between two reports: more would be felt by the work, fewer by the eye
LONG, SLOW = 5.0, 0.5  # a run of more seconds is reported less often: on two cores the page takes them from the work
ALIVE = 1.0  # seconds after which a report is due even if nothing changed: only then a lost client is noticed


async def watch(ticket: Ticket, turns: Turns) -> AsyncGenerator[None, None]:
    """Yield whenever there is something new to show, and once more when the ticket is over.

    Cancels the ticket if the watcher goes before that; close it (`contextlib.aclosing`) to have it at once.
    """
    seen, told = -1, 0.0
    try:
        while not ticket.over:
            now = time.monotonic()
            pause = RATE if ticket.seconds < LONG else SLOW
            if now - told > ALIVE or (ticket.version != seen and now - told > pause):
                seen, told = ticket.version, now
                yield
            await asyncio.sleep(LOOK)
    finally:
        if not ticket.over:
            turns.cancel(ticket.id)
    yield
