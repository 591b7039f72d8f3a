"""Errors that are the user's: one line that says what is wrong, with what value, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


REQUEUE = 75  # exit code of a command that a scheduler stopped and may start again (EX_TEMPFAIL of sysexits.h)


class UserError(Exception):
    """Something the user can mend. The CLI prints it as one line and exits with `exit_code`."""

    exit_code = 2


class Stopped(BaseException):
    """A scheduler stops the command by a signal, whose name this carries; like Ctrl-C it is no error to be handled."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that look most like `name`, best first."""
    return difflib.get_close_matches(name.lower(), list(known), n=count, cutoff=0.4)


def explain(error: ValidationError, model: type[BaseModel], what: str = "") -> str:
    """The first thing pydantic found wrong, as one line; an unknown key is told the nearest known one."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    prefix = f"{what}: " if what else ""
    if first["type"] == "extra_forbidden":
        near = nearest(str(first["loc"][-1]), _keys(model, first["loc"][:-1]), 1)
        return f"{prefix}unknown key {place!r}" + (f"; nearest: {near[0]}" if near else "")
    message = first["msg"].removeprefix("Value error, ")
    if not place:
        return f"{prefix}{message}"
    given = first["input"]
    text = repr(given) if len(repr(given)) <= 80 else f"{repr(given)[:77]}..."
    shown = "" if isinstance(given, dict) else f" (given: {text})"
    return f"{prefix}{place}: {message[:1].lower()}{message[1:]}{shown}"


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Field names of the sub-model at `place`."""
    current = model
    for part in place:
        field = current.model_fields.get(str(part))
        annotation = field.annotation if field else None
        # An optional model is a union of itself and None.
        models = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")]
        if not models:
            return []
        current = models[0]
    return list(current.model_fields)
