"""How the published checkpoints were trained, as data (`published.toml`), and where the recipes differ."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hastezoo.errors import UserError, nearest
from hastezoo.zoo.card import Card


@dataclass(frozen=True)
class Difference:
    """Something that a recipe does otherwise than the paper.

    Attributes:
        what: The thing.
        paper, here: How it is done there, and here.
        why: The reason.
    """

    what: str
    paper: str
    here: str
    why: str


@functools.cache
def _table() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))


def published(card: Card, variants: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that a checkpoint was, or would have been, trained with: `train`, `data`, `alignment` (or None).

    Args:
        card: The checkpoint.
        variants: Other ways to train it that were published, laid over its own in this order.

    Raises:
        UserError: If there is no such variant of it.
    """
    table = _table()
    size = card.architecture.split("_")[1]
    method: dict[str, Any] = table.get(card.method, {})
    sizes = [method.get(size, {}), method.get(f"{size}-{card.resolution}", {})]
    own = {key: value for key, value in method.items() if key in ("train", "data", "alignment")}
    values: dict[str, Any] = {}
    for layer in (table["common"], own, *sizes):
        values = _over(values, layer)
    values["train"]["steps"] = card.steps or table["steps"][card.name]
    known = variants_of(card)
    for name in variants:
        if name not in known:
            near = nearest(name, known) or list(known)
            hint = f"; nearest: {', '.join(near)}" if near else ", nor any other"
            raise UserError(f"{card.name} has no variant {name!r}{hint}")
        layer = known[name].settings
        # A plain run has nothing to align, whatever the variant says of it.
        values = _over(values, {key: one for key, one in layer.items() if key in values})
    return {"alignment": None, **_nothing(values)}


@dataclass(frozen=True)
class Variant:
    """Another way to train a checkpoint that was published.

    Attributes:
        about: In words.
        settings: What it changes: some of `train`, `data`, `alignment`.
    """

    about: str
    settings: dict[str, Any]


def variants_of(card: Card) -> dict[str, Variant]:
    """The variants of a checkpoint, by name."""
    return {
        name: Variant(row["about"], {key: one for key, one in row.items() if key not in ("about", "methods")})
        for name, row in _table().get("variants", {}).get(card.recipe, {}).items()
        if card.method in row.get("methods", [card.method])
    }


def differences(card: Card) -> list[Difference]:
    """What the recipe of a checkpoint does otherwise than the paper."""
    return [
        Difference(row["what"], row["paper"], row["here"], row["why"])
        for row in _table()["differs"]
        if card.method in row["methods"]
        and card.name in row.get("checkpoints", [card.name])
        and card.recipe in row.get("recipes", [card.recipe])
    ]


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One nested table laid over another."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: the word `none` stands for it."""
    return {
        key: _nothing(value) if isinstance(value, Mapping) else None if value == "none" else value
        for key, value in values.items()
    }
