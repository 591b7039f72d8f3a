"""`hastezoo compare`, as a user types it. The results are examples, written by hand."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from hastezoo.cli.main import main
from hastezoo.evaluation.results.result import markdown_table, read_result
from tests.evaluation.examples import DIGITS, REPA, write


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["compare", *(str(argument) for argument in arguments)])


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


def words(line: str) -> list[str]:
    return line.split()


def test_two_results_side_by_side(tmp_path: Path) -> None:
    a = write(tmp_path / "a", REPA)
    b = write(tmp_path / "b", {**REPA, "metrics": {**REPA["metrics"], "fid": {"value": 1.534, "error": 0.028}}}, seed=5)
    lines = good(a, b / "result.json").splitlines()
    assert words(lines[0]) == words(f"A {a}: sit-xl-repa, repa, 50,000 samples, inception features")
    assert words(lines[3]) == words("metric A B B - A")
    # The error of both: hypot(0.021, 0.028) = 0.035.
    assert words(lines[4]) == words("FID 1.434 ± 0.021 1.534 ± 0.028 +0.100 ± 0.035 (beyond the noise)")
    assert words(lines[5]) == words("sFID 4.690 ± 0.030 4.690 ± 0.030 +0.000 ± 0.042 (within the noise)")
    assert words(lines[7]) == words("precision 0.801 0.801 +0.000 (no error known)")
    assert words(lines[9]) == words("KID - - -")
    assert "settings that differ:" in lines and words("seed 0 5") in [words(line) for line in lines]
    assert not any("circumstances" in line or "not comparable" in line for line in lines)


def test_what_forbids_it_is_one_line_and_circumstances_stand_apart(tmp_path: Path) -> None:
    a = write(tmp_path / "a", REPA)
    b = write(tmp_path / "b", REPA, count=10_000, sampling={"steps": 50}, device="cpu", weights_sha256="12" * 32)
    lines = good(a, b).splitlines()
    assert lines[1].endswith(": sit-xl-repa, repa with steps 50, 10,000 samples, inception features")
    (line,) = [line for line in lines if line.startswith("not comparable")]
    assert line == "not comparable, because samples 50,000 and 10,000; protocols with steps 250 and 50"
    settings, circumstances = lines.index("settings that differ:"), lines.index("circumstances that differ:")
    rows = [words(one) for one in lines]
    assert settings < rows.index(words("sampling.steps 250 50")) < circumstances
    assert circumstances < rows.index(words("device cuda:0 (somebody's) cpu"))
    (digests,) = [row for row in rows if row[:1] == ["weights_sha256"]]
    assert digests[1].startswith("ababab") and digests[1].endswith("...")


def test_other_features_are_not_subtracted(tmp_path: Path) -> None:
    output = good(write(tmp_path / "a", REPA), write(tmp_path / "b", DIGITS))
    row = next(line for line in output.splitlines() if line.startswith("fid "))
    assert words(row) == words("fid 1.434 ± 0.021 10.60 ± 0.50 -")
    assert "not comparable, because features inception and pixels" in output


def test_pixels_are_called_so(tmp_path: Path) -> None:
    output = good(write(tmp_path / "a", DIGITS), write(tmp_path / "b", DIGITS))
    assert "pixel FD" in output and "FID" not in output and "differ:" not in output


def test_three_results_are_held_against_the_first(tmp_path: Path) -> None:
    output = good(*(write(tmp_path / name, REPA, seed=index) for index, name in enumerate("abc")))
    assert words("metric A B B - A C C - A") in [words(line) for line in output.splitlines()]
    assert words("seed 0 1 2") in [words(line) for line in output.splitlines()]


def test_as_json(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", REPA), write(tmp_path / "b", REPA, count=10_000, date="2000-01-03")
    found = json.loads(good(a, b, "--json"))
    assert [(one["name"], one["file"]) for one in found["results"]] == [("A", str(a)), ("B", str(b))]
    assert found["results"][0]["metrics"] == REPA["metrics"]
    assert found["differences"]["fid"] == {"B": {"value": 0.0, "error": 0.021 * 2**0.5, "beyond_noise": False}}
    assert found["differences"]["kid"] == {"B": None}
    assert found["not_comparable_because"] == ["samples 50,000 and 10,000"]
    assert found["settings"] == {"count": [50_000, 10_000]}
    assert found["circumstances"] == {"date": ["2000-01-01", "2000-01-03"]}


def test_as_markdown(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", REPA), write(tmp_path / "b", REPA, labels="balanced")
    table = markdown_table([read_result(a), read_result(b)])
    assert good(a, b, "--markdown") == f"{table}\n\nNot comparable, because labels random and balanced.\n"
    assert good(a, a, "--markdown") == markdown_table([read_result(a)] * 2) + "\n"


def test_a_picture(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", REPA), write(tmp_path / "b", REPA)
    picture = tmp_path / "curve.png"
    assert good(a, b, "--plot", picture).splitlines()[-1] == f"picture: {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")
    json.loads(good(a, b, "--plot", picture, "--json"))
    assert "do not go in one picture" in bad(a, write(tmp_path / "c", DIGITS), "--plot", picture)
    assert "a picture ends in .png" in bad(a, b, "--plot", tmp_path / "x.txt")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    a = write(tmp_path / "a", REPA)
    assert bad(a) == f"a comparison takes two results at least, not 1: add another to {a}"
    assert "there is no file" in bad(a, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "holds no result.json" in bad(a, tmp_path / "empty")
    assert "give one of them" in bad(a, a, "--json", "--markdown")
    assert run().exit_code == 2
