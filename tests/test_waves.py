"""How the runs of a study are trained one beside the other, and how their tables get into a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click import ClickException

from tests.conftest import ROOT

SCRIPT = """
import sys
from pathlib import Path

name, out = sys.argv[3], Path(sys.argv[5])
print("training", name)
if name == "broken":
    sys.exit(3)
(out / name).mkdir()
(out / name / f"{name}.safetensors").write_text(str(len(list(out.glob("*/*.safetensors")))))
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules, which lie beside the package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "study.py"
    path.write_text(SCRIPT)
    return str(path)


def test_forks_come_last_and_what_is_finished_is_left_alone(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from waves import train_in_waves

    out = tmp_path / "runs"
    (out / "done").mkdir(parents=True)
    (out / "done" / "done.safetensors").write_text("kept")
    plan = {"fork": ("haste", 0, 500), "done": ("none", 0, None), "a": ("none", 1, None), "b": ("repa", 0, None)}
    train_in_waves(script, plan, out, jobs=1)
    assert (out / "done" / "done.safetensors").read_text() == "kept" and not (out / "done.log").exists()
    found = {name: (out / name / f"{name}.safetensors").read_text() for name in ("a", "b", "fork")}
    assert found == {"a": "1", "b": "2", "fork": "3"}, "how many there were before it"
    assert (out / "a.log").read_text() == "training a\n"
    assert capsys.readouterr().out.splitlines() == ["a: done", "b: done", "fork: done"]


def test_a_run_that_fails_is_named_with_its_log(script: str, tmp_path: Path) -> None:
    from waves import train_in_waves

    plan = {"broken": ("none", 0, None), "a": ("none", 1, None), "fork": ("haste", 0, 500)}
    with pytest.raises(ClickException) as caught:
        train_in_waves(script, plan, tmp_path / "runs", jobs=1)
    assert caught.value.message == f"broken ended with 3; its output is in {tmp_path / 'runs' / 'broken'}.log"
    assert (tmp_path / "runs" / "a" / "a.safetensors").exists() and not (tmp_path / "runs" / "fork").exists()


def test_a_page_keeps_what_is_around_its_tables() -> None:
    from pages import updated

    page = "before\n<!-- x: `me.py` writes this table -->\nold\n<!-- end of x -->\nafter\n"
    found = updated(page, {"x": "| new |\n"}, "me.py")
    assert found == "before\n<!-- x: `me.py` writes this table -->\n\n| new |\n\n<!-- end of x -->\nafter\n"
    assert updated(found, {"x": "| new |\n"}, "me.py") == found
    with pytest.raises(ClickException, match="no markers for the table of y"):
        updated(page, {"y": ""}, "me.py")
    with pytest.raises(ClickException, match="no markers"):
        updated(page, {"x": ""}, "you.py")
