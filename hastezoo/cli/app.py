"""`hastezoo app`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError


def _default_host() -> str:
    """This machine alone; in a Space of Hugging Face, which is made to be reached, everywhere."""
    return "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"


def _accounts(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name, password) of each NAME:PASSWORD.

    Raises:
        UserError: If one has no name or no password.
    """
    pairs = [text.partition(":")[::2] for text in texts]
    if not all(name and password for name, password in pairs):
        raise UserError("--auth takes NAME:PASSWORD, and one of both is missing")
    return pairs


@click.command("app")
@click.option(
    "--host",
    default=_default_host,
    show_default="127.0.0.1",
    envvar="GRADIO_SERVER_NAME",
    help="Address to listen on; 0.0.0.0 lets other machines in.",
)
@click.option(
    "--port", type=int, default=7860, show_default=True, envvar="GRADIO_SERVER_PORT", help="0 takes any that is free."
)
@click.option(
    "--auth", multiple=True, metavar="NAME:PASSWORD", envvar="HASTEZOO_AUTH", help="Ask for a password; repeatable."
)
@click.option("--root-path", default="", envvar="GRADIO_ROOT_PATH", help="Path under which a proxy serves the app.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="Offer only this checkpoint; repeatable.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option("--dtype", default="float32", show_default=True, help="Of the network: float32, bfloat16, float16.")
@click.option(
    "--outputs",
    type=click.Path(path_type=Path),
    default=Path("outputs/app"),
    show_default=True,
    help="The folder for images and results, the only one that is served.",
)
@click.option("--keep-hours", type=float, default=24.0, show_default=True, help="Remove what is older.")
@click.option("--waiting", type=int, default=8, show_default=True, help="Requests that may wait for the device.")
@click.option("--max-images", type=int, default=64, show_default=True, help="Images of one request.")
@click.option("--max-work", type=int, default=20_000, show_default=True, help="Images x steps of one request.")
@click.option(
    "--max-evaluation", type=int, default=20_000_000, show_default=True, help="Images x steps of one evaluation."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(auth: tuple[str, ...], models: tuple[str, ...], **options: Any) -> None:
    """A page to draw, compare and evaluate, and an API, on this machine's address.

    Only this machine can reach it unless --host says otherwise. Requests wait in one queue for the device.
    """
    from pydantic import ValidationError

    from hastezoo.errors import explain
    from hastezoo.webapp.settings import AppSettings

    values = {**options, "auth": _accounts(auth), "models": list(models)}
    try:
        settings = AppSettings.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, AppSettings, "app")) from None
    from hastezoo.webapp.server import serve

    serve(settings, say=lambda text: click.echo(text, err=True))
