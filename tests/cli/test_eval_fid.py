"""`hastezoo eval-fid`: the same numbers whatever the batches, processes and interruptions; and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hastezoo
from hastezoo.data import digits
from hastezoo.evaluation.metrics import frechet_distance
from hastezoo.evaluation.statistics import Moments
from tests.evaluation.commands import eval_fid, measured

FAST = ("--solver", "euler", "--steps", "2", "--device", "cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def drawn(*arguments: Any, out: str = "x") -> dict[str, Any]:
    return measured(*FAST, "--num", "300", *arguments, out=out)


def features(out: str = "x") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((Path(out) / "features").glob("*.safetensors"))}


def refused(*arguments: Any) -> str:
    """The one line of an error."""
    result = eval_fid(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert lines[-1].startswith("error: ") and len([line for line in lines if line.startswith("error")]) == 1, lines
    return lines[-1]


def test_the_distance_is_that_of_the_same_images_drawn_by_hand() -> None:
    found = drawn("--protocol", "digits-nocfg")
    pipeline = hastezoo.Pipeline.from_pretrained(device="cpu")
    pixels = pipeline(seeds=range(300), protocol="digits-nocfg", solver="euler", steps=2).pixels
    wanted = frechet_distance(Moments.of(digits.from_bytes(pixels)), Moments.of(digits.load("all")[0]))
    assert found["metrics"]["fid"]["value"] == pytest.approx(wanted, rel=1e-6)
    assert 0 < found["metrics"]["fid"]["error"] < wanted
    assert Image.open("x/grid.png").size == (8 * 66 + 2, 8 * 66 + 2)
    assert Image.open("x/curve.png").width > 500


def test_what_is_not_given_comes_from_the_figure_on_the_card() -> None:
    """So that a newcomer's first command measures what the card states."""
    settings = drawn()["settings"]
    assert (settings["model"], settings["features"], settings["reference"]["name"]) == (
        "sit-ti-digits-haste", "pixels", "digits",
    )  # fmt: skip
    assert settings["protocol"] == "digits-nocfg" and settings["sampling"]["cfg"] == 1
    assert settings["labels"] == "random" and settings["rounding"] == "nearest" and settings["step"] == 4000
    help_text = " ".join(eval_fid("--help").output.split())
    assert "the protocol's count" in help_text


def test_every_setting_is_recorded() -> None:
    result = drawn("--seed", "5", "--labels", "balanced", "--dtype", "float32", "--batch-size", "64")
    settings = result["settings"]
    assert (settings["seed"], settings["labels"], settings["batch_size"], settings["count"]) == (5, "balanced", 64, 300)
    for key in ("weights_sha256", "extractor", "versions", "device", "date", "command", "samples_identity"):
        assert settings[key], key
    assert settings["versions"]["hastezoo"] == hastezoo.__version__ and "torch" in settings["versions"]
    assert settings["resolution"] == 8 and settings["reference"]["count"] == 1797
    figure = next(one for one in result["expected"] if one["key"] == "fid")
    reasons = "; ".join(figure["reasons"])
    assert figure["value"] == 10.6 and "300 samples instead of 1,797" in reasons and "balanced" in reasons
    assert "steps 2 instead of 25" in reasons


def test_the_table_and_the_row(elsewhere: Path) -> None:
    result = eval_fid(*FAST, "--num", "300", "--out", "x")
    assert "pixel FD" in result.output and "10.6" in result.output and "not comparable, because" in result.output
    assert "x/result.json" in result.output
    row = Path("x/result.md").read_text()
    assert "`sit-ti-digits-haste`" in row and "| 300 |" in row
    assert eval_fid(*FAST, "--num", "300", "--out", "x", "--quiet").output == ""
    assert json.loads(eval_fid(*FAST, "--num", "300", "--out", "x", "--json").stdout)["metrics"]["fid"]["value"] > 0


def test_batches_move_the_last_bits_alone() -> None:
    """The network's sums depend on the batch in their last bits, which can tip a pixel to the next byte."""
    one = drawn("--num", "150", "--batch-size", "1", out="one")["metrics"]
    many = drawn("--num", "150", "--batch-size", "64", out="many")["metrics"]
    assert one["fid"]["value"] == pytest.approx(many["fid"]["value"], rel=1e-4)
    for key in ("precision", "recall"):
        assert abs(one[key]["value"] - many[key]["value"]) <= 1 / 150


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_share_the_work_and_change_no_byte(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(*FAST, "--num", "1100", out="one")
    monkeypatch.setenv("WORLD_SIZE", str(count))
    for rank in reversed(range(count)):  # the one that writes comes last, so that it need not wait
        monkeypatch.setenv("RANK", str(rank))
        result = eval_fid(*FAST, "--num", "1100", "--out", "several")
        assert result.exit_code == 0, result.output
        assert bool(result.output) == (rank == 0)
    assert features("several") == features("one")
    several = json.loads(Path("several/result.json").read_text())
    assert several["metrics"] == whole["metrics"] and several["curve"] == whole["curve"]
    assert several["settings"]["processes"] == count


def test_a_second_command_draws_nothing_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn()
    before = {path: path.stat().st_mtime_ns for path in Path("x/features").iterdir()}
    again = drawn()
    assert before == {path: path.stat().st_mtime_ns for path in Path("x/features").iterdir()}
    assert first["metrics"] == again["metrics"] and not list(Path("x").glob("result-*.json"))


def test_an_interruption_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    from hastezoo.evaluation.generated import Generated

    read = Generated.read

    def interrupted(self: Generated, start: int, stop: int) -> np.ndarray:
        if start >= 500:
            raise KeyboardInterrupt
        return read(self, start, stop)

    whole = drawn("--num", "700", out="whole")
    with monkeypatch.context() as patch:
        patch.setattr(Generated, "read", interrupted)
        result = eval_fid(*FAST, "--num", "700", "--out", "x")
    assert result.exit_code == 130
    assert "interrupted: the features of 500 of 700 images are in x; the same command goes on" in result.output
    assert len(features()) == 1 and not Path("x/result.json").exists()
    assert drawn("--num", "700")["metrics"] == whole["metrics"]


def test_more_images_and_other_references_use_what_is_there() -> None:
    small = drawn("--num", "200")
    grown, first = drawn("--num", "700"), features()
    assert grown["metrics"] == drawn("--num", "700", out="new")["metrics"] and features("new") == first
    other = drawn("--num", "700", "--reference", "digits-test")
    assert features() == first and other["metrics"]["fid"]["value"] != grown["metrics"]["fid"]["value"]
    kept = [json.loads(Path(f"x/result-{number}.json").read_text())["metrics"] for number in (1, 2)]
    assert kept == [small["metrics"], grown["metrics"]], "earlier results are not lost"


def test_other_settings_do_not_overwrite() -> None:
    drawn()
    before = features()
    assert "made with another seed" in refused(*FAST, "--num", "300", "--seed", "1", "--out", "x")
    assert features() == before


def test_images_can_be_kept_and_are_those_that_were_measured() -> None:
    direct = drawn("--save-samples", "npz")
    with np.load("x/samples-300/samples.npz") as archive:
        assert archive["arr_0"].shape == (300, 8, 8, 1) and archive["arr_0"].dtype == np.uint8
        labels = archive["arr_1"]
    assert len(labels) == 300
    again = measured("--samples", "x/samples-300/samples.npz", "--reference", "digits", out="y")
    assert again["metrics"]["fid"] == direct["metrics"]["fid"] and again["settings"]["samples"]
    assert again["metrics"]["precision"] == direct["metrics"]["precision"]
    drawn("--save-samples", "png")
    assert len(list(Path("x/samples-300").glob("0*.png"))) == 300, "kept though the features were there"
    folder = measured("--samples", "x/samples-300", "--reference", "digits", out="z")
    assert folder["metrics"]["fid"]["value"] == pytest.approx(direct["metrics"]["fid"]["value"], rel=1e-9)


def test_a_set_against_itself_is_at_no_distance() -> None:
    found = measured("--samples", "digits", "--reference", "digits")
    assert found["metrics"]["fid"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["metrics"]["precision"]["value"] == found["metrics"]["recall"]["value"] == 1
    assert found["expected"] == []


def test_bad_input_is_one_line(elsewhere: Path) -> None:
    assert "'sit-xl-hast'" in refused("--model", "sit-xl-hast")
    assert "unknown metric 'fd'" in refused("--metrics", "fid,fd")
    assert "--samples measures images that exist; leave out --cfg" in refused("--samples", "digits", "--cfg", "2")
    assert "63 samples are fewer than the 64 dimensions" in refused(*FAST, "--num", "63")
    assert drawn("--num", "63", "--allow-few", out="few")["metrics"]["fid"]["value"] > 0
    assert "--num must be at least 1" in refused("--num", "0")
    assert "--num 1798: " in refused("--samples", "digits", "--reference", "digits", "--num", "1798")
    assert "unknown features 'inceptoin'" in refused(*FAST, "--features", "inceptoin")
    assert "there is no file, folder or name" in refused(*FAST, "--num", "100", "--reference", "nowhere")
    assert "--inception goes with --features inception, not pixels" in refused(
        *FAST, "--num", "100", "--inception", "w.pth"
    )
    assert "batch size '0'" in refused("--samples", "digits", "--reference", "digits", "--batch-size", "0")
    assert "no --reference" in refused("--samples", "digits-test")
    assert not Path("outputs").exists() or not list(Path("outputs").rglob("result.json"))


def test_images_of_another_size_are_refused(elsewhere: Path) -> None:
    np.savez("big.npz", arr_0=np.zeros((80, 16, 16, 1), np.uint8) + np.arange(80, dtype=np.uint8)[:, None, None, None])
    line = refused("--samples", "big.npz", "--reference", "digits", "--features", "pixels", "--allow-few")
    assert "the samples are 16 x 16 pixels, the reference digits is of 8 x 8" in line


def test_jpeg_against_png_is_warned_of(elsewhere: Path) -> None:
    random = np.random.default_rng(0)
    for folder, ending in (("jpeg", "jpg"), ("png", "png")):
        Path(folder).mkdir()
        for index in range(70):
            pixels = random.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{index:02d}.{ending}")
    result = eval_fid("--samples", "jpeg", "--reference", "png", "--features", "pixels", "--out", "x")
    assert result.exit_code == 0, result.output
    assert "warning: the samples are JPEG and the reference is not" in result.output
    alike = eval_fid("--samples", "png", "--reference", "png", "--features", "pixels", "--out", "y")
    assert "warning" not in alike.output


@pytest.mark.slow
def test_two_processes_killed_and_resumed_find_the_same(elsewhere: Path) -> None:
    """With the real launcher. Two threads in one process and one in each of two sum alike in networks this small."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [
        *launch,
        "-m",
        "hastezoo",
        "eval-fid",
        "--solver",
        "euler",
        "--steps",
        "6",
        "-n",
        "1100",
        "--device",
        "cpu",
    ]
    command += ["--batch-size", "50", "--quiet", "--no-curve", "--metrics", "fid"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", "killed"], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while not features("killed") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL and features("killed")
    assert not Path("killed/result.json").exists()
    subprocess.run([*command, "--out", "killed"], env=environment, check=True, timeout=120)
    options = ("--solver", "euler", "--steps", "6", "-n", "1100", "--device", "cpu", "--batch-size", "50", "--no-curve")
    whole = measured(*options, "--metrics", "fid", out="whole")
    assert json.loads(Path("killed/result.json").read_text())["metrics"]["fid"]["value"] == pytest.approx(
        whole["metrics"]["fid"]["value"], rel=1e-4
    )
