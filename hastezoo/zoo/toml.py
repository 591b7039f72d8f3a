"""Plain values -> TOML, which the standard library reads and does not write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML of plain values, lists and tables; what is None is left out.

    Args:
        values: JSON values; a dict becomes a table, a list of dicts an array of tables, deeper dicts inline tables.

    Raises:
        TypeError: If a value has no counterpart in TOML.
    """
    lines = _pairs({key: value for key, value in values.items() if not _tables(value)})
    for key, value in values.items():
        for table in _tables(value):
            head = f"[{_key(key)}]" if isinstance(value, Mapping) else f"[[{_key(key)}]]"
            lines += ["", head, *_pairs(table)]
    return "\n".join(lines) + "\n"


def _tables(value: Any) -> list[Mapping[str, Any]]:
    """The tables that a value is written as; none for what takes one line."""
    if isinstance(value, Mapping):
        return [value]
    return value if isinstance(value, list) and all(isinstance(one, Mapping) for one in value) else []


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_toml(value)}" for key, value in table.items() if value is not None]


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for pairs of surrogates, so nothing else is escaped, and for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_pairs(value))} }}" if value else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")
