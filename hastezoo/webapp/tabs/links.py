"""The page's address says what it shows: written as the controls change, read when the page is opened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import gradio as gr
from gradio.components import Component

from hastezoo.webapp.tabs.controls import QUIET

LONGEST = 2000  # characters of one value
DEPENDENT = ("model",)  # what it may be is not known from its choices of the moment
Fields = Mapping[str, Component]


class Controls(Protocol):
    """Of a tab: its fields by their names in a link, and all that `Place.show` sets."""

    @property
    def fields(self) -> dict[str, Component]: ...
    @property
    def shown(self) -> list[Any]: ...


@dataclass(frozen=True)
class Place:
    """A part of the page that a link can open.

    Attributes:
        name: In the address.
        tab: That shows it.
        controls: Its controls.
        show: Values by name -> those of `controls.shown`.
    """

    name: str
    tab: gr.Tab
    controls: Controls
    show: Callable[[dict[str, Any]], list[Any]]


def follow(page: gr.Blocks, places: Sequence[Place], tabs: gr.Tabs, views: gr.Tabs) -> None:
    """Keep the address in step with the page, and the page with the address that it is opened with.

    Args:
        page: That is being built.
        places: What an address can name; the first where it names none.
        tabs: Of the page.
        views: Of the tab that has several places.
    """
    for place in places:
        remember(place.tab, place.name, place.controls.fields)

    def opened(address: Any) -> list[Any]:
        query = parsed(address)
        asked = next((place for place in places if place.name in query.get("tab", ())), places[0])
        shown = []
        for place in places:
            values = told(query, place) if place is asked else {}
            shown += place.show(values) if values else [gr.skip()] * len(place.controls.shown)
        return [*selected(asked.name), *shown]

    search = gr.Textbox(visible=False)
    outputs = [tabs, views, *(one for place in places for one in place.controls.shown)]
    restored = page.load(opened, search, outputs, js="() => [hastezoo.opened]", **QUIET)
    restored.then(None, js="() => { hastezoo.ready = true; }", api_visibility="private", show_progress="hidden")


def selected(name: str) -> list[Any]:
    """The page's tabs and the views of Compare, such that a place is seen."""
    view = name in ("compare", "sweep")
    return [gr.update(selected="compare" if view else name), gr.update(selected=name) if view else gr.skip()]


def told(query: Mapping[str, list[str]], place: Place) -> dict[str, Any]:
    """What an address says of a place; what cannot be read is told the person."""
    values, notes = read(query, place.controls.fields)
    for note in notes:
        gr.Warning(note)
    return values


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
