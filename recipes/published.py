"""How the published checkpoints were trained, as data (`published.toml`), and where the recipes differ."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def published(card: Card) -> dict[str, Any]:
    """The settings that a checkpoint was, or would have been, trained with: `train`, `data`, `alignment` (or None)."""
    table = _table()
    size = card.architecture.split("_")[1]
    method: dict[str, Any] = table.get(card.method, {})
    sizes = [method.get(size, {}), method.get(f"{size}-{card.resolution}", {})]
    own = {key: value for key, value in method.items() if key in ("train", "data", "alignment")}
    values: dict[str, Any] = {}
    for layer in (table["common"], own, *sizes):
        values = _over(values, layer)
    values["train"]["steps"] = card.steps or table["steps"][card.name]
    return {"alignment": None, **_nothing(values)}


def differences(card: Card) -> list[Difference]:
    """What the recipe of a checkpoint does otherwise than the paper."""
    return [
        Difference(row["what"], row["paper"], row["here"], row["why"])
        for row in _table()["differs"]
        if card.method in row["methods"] and card.name in row.get("checkpoints", [card.name])
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
