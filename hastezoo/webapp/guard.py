"""What of Gradio's routes this app leaves open. An app that takes no files has no business with most of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/gradio_api/"
FILE = "file="
# Of `/gradio_api/`: the queue and what describes the page and the API.
OPEN = (
    "api_info", "app_id", "call", "cancel", "config", "heartbeat", "info", "login_check", "openapi.json", "queue",
    "reset", "startup-events", "theme.css", "token", "user",
)  # fmt: skip
LONGEST_BODY = 2**20  # bytes of a request: a thousand prompts fit


class Guard:
    """ASGI middleware: closes uploads, proxies and streams, and serves files from one folder only.

    Args:
        app: What answers the rest.
        outputs: The folder.
        closing: Set when the server is to stop: answers that go on for as long as a page is open end then.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], outputs: Path, closing: asyncio.Event) -> None:
        self.app, self.outputs, self.closing = app, outputs, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refused = self.refuse(scope)
            if refused is not None:
                await answer(send, *refused)
                return
            receive = _bounded(self._until_closing(receive))
        await self.app(scope, receive, send)

    def _until_closing(self, receive: Receive) -> Receive:
        """Messages, until the server is to stop; then the client counts as gone."""

        async def message() -> MutableMapping[str, Any]:
            coming, closing = asyncio.ensure_future(receive()), asyncio.ensure_future(self.closing.wait())
            try:
                await asyncio.wait((coming, closing), return_when=asyncio.FIRST_COMPLETED)
                return {"type": "http.disconnect"} if closing.done() else await coming
            finally:
                coming.cancel()
                closing.cancel()

        return message

    def refuse(self, scope: Scope) -> tuple[int, str] | None:
        """(status, reason) of a request that is not answered."""
        path = unquote(scope["path"])
        _, found, rest = path.partition(PREFIX)
        if found and rest.startswith(FILE):
            return None if self.serves(rest.removeprefix(FILE)) else (404, "there is no such file")
        if found and rest.partition("/")[0] not in OPEN:
            return 404, "this app has no such route"
        if _length(scope) > LONGEST_BODY:
            return 413, f"a request may have {LONGEST_BODY:,} bytes"
        return None

    def serves(self, text: str) -> bool:
        """Whether a path is that of a file in the folder, links followed."""
        if "\x00" in text:
            return False
        try:
            path = Path(text).resolve()
            hidden = any(part.startswith(".") for part in path.relative_to(self.outputs).parts)
            return path.is_file() and not hidden
        except (OSError, ValueError):
            return False


def _length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _bounded(receive: Receive) -> Receive:
    """A body without a stated length is cut off where it gets too long."""
    seen = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LONGEST_BODY:
            return {"type": "http.disconnect"}
        return message

    return counted


async def answer(send: Send, status: int, reason: str) -> None:
    """A refusal as JSON."""
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
