"""The page's address says what it shows: written as the controls change, read when the page is opened."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from gradio.components import Component

LONGEST = 2000  # characters of one value
DEPENDENT = ("model", "card")  # what these may be is not known from their choices of the moment
Fields = Mapping[str, Component]


def remember(tab: gr.Tab, name: str, fields: Fields) -> None:
    """Keep the address in step with a tab's controls.

    Args:
        tab: Choosing it writes the address too.
        name: Of the tab, in the address.
        fields: Controls by their names in the address.
    """
    names = json.dumps(list(fields))
    changes = [field.change for field in fields.values()]  # type: ignore[attr-defined]  # events are made at run time
    gr.on(
        [tab.select, *changes],
        None,
        list(fields.values()),
        None,
        js=f"(...values) => hastezoo.remember({json.dumps(name)}, {names}, values)",
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )


def read(query: Mapping[str, list[str]], fields: Fields) -> tuple[dict[str, Any], list[str]]:
    """What an address says of some fields.

    Args:
        query: Values by name, each a list.
        fields: Controls by name.

    Returns:
        Values by name, and what could not be read, a line each.
    """
    values: dict[str, Any] = {}
    notes = []
    for name, field in fields.items():
        if name not in query:
            continue
        try:
            texts = [one[:LONGEST] for one in query[name]]
            values[name] = texts[-1] if name in DEPENDENT else _read_one(field, texts)
        except ValueError as error:
            notes.append(f"the link's {name} {', '.join(query[name])[:40]!r} {error}; it is passed over")
    return values, notes


def _read_one(field: Component, texts: list[str]) -> Any:
    if isinstance(field, gr.Slider):
        number = _number(texts[-1])
        if not field.minimum <= number <= field.maximum:
            raise ValueError(f"is not in {field.minimum:g}..{field.maximum:g}")
        return int(number) if field.step == 1 else number
    if isinstance(field, gr.Checkbox):
        return texts[-1].lower() in ("true", "1", "yes")
    if isinstance(field, gr.Dropdown | gr.Radio):
        return _read_choice(field, texts)
    return texts[-1]


def _read_choice(field: gr.Dropdown | gr.Radio, texts: list[str]) -> Any:
    """Choices are compared as texts: a class is a number, and an address has none."""
    known = {str(value): value for _, value in field.choices}
    if isinstance(field, gr.Dropdown) and field.multiselect:
        return [known.get(text, int(text) if text.isdecimal() else text) for text in texts]
    if texts[-1] not in known and not getattr(field, "allow_custom_value", False):
        raise ValueError("is none of the choices")
    return known.get(texts[-1], texts[-1])


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is no number")
    return number


def parsed(search: Any) -> dict[str, list[str]]:
    """Values by name of an address' query; of anything else none."""
    try:
        return parse_qs(str(search or "").removeprefix("?"), max_num_fields=200)
    except ValueError:
        return {}
