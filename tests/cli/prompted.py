"""`hastezoo sample` as tests of prompts call it, and what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from hastezoo.cli.main import main


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sample", *arguments])


def refused(*arguments: str) -> str:
    """The one line of an error; nothing is left behind."""
    result = run(*arguments)
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert not list(Path().iterdir())
    return result.output


def record(folder: str = "x") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "samples.json").read_text())
    return content


def images(folder: str = "x") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("0*"))}
