"""Following a ticket from an event's generator, and letting go of it when whoever watches is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from hastezoo.webapp.turns import Ticket, Turns

LOOK = 0.03  # seconds between two looks at a ticket
RATE = 0.12  # seconds between two reports: eight a second look like motion
ALIVE = 1.0  # seconds after which a report is due even if nothing changed: only then a lost client is noticed


async def watch(ticket: Ticket, turns: Turns) -> AsyncGenerator[None, None]:
    """Yield whenever there is something new to show, and once more when the ticket is over.

    Cancels the ticket if the watcher goes before that; close it (`contextlib.aclosing`) to have it at once.
    """
    seen, told = -1, 0.0
    try:
        while not ticket.over:
            now = time.monotonic()
            if now - told > ALIVE or (ticket.version != seen and now - told > RATE):
                seen, told = ticket.version, now
                yield
            await asyncio.sleep(LOOK)
    finally:
        if not ticket.over:
            turns.cancel(ticket.id)
    yield
