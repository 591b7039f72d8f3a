"""`hastezoo sample --prompt`: files, repetition, interruption, and every kind of bad prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

import hastezoo
from tests.cli.prompted import images, record, refused, run
from tests.clip import save_clip
from tests.text_models import write_text_checkpoint

FAST = ("--model", "tiny-text", "--steps", "2", "--device", "cpu")


@pytest.fixture(autouse=True)
def checkpoint(
    own_home: Path, tiny_clip: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small model in the user's store; commands run in an empty folder."""
    write_text_checkpoint(own_home, tiny_clip, tiny_vae)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def made(*arguments: str) -> Result:
    result = run(*FAST, *arguments)
    assert result.exit_code == 0, result.output
    return result


def test_prompts_times_seeds_in_the_order_given() -> None:
    made("--prompt", "a red bus", "--prompt", " two   cats ", "-n", "2", "--seed", "5", "--out", "x")
    assert list(images()) == [
        "00000_a-red-bus_seed5.png", "00001_a-red-bus_seed6.png",
        "00002_two-cats_seed5.png", "00003_two-cats_seed6.png",
    ]  # fmt: skip
    rows = record()["samples"]
    assert [(row["prompt"], row["seed"]) for row in rows] == [
        ("a red bus", 5), ("a red bus", 6), ("two cats", 5), ("two cats", 6),
    ]  # fmt: skip
    assert "class" not in rows[0]
    wanted = hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu")(
        prompts=["a red bus", "a red bus", "two cats", "two cats"], seeds=[5, 6, 5, 6], steps=2, batch_size=4
    )
    for path, pixels in zip(sorted(Path("x").glob("0*.png")), wanted.pixels, strict=True):
        # the command's batches are smaller, which may tip a byte
        assert np.abs(np.asarray(Image.open(path)).astype(int) - pixels).max() <= 1


def test_the_grid_says_what_each_row_was_to_be() -> None:
    """Two rows of three images with a line of text each; or, an image a prompt, a line under each image."""
    made("--prompt", "a red bus", "--prompt", "two cats", "-n", "3", "--out", "x")
    made("--prompt", "a red bus", "--prompt", "two cats", "--out", "y")
    rows, cells = (np.asarray(Image.open(f"{folder}/grid.png").convert("RGB")) for folder in "xy")
    line, side = 18, 64  # 32 px, shown twice as large
    assert rows.shape == (2 * (side + 2 + line) + 2, 3 * (side + 2) + 2, 3)
    assert cells.shape == (side + 2 + line + 2, 2 * (side + 2) + 2, 3)
    under = rows[2 + side : 2 + side + line]
    assert under.max() > 150 and under[:, 150:].max() == 40, "the text is at the left, and the rest is ground"
    second = rows[2 * (side + 2) + line : 2 * (side + 2) + 2 * line]
    assert second.max() > 150 and not np.array_equal(second, under), "the second row has its own"
    for left in (0, side + 2):
        assert cells[2 + side : 2 + side + line, left : left + side].max() > 150


def test_from_makes_the_same_again_and_needs_the_same_encoder(tmp_path: Path) -> None:
    made("--prompt", "a cat", "--negative", "a bus", "--cfg", "3", "-n", "3", "--batch-size", "2", "--out", "a")
    assert record("a")["request"]["negative"] == "a bus"
    assert run("--from", "a/samples.json", "--out", "b").exit_code == 0
    assert images("a") == images("b") and len(images("a")) == 3
    content = record("a")
    other = save_clip(tmp_path / "other", width=32, seed=9)
    content["request"]["text_encoder"] = str(other)
    Path("other.json").write_text(json.dumps(content))
    result = run("--from", "other.json", "--out", "c")
    assert result.exit_code == 2 and "was made with another text encoder" in result.output
    assert "leave out --prompt" in run("--from", "a/samples.json", "--prompt", "x").output


def test_an_interrupted_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from hastezoo.pipeline import Pipeline

    options = ("--prompt", "a cat", "--prompt", "a bus", "-n", "2", "--batch-size", "1")
    made(*options, "--out", "whole")
    draw, drawn = Pipeline.draw, list[str]()

    def stopping(self: Pipeline, prompts: list[str], *rest: Any, **more: Any) -> Any:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.extend(prompts)
        return draw(self, prompts, *rest, **more)

    monkeypatch.setattr(Pipeline, "draw", stopping)
    assert run(*FAST, *options, "--out", "x").exit_code == 130
    assert len(images()) == 3 and drawn == ["a cat", "a cat", "a bus"]
    monkeypatch.setattr(Pipeline, "draw", draw)
    assert "3 were there" in made(*options, "--out", "x").output
    assert images() == images("whole")
    assert "nothing to do" in made(*options, "--out", "x").output
    assert "made with other settings" in run(*FAST, "--prompt", "a dog", "--out", "x").output


def test_the_same_command_has_the_same_folder_and_another_prompt_another() -> None:
    for _ in range(2):
        made("--prompt", "a cat")
    made("--prompt", "a bus")
    made("--prompt", "a cat", "--negative", "a bus")
    assert len(list(Path("outputs").iterdir())) == 3


def test_the_negative_prompt_reaches_the_images() -> None:
    drawn = {}
    for number, options in enumerate([(), ("--negative", "a bus"), ("--negative", ""), ("--negative", " a  bus ")]):
        made("--prompt", "a cat", "--cfg", "4", *options, "--out", str(number))
        (drawn[number],) = images(str(number)).values()
    assert drawn[0] == drawn[2] and drawn[1] == drawn[3] and drawn[0] != drawn[1]


def test_npz_numbers_the_prompts() -> None:
    made("--prompt", "a cat", "--prompt", "a bus", "-n", "2", "--format", "npz", "--out", "x")
    with np.load("x/samples.npz") as arrays:
        assert arrays["arr_0"].shape == (4, 32, 32, 3) and arrays["arr_1"].tolist() == [0, 0, 1, 1]
    assert record()["request"]["prompts"] == ["a cat", "a bus"]


def test_a_folder_of_drawn_prompts_can_be_measured() -> None:
    from hastezoo.evaluation.images import open_images

    made("--prompt", "a cat", "--prompt", "a bus", "-n", "2", "--out", "x")
    found = open_images("x")
    assert found.count == 4 and found.shape == (32, 32, 3) and found.labels is None


def test_prompts_from_a_file() -> None:
    Path("prompts.txt").write_text("\ufeffa cat\n\n  a red\tbus\r\na cat\n", encoding="utf-8")
    result = made("--prompts", "prompts.txt", "--out", "x")
    assert [row["prompt"] for row in record()["samples"]] == ["a cat", "a red bus"]
    assert 'warning: prompts that are repeated are drawn once (1 more, such as "a cat")' in result.output


# What was typed, what is drawn from, what is said about it.
PROMPTS = {
    "empty": ("", "", "without text"),
    "spaces": ("   ", "", "without text"),
    "long": ("cat " * 2500, "cat " * 2499 + "cat", "tokens"),
    "one endless word": ("x" * 10_000, "x" * 10_000, "tokens"),
    "lines": ("a cat\non a\tmat", "a cat on a mat", ""),
    "right to left": ("قطة على سجادة", "قطة على سجادة", "English"),
    "another script": ("一只猫坐在垫子上", "一只猫坐在垫子上", "English"),
    "another language": ("eine Katze auf der Matte", "eine Katze auf der Matte", ""),
    "emoji": ("a cat 🐈 on a mat", "a cat 🐈 on a mat", ""),
    "markup": ('<b>"cat"</b>; rm -rf ../..', '<b>"cat"</b>; rm -rf ../..', ""),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "one endless word" else name for name in PROMPTS]
)
def test_unusual_prompts(name: str) -> None:
    typed, drawn, said = PROMPTS[name]
    result = made("--prompt", typed, "--out", "x")
    (row,) = record()["samples"]
    assert row["prompt"] == drawn
    assert ("warning: " in result.output) == bool(said) and said in result.output, result.output
    (file,) = images()
    assert file.isascii() and file.startswith("00000_") and len(file) < 80 and set('/\\<>" ').isdisjoint(file)
    assert Image.open(Path("x") / file).size == (32, 32)
    assert len(result.output) < 1500, "a long prompt is not shown at length"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "tiny-text draws from text: say what with --prompt"),
        (("--class", "3", "--prompt", "a cat"), "leave out --class"),
        (("--prompt", "a\x00b"), "U+0000"),
        (("--prompt", "a\x1b[31mb"), "U+001B"),
        (("--prompt", "a \udcff"), "U+DCFF"),
        (("--prompt", "a cat", "--negative", "b\x07"), "U+0007"),
        (("--prompt", "a" * 200_000), "100,000"),
        (("--prompts", "nowhere.txt"), "nowhere.txt"),
        (("--prompts", "."), "folder"),
        (("--prompt", "a cat", "--prompts", "nowhere.txt"), "leave out --prompt"),
        (("--prompt", "a cat", "--text-encoder", "nowhere"), "nowhere"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*FAST, *arguments)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no prompts"), (b"\n \n", "no prompts"), (b"a cat\n\xff\xfe\n", "UTF-8"), (b"a cat\na\x00b\n", "line 2")],
)
def test_bad_files_of_prompts(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    output = refused(*FAST, "--prompts", str(file))
    assert words in output and "prompts.txt" in output


@pytest.mark.parametrize("option", ["--prompt", "--prompts", "--negative"])
def test_a_model_of_classes_takes_no_text(option: str) -> None:
    assert f"draws classes, not text: leave out {option}" in refused("--device", "cpu", option, "a cat")
    assert "takes no text encoder" in refused("--device", "cpu", "--text-encoder", "x")


def test_a_record_that_somebody_wrote() -> None:
    made("--prompt", "a cat", "--out", "a")
    content = record("a")
    for changes, words in (
        ({"prompts": []}, "draws from prompts, and the request has none"),
        ({"labels": [1]}, "label 1 names none of the 1 prompts"),
        ({"prompts": ["a  cat\x00"]}, "prompt"),
        ({"model": "sit-ti-digits", "weights_sha256": ""}, "text encoder"),
    ):
        bad = {**content, "request": {**content["request"], **changes}}
        Path("bad.json").write_text(json.dumps(bad))
        result = run("--from", "bad.json", "--out", "b")
        assert result.exit_code == 2 and words in result.output.splitlines()[-1], (changes, result.output)
        assert not Path("b").exists()
