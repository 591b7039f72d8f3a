"""`hastezoo sample --prompt` of a model that reads words by itself: files, repetition, and every kind of bad prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import hastezoo
from hastezoo.cli.main import main
from hastezoo.zoo.modelfile import save_model
from tests.cli.prompted import images, record, refused, run
from tests.word_models import random_words, write_word_checkpoint

FAST = ("--model", "tiny-words", "--steps", "2", "--device", "cpu")


@pytest.fixture(autouse=True)
def checkpoint(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small model in the user's store; commands run in an empty folder."""
    write_word_checkpoint(own_home)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def made(*arguments: str) -> Result:
    result = run(*FAST, *arguments)
    assert result.exit_code == 0, result.output
    return result


def test_prompts_times_seeds_in_the_order_given() -> None:
    made("--prompt", "A red bus!", "--prompt", " two   cats ", "-n", "2", "--seed", "5", "--out", "x")
    assert list(images()) == [
        "00000_a-red-bus_seed5.png", "00001_a-red-bus_seed6.png",
        "00002_two-cats_seed5.png", "00003_two-cats_seed6.png",
    ]  # fmt: skip
    assert [(row["prompt"], row["seed"]) for row in record()["samples"]] == [
        ("A red bus!", 5), ("A red bus!", 6), ("two cats", 5), ("two cats", 6),
    ]  # fmt: skip
    wanted = hastezoo.Pipeline.from_pretrained("tiny-words", device="cpu")(
        prompts=["a red bus", "a red bus", "two cats", "two cats"], seeds=[5, 6, 5, 6], steps=2, batch_size=4
    )
    for path, pixels in zip(sorted(Path("x").glob("0*.png")), wanted.pixels, strict=True):
        # the command's batches are smaller, which may tip a byte
        assert np.abs(np.asarray(Image.open(path)).astype(int) - pixels).max() <= 1


def test_from_makes_the_same_again_and_names_no_encoder() -> None:
    made("--prompt", "a cat", "--negative", "a bus", "--cfg", "3", "-n", "3", "--batch-size", "2", "--out", "a")
    request = record("a")["request"]
    assert request["text_encoder"] is None and request["text_encoder_sha256"] == "" and request["negative"] == "a bus"
    assert run("--from", "a/samples.json", "--out", "b").exit_code == 0
    assert images("a") == images("b") and len(images("a")) == 3
    assert record("b")["request"] == request
    content = record("a")
    content["request"]["text_encoder"] = "somewhere"
    Path("other.json").write_text(json.dumps(content))
    result = run("--from", "other.json", "--out", "c")
    assert result.exit_code == 2 and "tiny-words reads words by itself: it takes no text encoder" in result.output
    assert not Path("c").exists()


def test_the_negative_prompt_reaches_the_images() -> None:
    drawn = {}
    for number, options in enumerate([(), ("--negative", "a bus"), ("--negative", ""), ("--negative", "A buses, zzz")]):
        made("--prompt", "a cat", "--cfg", "4", *options, "--out", str(number))
        (path,) = Path(str(number)).glob("0*.png")
        drawn[number] = np.asarray(Image.open(path)).tobytes()
    assert drawn[0] == drawn[2] and drawn[1] == drawn[3] and drawn[0] != drawn[1]


def test_prompts_with_the_same_known_words_are_the_same_pixels_and_each_is_drawn() -> None:
    made("--prompt", "red apple", "--prompt", "The RED, ripe apples", "--prompt", "apple red", "--out", "x")
    pixels = [np.asarray(Image.open(Path("x") / name)) for name in images()]
    assert len(pixels) == 3 and np.array_equal(pixels[0], pixels[1]) and not np.array_equal(pixels[0], pixels[2])


# What is typed, how it is recorded, and what is said of it.
PROMPTS = {
    "empty": ("", "", ["the prompt is empty: drawn without text"]),
    "spaces": ("   ", "", ["the prompt is empty: drawn without text"]),
    "known": ("A red apple", "A red apple", []),
    "long": ("red apple " * 1000, ("red apple " * 1000).strip(), ["2,000 words are known and the first 6 are read"]),
    "one word again and again": ("cat cat cat", "cat cat cat", []),
    "some unknown": ("a ripe red appel", "a ripe red appel", ["not known and left out: ripe, appel; near "]),
    "marks": ("Red-apple's? (two) cats!", "Red-apple's? (two) cats!", []),
    "accents": ("pin\u0303ata, PIÑATA", "piñata, PIÑATA", []),
    "digits": ("1 cat", "1 cat", []),
    "singular": ("cherry", "cherry", []),
    "plural": ("hats and buses", "hats and buses", ["not known and left out: and"]),
    "another script beside": ("红 red 🐈", "红 red 🐈", ["not known and left out: 红\n"]),
    "lines": ("a cat\n\ta hat", "a cat a hat", []),
    "markup": (
        '<b>"cat"</b>; rm -rf ../..',
        '<b>"cat"</b>; rm -rf ../..',
        ["not known and left out: b, rm, rf"],
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_unusual_prompts(name: str) -> None:
    typed, drawn, said = PROMPTS[name]
    result = made("--prompt", typed, "--no-grid", "--out", "x")
    (row,) = record()["samples"]
    assert row["prompt"] == drawn
    assert result.output.count("warning: ") == len(said) and all(one in result.output for one in said), result.output
    (file,) = images()
    assert file.isascii() and file.startswith("00000_") and len(file) < 80 and set('/\\<>" ').isdisjoint(file)
    assert Image.open(Path("x") / file).size == (8, 8)
    assert len(result.output) < 1500, "a long prompt is not shown at length"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "tiny-words draws from text: say what with --prompt"),
        (("--class", "3", "--prompt", "a cat"), "leave out --class"),
        (("--prompt", "appel"), 'no word of the prompt "appel" is known; the model knows 12 words; near appel: apple'),
        (("--prompt", "a cat", "--prompt", "qqq"), 'no word of the prompt "qqq" is known; the model knows 12 words\n'),
        (
            ("--prompt", "кот на автобусе"),
            'no word of the prompt "кот на автобусе" is known; the model knows 12 words\n',
        ),
        (("--prompt", "一只猫"), 'no word of the prompt "一只猫" is known; the model knows 12 words\n'),
        (("--prompt", "قطة"), 'no word of the prompt "قطة" is known; the model knows 12 words\n'),
        (("--prompt", "🐈"), 'the prompt "🐈" has no word; the model knows 12 words\n'),
        (("--prompt", "..."), 'the prompt "..." has no word'),
        (("--prompt", "x" * 10_000), "is known; the model knows 12 words\n"),
        (("--prompt", "a cat", "--negative", "zzz"), 'no word of the prompt "zzz" is known'),
        (("--prompt", "a\x00b"), "U+0000"),
        (("--prompt", "red\x1b[31m"), "U+001B"),
        (("--prompt", "a \udcff"), "U+DCFF"),
        (("--prompt", "a cat", "--negative", "hat\x07"), "U+0007"),
        (("--prompt", "cat " * 50_000), "100,000"),
        (
            ("--prompt", "a cat", "--text-encoder", "nowhere"),
            "tiny-words reads words by itself: it takes no text encoder",
        ),
        (("--prompt", "a cat", "--vae", "nowhere"), "takes no autoencoder"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*FAST, *arguments)


def test_a_file_with_a_prompt_of_unknown_words_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\nappel\n", encoding="utf-8")
    assert 'no word of the prompt "appel" is known' in refused(*FAST, "--prompts", str(file))


def test_own_weights_are_judged_by_their_own_words(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_model(path, random_words(1, words=["green", "frog"]), "word_mmdit")
    own = ("--weights", str(path))
    assert 'no word of the prompt "a red cat" is known; the model knows 2 words' in refused(
        *FAST, *own, "--prompt", "a red cat"
    )
    assert 'no word of the prompt "cat" is known' in refused(*FAST, *own, "--prompt", "a frog", "--negative", "cat")
    result = made(*own, "--prompt", "green frogs, red cats", "--out", "x")
    assert "not known and left out: red, cats" in result.output
    assert run("--from", "x/samples.json", "--out", "y").exit_code == 0
    assert images("x") == images("y")


def test_what_is_told_of_the_checkpoint_and_its_file(own_home: Path) -> None:
    result = CliRunner().invoke(main, ["info", "tiny-words"])
    assert result.exit_code == 0 and "12 words of its own (a ... pinata)" in " ".join(result.output.split())
    result = CliRunner().invoke(main, ["verify", "tiny-words"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(main, ["info", str(own_home / "cards" / "tiny-words.safetensors")])
    assert result.exit_code == 0 and "word_mmdit" in result.output, result.output
