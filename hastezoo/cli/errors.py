"""How a command fails: one line on stderr and a non-zero exit, a traceback only with --debug."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import click

from hastezoo.errors import UserError


def reporting_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command that has a `debug` option; the option itself does not reach the command."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> Any:
        if debug:
            return command(*args, **kwargs)
        warnings.showwarning = _show_warning
        try:
            return command(*args, **kwargs)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            raise SystemExit(UserError.exit_code) from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(130) from None
        except OSError as error:
            place = f" {error.filename}" if error.filename else ""
            click.echo(f"error: the system refused{place}: {error.strerror or error}", err=True)
            raise SystemExit(1) from None

    return wrapped


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"warning: {message}", err=True)
