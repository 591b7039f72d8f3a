"""An evaluation said again: as the `hastezoo eval-fid` line that measures the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from hastezoo.evaluation.asking import EvaluationAsk

# Said first, in this order, and said even where they are what the command would take by itself: a card may change.
FIRST = ("samples", "model", "reference", "features", "protocol")
SHORT = {"num": "-n"}


def evaluation_command(ask: EvaluationAsk) -> str:
    """The line for a POSIX shell that measures what is asked for.

    Args:
        ask: Settled. Files that it names are taken to be still there. The batch size moves the last bits of images, so
            to have the very same numbers it has to be the one that was used, and not "auto".
    """
    defaults = {one.name: one.default for one in fields(ask)}
    drawn = ask.samples is None
    words = ["hastezoo", "eval-fid"]
    for key in FIRST:
        if getattr(ask, key) and (drawn or key not in ("model", "protocol")):
            words += _option(key, getattr(ask, key))
    for key, value in ask.overrides.items():
        values = value if isinstance(value, tuple | list) else (value,)
        words += [_name(key), *map(_text, values)]
    for key, default in defaults.items():
        value = getattr(ask, key)
        if key not in (*FIRST, "overrides") and value != default:
            words += _option(key, value)
    return shlex.join(words)


def _option(key: str, value: Any) -> Iterator[str]:
    if key == "curve":
        yield "--no-curve"
    elif value is True:
        yield _name(key)
    else:
        yield _name(key)
        yield _text(value)


def _name(key: str) -> str:
    return SHORT.get(key, f"--{key.replace('_', '-')}")


def _text(value: Any) -> str:
    """As short as it is exact."""
    if isinstance(value, tuple):
        return ",".join(value)
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)
