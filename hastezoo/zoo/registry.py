"""Finds cards and protocols: the package's, and the user's in `HASTEZOO_HOME/cards`."""

from __future__ import annotations

import functools
import tomllib
import warnings
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hastezoo.errors import UserError, explain, nearest
from hastezoo.home import home
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo.card import Card

ZOO = Path(__file__).parent
DEFAULT_CHECKPOINT = "sit-ti-digits-haste"


def read_card(path: Path, weights_folder: Path) -> Card:
    """Read one card.

    Raises:
        UserError: If the file is no valid card.
    """
    try:
        card = Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise UserError(explain(error, Card, f"card {path}")) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"card {path} cannot be read: {error}") from None
    card._folder = weights_folder
    return card


@functools.cache
def package_cards() -> dict[str, Card]:
    """The cards that ship with the package, by name."""
    cards = [read_card(path, ZOO / "embedded") for path in (ZOO / "cards").glob("*.toml")]
    return {card.name: card for card in sorted(cards, key=_rank)}


def _rank(card: Card) -> tuple[bool, bool, int, int, int, str]:
    """What runs at once first, then by family, resolution, size and method."""
    return (
        card.status != "embedded",
        card.classes is None,
        card.resolution,
        round(card.parameters, -6),
        ("plain", "repa", "haste").index(card.method),
        card.name,
    )


def list_cards() -> list[Card]:
    """Every known card. A user's card that is broken, or takes a name of the package, is passed over with a warning."""
    cards = dict(package_cards())
    for path in sorted((home() / "cards").glob("*.toml")):
        try:
            card = read_card(path, path.parent)
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
            continue
        if card.name in cards:
            warnings.warn(f"card {path} is ignored: the name {card.name!r} is taken", stacklevel=2)
        else:
            cards[card.name] = card
    return list(cards.values())


def find_card(name: str) -> Card:
    """The card of that name.

    Raises:
        UserError: If there is none; it names the nearest.
    """
    cards = {card.name: card for card in list_cards()}
    if name not in cards:
        near = nearest(name, cards) or list(cards)[:3]
        raise UserError(f"unknown model {name!r}; nearest: {', '.join(near)} (`hastezoo list` shows all)")
    return cards[name]


@functools.cache
def protocols() -> dict[str, Protocol]:
    """The named protocols."""
    table = tomllib.loads((ZOO / "protocols.toml").read_text(encoding="utf-8"))
    return {name: Protocol.model_validate(values) for name, values in table.items()}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: If there is none; it names the nearest.
    """
    if name not in protocols():
        near = nearest(name, protocols()) or list(protocols())
        raise UserError(f"unknown protocol {name!r}; nearest: {', '.join(near)}")
    return protocols()[name]


def make_protocol(name: str, overrides: dict[str, Any]) -> Protocol:
    """A named protocol with some settings replaced.

    Raises:
        UserError: If the name, a key or a value is not valid.
    """
    return validated({**find_protocol(name).model_dump(), **overrides})


def validated(settings: dict[str, Any]) -> Protocol:
    """A protocol of these settings.

    Raises:
        UserError: If a key or a value is not valid.
    """
    try:
        return Protocol.model_validate(settings)
    except ValidationError as error:
        raise UserError(explain(error, Protocol)) from None
