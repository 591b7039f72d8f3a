"""TOML is written as it is read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hastezoo.zoo.toml import to_toml


def test_toml_comes_back_as_it_was() -> None:
    awkward = "".join(map(chr, range(0x20))) + "\x7f\x80\"'\\#=[]\u2028\u00e9\U0001f600"
    values: dict[str, Any] = {
        "text": awkward,
        "numbers": [1, -2, 0.1, 1e-05, 1e22, 5e-324, -0.0],
        "truth": True,
        "empty": [],
        "lists": [[1, 2], ["a", awkward]],
        "table": {"a key": 1, awkward: "x", "deep": {"b": [False], "none": {}}},
        "bare": {},
        "tables": [{"x": 1.5, "text": awkward}, {"x": 2}],
        "last": "after the tables",
    }
    assert tomllib.loads(to_toml(values)) == values
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None, "d": 1}})) == {"b": {"d": 1}}
    with pytest.raises(TypeError, match="Path"):
        to_toml({"path": Path("x")})
