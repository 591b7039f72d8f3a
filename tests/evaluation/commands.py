"""`hastezoo eval-fid` as a user types it, within the tests' process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from hastezoo.cli.main import main


def eval_fid(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["eval-fid", *map(str, arguments)])


def measured(*arguments: Any, out: str = "x") -> dict[str, Any]:
    """The result.json of a command that must work."""
    result = eval_fid(*arguments, "--out", out)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads((Path(out) / "result.json").read_text())
    return content
