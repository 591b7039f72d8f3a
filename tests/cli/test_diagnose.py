"""`hastezoo diagnose`, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hastezoo.cli.main import main
from tests.training.runs import METRICS, write_plain_run, write_run


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["diagnose", *(str(argument) for argument in arguments)])


def good(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def bad(*arguments: str | Path) -> str:
    """A failure: one line, no traceback, a non-zero exit."""
    result = run(*arguments)
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert result.output.startswith("error: ")
    return result.output.removeprefix("error: ").rstrip()


def facts(output: str) -> dict[str, str]:
    """The first word or two of each line, and the rest."""
    rows = [line.split("  ", 1) for line in output.splitlines() if "  " in line]
    return {name: value.strip() for name, value in rows}


def test_a_picture_in_the_runs_folder_and_a_summary(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "haste")
    before = {path.name for path in folder.iterdir()}
    output = good(folder)
    assert {path.name for path in folder.iterdir()} - before == {"diagnosis.png"}
    assert (folder / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert facts(output) == {
        "run": "haste",
        "steps": "40 of 50",
        "denoising": "0.25",
        "feature": "-0.4 @ 20",
        "attention": "0.9 @ 20",
        "loss": "0.25",
        "mean cosine": "-0.07 @ 20",
        "best CKNNA": "block 3: 0.35 @ 30",
        "alignment": "ended after step 20: mean cosine -0.07 below -0.05",
    }
    assert output.splitlines()[-1] == f"picture: {folder / 'diagnosis.png'}"
    assert "no " not in output


def test_a_run_without_probe_is_told_the_setting(tmp_path: Path) -> None:
    lines = good(write_plain_run(tmp_path / "plain")).splitlines()
    assert "no feature loss, attention loss, gradient cosine: the run's setting alignment is null" in lines
    assert "no CKNNA, attention KL: set train.diagnose_every to look every so many steps" in lines


def test_a_loss_that_is_not_finite_is_called_so(tmp_path: Path) -> None:
    lost = write_plain_run(tmp_path / "lost", metrics=[{"step": 1, "loss": float("nan")}])
    assert facts(good(lost))["loss"] == "not finite"


def test_a_run_that_is_going_on_can_be_looked_at(tmp_path: Path) -> None:
    folder = write_plain_run(tmp_path / "run", metrics=METRICS[:1])
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 20, "loss": 1.')
    assert facts(good(folder))["steps"] == "10 of 50"


def test_several_runs_are_a_row_each_and_one_picture_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [write_run(tmp_path / "haste"), write_plain_run(tmp_path / "plain")]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    header, first, second, *rest = good(*runs).splitlines()
    assert header.split("  ")[0] == "run" and header.split()[-1] == "alignment"
    assert first.startswith("haste ") and "-0.4 @ 20" in first and first.rstrip().endswith("ended @ 20 (gradient)")
    assert second.startswith("plain ") and second.split()[-1] == "none"
    assert all(line.startswith("plain: no ") for line in rest[:-1]) and len(rest) == 3
    assert rest[-1] == "picture: diagnosis.png"
    assert [path.name for path in Path(".").iterdir()] == ["diagnosis.png"]
    assert not any((folder / "diagnosis.png").exists() for folder in runs)


def test_json_is_the_summary_and_nothing_else(tmp_path: Path) -> None:
    haste = write_run(tmp_path / "haste")
    plain = write_plain_run(tmp_path / "plain", metrics=[{"step": 1, "loss": float("nan")}])
    printed = json.loads(good(haste, plain, "--json", "--out", tmp_path / "both.svg"), parse_constant=pytest.fail)
    assert printed["picture"] == str(tmp_path / "both.svg") and (tmp_path / "both.svg").exists()
    first, second = printed["runs"]
    assert first.pop("mean_cosine") == {"step": 20, "value": pytest.approx(-0.07)}
    assert first == {
        "name": "haste",
        "folder": str(haste),
        "step": 40,
        "planned": 50,
        "losses": {
            "denoising": {"step": 40, "value": 0.25},
            "feature": {"step": 20, "value": -0.4},
            "attention": {"step": 20, "value": 0.9},
            "loss": {"step": 40, "value": 0.25},
        },
        "ended_at": 20,
        "termination": "gradient",
        "alignment": "ended after step 20: mean cosine -0.07 below -0.05",
        "best_cknna": {"block": 3, "step": 30, "value": 0.35},
        "missing": {},
    }
    assert second["losses"] == {"loss": {"step": 1, "value": None}}
    assert (second["ended_at"], second["termination"], second["mean_cosine"]) == (None, None, None)
    assert "train.diagnose_every" in second["missing"]["CKNNA"]


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert "does not exist" in bad(tmp_path / "nowhere")
    assert "no config.json" in bad(folder, tmp_path)
    assert bad(folder, "--out", tmp_path / "x.gif").startswith("--out takes a file that ends in .png, .svg, .pdf, not ")
    assert f"there is no folder {tmp_path / 'no'}" in bad(folder, "--out", tmp_path / "no" / "x.png")
    (tmp_path / "folder.png").mkdir()
    assert bad(folder, "--out", tmp_path / "folder.png").startswith(f"cannot write {tmp_path / 'folder.png'}: ")
    assert not list(tmp_path.glob(".*")), "nothing half-written"
    assert run().exit_code == 2


def test_without_matplotlib_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in bad(write_run(tmp_path / "run"))


def test_help_loads_nothing_heavy_and_drawing_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hastezoo.cli.main import main\n"
        "for arguments in (['--help'], [sys.argv[1]]):\n"
        "    try:\n        main(['diagnose', *arguments])\n"
        "    except SystemExit as stop:\n        assert not stop.code\n"
        "    print('LOADED', [name for name in ('torch', 'matplotlib', 'matplotlib.pyplot') if name in sys.modules])\n"
    )
    folder = write_run(tmp_path / "run")
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    found = [line for line in result.stdout.splitlines() if line.startswith("LOADED")]
    assert found == ["LOADED []", "LOADED ['matplotlib']"], result.stderr
