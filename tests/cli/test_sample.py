"""`hastezoo sample`: files, repetition, interruption and every kind of bad input."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hastezoo.cli.main import main
from hastezoo.errors import UserError
from hastezoo.zoo import registry

FAST = ("--steps", "2", "--device", "cpu")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sample", *arguments])


def made(*arguments: str) -> Result:
    result = run(*FAST, *arguments)
    assert result.exit_code == 0, result.output
    return result


def content(folder: Path, but: tuple[str, ...] = ("samples.json",)) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in but}


def test_conditions_times_seeds_in_the_order_given(elsewhere: Path) -> None:
    made("--class", "7", "--class", "two", "-n", "3", "--seed", "5", "--out", "x")
    names = sorted(path.name for path in Path("x").glob("0*.png"))
    assert names == [
        "00000_class7_seed5.png", "00001_class7_seed6.png", "00002_class7_seed7.png",
        "00003_class2_seed5.png", "00004_class2_seed6.png", "00005_class2_seed7.png",
    ]  # fmt: skip
    record = json.loads(Path("x/samples.json").read_text())
    assert [row["name"] for row in record["samples"]] == ["seven"] * 3 + ["two"] * 3
    assert record["spent"]["images"] == 6 and record["spent"]["evaluations"] == 3
    assert Image.open("x/grid.png").size == (3 * 66 + 2, 2 * 66 + 2)


def test_images_are_the_pipelines(elsewhere: Path) -> None:
    import hastezoo

    made("--class", "3", "--seeds", "1,9", "--batch-size", "2", "--out", "x")
    wanted = hastezoo.Pipeline.from_pretrained(device="cpu")(classes=3, seeds=[1, 9], steps=2).pixels
    for path, pixels in zip(sorted(Path("x").glob("0*.png")), wanted, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), pixels[:, :, 0])


def test_without_a_class_labels_come_from_the_seeds(elsewhere: Path) -> None:
    made("-n", "4", "--out", "x")
    record = json.loads(Path("x/samples.json").read_text())
    assert [row["class"] for row in record["samples"]] == [0, 8, 4, 5]


def test_same_command_same_bytes_and_nothing_done_twice(elsewhere: Path) -> None:
    made("-n", "5", "--out", "a")
    made("-n", "5", "--out", "b")
    assert content(Path("a")) == content(Path("b"))
    before = {path: path.stat().st_mtime_ns for path in Path("a").iterdir()}
    assert "nothing to do" in made("-n", "5", "--out", "a").output
    assert before == {path: path.stat().st_mtime_ns for path in Path("a").iterdir()}


@pytest.mark.parametrize("format", ["png", "webp", "npz"])
def test_from_makes_the_same_again(elsewhere: Path, format: str) -> None:
    made("-n", "5", "--solver", "euler-maruyama", "--cfg", "1.5", "--interval", "0.1", "0.9", "--batch-size", "2",
         "--format", format, "--out", "a")  # fmt: skip
    result = run("--from", "a/samples.json", "--out", "b")
    assert result.exit_code == 0, result.output
    assert content(Path("a")) == content(Path("b")) and len(content(Path("a"))) == (2 if format == "npz" else 6)


def test_from_refuses_other_weights_and_further_settings(elsewhere: Path) -> None:
    made("--out", "a")
    record = json.loads(Path("a/samples.json").read_text())
    record["request"]["weights_sha256"] = "0" * 64
    Path("other.json").write_text(json.dumps(record))
    refused = run("--from", "other.json", "--out", "b")
    assert refused.exit_code == 2 and "other weights" in refused.output
    assert "leave out --steps" in run("--from", "a/samples.json", "--steps", "3").output


def test_from_goes_to_the_recorded_device_unless_told(elsewhere: Path) -> None:
    made("--out", "a")
    record = json.loads(Path("a/samples.json").read_text())
    record["request"]["device"] = "cuda:99"
    Path("other.json").write_text(json.dumps(record))
    refused = run("--from", "other.json", "--out", "b")
    assert refused.exit_code == 2 and "device 'cuda:99' is not there" in refused.output
    assert run("--from", "other.json", "--device", "cpu", "--out", "b").exit_code == 0
    assert content(Path("a")) == content(Path("b"))


def test_webp_is_lossless(elsewhere: Path) -> None:
    made("-n", "2", "--out", "a")
    made("-n", "2", "--format", "webp", "--out", "b")
    for first, second in zip(sorted(Path("a").glob("0*")), sorted(Path("b").glob("0*")), strict=True):
        assert np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second).convert("L")))
    assert Path("a/grid.png").read_bytes() == Path("b/grid.png").read_bytes()


def test_npz_holds_all_images_and_labels(elsewhere: Path) -> None:
    made("-n", "7", "--batch-size", "3", "--format", "npz", "--out", "a")
    made("-n", "7", "--batch-size", "3", "--out", "b")
    with np.load("a/samples.npz") as arrays:
        images, labels = arrays["arr_0"], arrays["arr_1"]
    assert images.shape == (7, 8, 8, 1) and images.dtype == np.uint8 and labels.dtype == np.int64
    for index, path in enumerate(sorted(Path("b").glob("0*.png"))):
        assert np.array_equal(images[index, :, :, 0], np.asarray(Image.open(path)))
        assert f"class{labels[index]}_" in path.name
    assert sorted(content(Path("a"))) == ["grid.png", "samples.npz"]


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_trajectory_goes_from_noise_to_the_images(elsewhere: Path, kind: str) -> None:
    made("--class", "1", "-n", "4", "--steps", "6", "--trajectory", kind, "--out", "a")
    animation: Any = Image.open(f"a/trajectory.{kind}")
    assert animation.n_frames == 7
    animation.seek(6)
    last = np.asarray(animation.convert("L"), dtype=int)
    # The animation is as square as can be, the grid of one class likewise.
    assert np.abs(last - np.asarray(Image.open("a/grid.png"), dtype=int)).max() <= 1
    animation.seek(0)
    assert np.abs(np.asarray(animation.convert("L"), dtype=int) - last).mean() > 30


def test_a_folder_whose_job_failed_before_its_first_image_is_free(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hastezoo.pipeline import Pipeline

    def fail(*_: Any, **more: Any) -> Any:
        raise UserError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "draw", fail)
        assert run(*FAST, "--class", "1", "--batch-size", "9", "--out", "a").exit_code == 2
    made("--class", "1", "--batch-size", "1", "--out", "a")


@pytest.mark.parametrize("out", [(), ("--out", "a")])
def test_auto_goes_on_with_the_batch_size_it_began_with(
    elsewhere: Path, out: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([4, 2, 2])
    monkeypatch.setattr("hastezoo.pipeline.fitting_batch_size", lambda *_: next(sizes))
    made("-n", "5", *out)
    assert "nothing to do" in made("-n", "5", *out).output
    record = next(iter([*Path(".").glob("a/samples.json"), *Path(".").glob("outputs/*/samples.json")]))
    assert json.loads(record.read_text())["request"]["batch_size"] == 4
    if out:  # asked for, another batch size is another request
        assert "other settings" in run(*FAST, "-n", "5", "--batch-size", "2", *out).output


def test_no_grid_and_quiet(elsewhere: Path) -> None:
    assert made("--no-grid", "--quiet", "--out", "a").output == ""
    assert sorted(path.name for path in Path("a").iterdir()) == ["00000_class0_seed0.png", "samples.json"]


def test_default_folder_differs_with_the_settings(elsewhere: Path) -> None:
    made("--class", "1")
    made("--class", "2")
    assert len(list(Path("outputs").iterdir())) == 2


def test_another_request_does_not_enter_a_folder(elsewhere: Path) -> None:
    made("--class", "1", "--out", "a")
    before = content(Path("a"), but=())
    refused = run(*FAST, "--class", "2", "--out", "a")
    assert refused.exit_code == 2 and "other settings" in refused.output
    assert content(Path("a"), but=()) == before


@pytest.mark.parametrize("format", ["png", "npz"])
def test_interrupted_run_makes_only_what_is_missing(
    elsewhere: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hastezoo.pipeline import Pipeline

    arguments = ("-n", "9", "--batch-size", "2", "--format", format)
    made(*arguments, "--out", "whole")
    draw, drawn = Pipeline.draw, []

    def interrupted_draw(self: Pipeline, labels: list[int], *rest: Any, **more: Any) -> Any:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(len(labels))
        return draw(self, labels, *rest, **more)

    monkeypatch.setattr(Pipeline, "draw", interrupted_draw)
    stopped = run(*FAST, *arguments, "--out", "a")
    assert stopped.exit_code == 130 and "interrupted: 4 of 9 images" in stopped.output
    if format == "png":  # as if the kill had come in the middle of writing a batch
        (Path("a") / "00003_class5_seed3.png").unlink()
        (Path("a") / ".00003_class5_seed3.png.1.partial").write_bytes(b"half")
    else:
        (Path("a") / "parts" / ".000000004.npy.1.partial").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in Path("a").glob("0*")}
    drawn.clear()
    monkeypatch.setattr(
        Pipeline,
        "draw",
        lambda self, labels, *rest, **more: drawn.append(len(labels)) or draw(self, labels, *rest, **more),
    )
    made(*arguments, "--out", "a")
    assert drawn == ([2, 2, 2, 1] if format == "png" else [2, 2, 1])
    assert content(Path("a")) == content(Path("whole"))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.parametrize("format", ["png", "npz"])
def test_memory_does_not_grow_with_the_number_of_images(
    elsewhere: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """800 colour images of 128 px are 39 MB; at most a grid of 100 (5 MB, twice) may be held."""
    import tracemalloc

    from hastezoo.job import Job
    from hastezoo.pipeline import Batch, Pipeline
    from hastezoo.request import Request

    pipeline = Pipeline.from_pretrained(device="cpu")

    def draw(labels: list[int], seeds: list[int], *rest: Any, **more: Any) -> Batch:
        pixels = np.stack([np.full((128, 128, 3), seed % 256, dtype=np.uint8) for seed in seeds])
        return Batch(pixels, labels, seeds, 1, 1)

    monkeypatch.setattr(pipeline, "draw", draw)
    seeds = list(range(800))
    request = Request(
        model="sit-ti-digits", weights_sha256="", protocol=pipeline.protocol(), labels=[0] * 800, seeds=seeds,
        batch_size=8, device="cpu", dtype="float32", format=format,
    )  # fmt: skip
    tracemalloc.start()
    report = Job(pipeline, request, Path("a")).run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.made == 800 and peak < 20e6
    if format == "npz":
        with np.load("a/samples.npz") as arrays:
            assert arrays["arr_0"][:, 0, 0, 0].tolist() == [seed % 256 for seed in seeds]


# Batches take a moment, so that the signal meets it at work however fast the machine is.
SLOW = """
import signal, time
from hastezoo.cli.main import main
from hastezoo.pipeline import Pipeline
draw = Pipeline.draw
Pipeline.draw = lambda self, *rest, **more: (time.sleep(0.2), draw(self, *rest, **more))[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
main(prog_name="hastezoo")
"""


def test_ctrl_c_and_again(elsewhere: Path) -> None:
    """A real process, a real SIGINT; the same command goes on in this process, as importing takes seconds."""
    arguments = ("-n", "160", "--batch-size", "8", "--out", "a")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "sample", *FAST, *arguments], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(Path("a").glob("0*.png"))) <= 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)  # a whole batch, and more
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr is not None and "the same command goes on" in process.stderr.read()
    found = {path: path.stat().st_mtime_ns for path in Path("a").glob("0*.png")}
    assert 0 < len(found) < 160 and not list(Path("a").glob(".*"))
    # Fewer images would be another request, so the rest is made with the same command.
    assert "were there" in made(*arguments, "--no-grid").output
    assert len(list(Path("a").glob("0*.png"))) == 160
    assert found == {path: path.stat().st_mtime_ns for path in found}


BAD_INPUT = {
    "unknown model": (("--model", "sit-ti-digit"), "nearest: sit-ti-digits"),
    "class out of range": (("--class", "10"), "the model has 10 classes"),
    "unknown class": (("--class", "sevn"), "nearest: seven"),
    "class twice": (("--class", "3", "--class", "three"), "class 3 is asked for twice"),
    "no steps": (("--steps", "0"), "steps: input should be greater than or equal to 1 (given: 0)"),
    "interval": (("--interval", "0.7", "0.2"), "interval (0.7, 0.2) is not"),
    "negative seed": (("--seed", "-1"), "--seed must be at least 0"),
    "seed range": (("--seeds", "5-2"), "--seeds '5-2': the range '5-2' is empty, too long"),
    "seed twice": (("--seeds", "0-3,2"), "--seeds '0-3,2' names a seed twice"),
    "no seed": (("--seeds", "a"), "--seeds 'a': 'a' is no seed"),
    "huge seed": (("--seed", str(2**63)), "--seed must be at least 0 and below"),
    "huge seeds": (("--seeds", str(2**63)), "too large"),
    "seeds and n": (("--seeds", "1", "-n", "2"), "leave out -n"),
    "no images": (("-n", "0"), "-n must be in"),
    "no cuda": (("--device", "cuda"), "device 'cuda' is not there"),
    "unknown device": (("--device", "abacus"), "unknown device 'abacus'"),
    "unknown dtype": (("--dtype", "int8"), "one of float32"),
    "unknown solver": (("--solver", "eler"), "(given: 'eler')"),
    "infinite cfg": (("--cfg", "inf"), "cfg"),
    "batch size": (("--batch-size", "none"), "neither a number"),
    "sbdm": (("--solver", "euler-maruyama", "--diffusion", "sbdm"), "infinite at t = 1"),
    "protocol": (("--protocol", "sit-od"), "nearest: sit-ode"),
    "weights": (("--weights", "nothing.safetensors"), "there is no file nothing.safetensors"),
    "from": (("--from", "nothing.json"), "cannot read nothing.json"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(elsewhere: Path, case: str) -> None:
    import torch

    arguments, message = BAD_INPUT[case]
    if case == "no cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    result = run(*arguments)
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not list(elsewhere.iterdir())


def test_unwritable_output(elsewhere: Path) -> None:
    Path("file").write_text("in the way")
    result = run(*FAST, "--out", "file/inside")
    assert result.exit_code == 2 and result.output.startswith("error: cannot write to file/inside")
    assert [path.name for path in elsewhere.iterdir()] == ["file"]


def test_corrupted_embedded_file(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = registry.find_card("sit-ti-digits").model_copy()
    assert card.weights_path is not None
    Path("broken").mkdir()
    data = bytearray(card.weights_path.read_bytes())
    data[5000] ^= 255
    Path("broken/sit-ti-digits.safetensors").write_bytes(data)
    card._folder = Path("broken")
    monkeypatch.setattr("hastezoo.pipeline.find_card", lambda name: card)
    result = run(*FAST, "--out", "a")
    assert result.exit_code == 2 and "corrupted (sha256" in result.output and len(result.output.splitlines()) == 1
    assert not Path("a").exists()


def test_damaged_record_is_refused(elsewhere: Path) -> None:
    made("--out", "good")
    good = json.loads(Path("good/samples.json").read_text())["request"]
    texts = ["{", "[]", "{}", '{"request": {"modell": 1}}']
    for change in ({"seeds": [-1]}, {"seeds": [1, 2]}, {"labels": [10]}, {"labels": []}, {"batch_size": 0}):
        texts.append(json.dumps({"request": {**good, **change}}))
    for text in texts:
        Path("samples.json").write_text(text)
        result = run("--from", "samples.json", "--out", "bad")
        assert result.exit_code == 2 and len(result.output.splitlines()) == 1, result.output
        assert not Path("bad").exists()


def test_full_disk_is_one_line_and_no_half_file(elsewhere: Path) -> None:
    """The system's own limit on the size of a file stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
        result = run(*FAST, "--out", "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith("error: "), result.output
    assert "Traceback" not in result.output and not [path for path in Path("a").rglob("*") if path.is_file()]
