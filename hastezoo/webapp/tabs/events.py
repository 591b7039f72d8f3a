"""Events that fail politely: one line for the person, a traceback for the log only."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import gradio as gr

from hastezoo.errors import UserError
from hastezoo.webapp.turns import UNEXPECTED

log = logging.getLogger("hastezoo.webapp")

Steps = Callable[..., AsyncGenerator[Any, None]]


def polite(event: Steps) -> Steps:
    """An event's generator whose errors are shown as one line."""

    @functools.wraps(event)
    async def wrapped(*values: Any) -> AsyncGenerator[Any, None]:
        try:
            async with aclosing(event(*values)) as steps:
                async for step in steps:
                    yield step
        except UserError as error:
            raise gr.Error(str(error), print_exception=False, title="Not possible") from None
        except gr.Error:
            raise
        except Exception:
            log.exception("an event failed")
            raise gr.Error(UNEXPECTED, print_exception=False) from None

    return wrapped
