"""The app on a port: Gradio mounted into an ASGI app that is guarded and says how it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import TYPE_CHECKING

from hastezoo.errors import UserError
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.studio import Studio

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
PATIENCE = 3  # seconds for answers under way when the server stops
QUEUED_PER_PLACE = 8  # events that Gradio itself may hold for each place of the queue; the rest it refuses


def create_app(studio: Studio, closing: asyncio.Event | None = None) -> FastAPI:
    """The whole app as ASGI.

    Args:
        studio: What it is a page of.
        closing: Set by the server when it is to stop.
    """
    _settle_environment(studio)
    import gradio as gr
    from fastapi import FastAPI

    from hastezoo.webapp.guard import Guard
    from hastezoo.webapp.page import build_page, theme

    settings = studio.settings

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.outputs.start_cleaning()
        yield
        studio.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, outputs=settings.outputs, closing=closing or asyncio.Event())
    app.add_api_route("/health", studio.health)
    page = build_page(studio)
    page.queue(max_size=QUEUED_PER_PLACE * (settings.waiting + 1) + 64, api_open=False)
    gr.set_static_paths([settings.outputs])
    assets = resources.files("hastezoo.webapp") / "assets"
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=settings.auth or None,
        auth_message="hastezoo",
        root_path=settings.root_path or None,
        show_error=True,
        max_file_size=0,
        footer_links=["api", "settings"],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=(assets / "app.css").read_text(encoding="utf-8"),
        head=f"<script>{(assets / 'app.js').read_text(encoding='utf-8')}</script>",
    )


def _settle_environment(studio: Studio) -> None:
    """Gradio reads these when it is imported, or first makes a component."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Its statistics of past events, which nobody sees here, would be taken anew at every event over ever more of them.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
    # Whatever Gradio writes of its own lies in the folder that is served and cleaned, and nowhere else.
    os.environ["GRADIO_TEMP_DIR"] = str(studio.outputs.gradio)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(studio.outputs.gradio)


def create_server(studio: Studio) -> uvicorn.Server:
    """The server of the app, to be run with sockets that are bound."""
    import uvicorn

    closing = asyncio.Event()

    class Server(uvicorn.Server):
        """Ends what would go on for as long as a page is open, and only then waits for what is left."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            closing.set()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        create_app(studio, closing), log_level="warning", timeout_graceful_shutdown=PATIENCE, server_header=False
    )
    return Server(config)


def serve(settings: AppSettings, say: Callable[[str], None] = print) -> None:
    """Serve until interrupted.

    Raises:
        UserError: If the address cannot be bound, the folder cannot be written, or there is no such device or model.
    """
    studio = Studio(settings)
    sock = bind(settings)
    server = create_server(studio)
    port = sock.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"hastezoo app at http://{host}:{port}{settings.root_path}  (Ctrl-C stops it)")
    if settings.host not in LOCAL_NAMES and not settings.auth:
        say("warning: whoever reaches this address can use the app; --auth NAME:PASSWORD asks for a password")
    threading.Thread(target=_warm_up, name="hastezoo-warm-up", daemon=True).start()
    server.run(sockets=[sock])


def bind(settings: AppSettings) -> socket.socket:
    """A socket at the address; refused before anything is loaded.

    Raises:
        UserError: If it is taken, or not one of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise UserError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; give another --host or --port"
        ) from None
    return sock


def _warm_up() -> None:
    """Import what the first request needs, when the page has been sent."""
    time.sleep(3)
    if "torch" not in sys.modules:
        import hastezoo.pipeline  # noqa: F401
