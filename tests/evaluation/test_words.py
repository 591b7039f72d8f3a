"""`hastezoo eval-fid` with a model that reads words by itself, and which prompts it takes from where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hastezoo
from hastezoo.conditioning.conditions import Prompts
from hastezoo.conditioning.words import WordNumbers
from hastezoo.errors import UserError
from hastezoo.evaluation.asking import EvaluationAsk
from hastezoo.evaluation.generated import Generated, settings_of
from hastezoo.evaluation.loading import load_pipeline
from hastezoo.evaluation.prompts import PromptList, open_prompts
from hastezoo.zoo.card import Card
from tests.evaluation.commands import eval_fid, measured
from tests.word_models import write_word_checkpoint

FAST = (
    "--model", "tiny-words", "--steps", 2, "--device", "cpu", "--features", "pixels", "--allow-few", "--reference",
    "digits", "--metrics", "fid", "--no-curve",
)  # fmt: skip
LINES = ["a red apple", "two cats", "a blue hat", "red buses", "1 hat", "cherries", "a red apple", "cat cat"]


@pytest.fixture(autouse=True)
def card(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A model of grey pictures of 8 px, as the digits are; commands run in an empty folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return write_word_checkpoint(own_home, in_channels=1)


def write_prompts(*lines: str) -> Path:
    Path("prompts.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Path("prompts.txt")


def listed(*texts: str) -> PromptList:
    return PromptList(list(texts), "here", "as listed")


def test_the_images_are_those_of_the_prompts() -> None:
    prompts = write_prompts(*LINES)
    result = measured(*FAST, "--prompts", prompts, "-n", 8, "--seed", 3, "--save-samples", "npz")
    pipe = hastezoo.Pipeline.from_pretrained("tiny-words", device="cpu")
    drawn = pipe(prompts=LINES, seeds=range(3, 11), steps=2, batch_size=4).pixels
    assert np.abs(np.load("x/samples-8/samples.npz")["arr_0"].astype(int) - drawn).max() <= 1
    settings = result["settings"]
    assert (settings["protocol"], settings["labels"], settings["prompts"]["rule"]) == ("emoji", None, "as listed")
    assert settings["text_encoder"] is None and settings["text_encoder_sha256"] is None
    assert result["metrics"]["fid"]["value"] > 0
    again = measured(*FAST, "--prompts", prompts, "-n", 8, "--seed", 3)
    assert again["metrics"] == result["metrics"]


def test_bad_input_is_one_line_and_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hastezoo.Pipeline, "draw", None)  # whoever calls it fails
    good, bad = write_prompts(*LINES), Path("bad.txt")
    bad.write_text("a red apple\n\nappel\n", encoding="utf-8")
    for arguments, words in (
        (("-n", 8), "tiny-words draws from text; name its prompts with --prompts"),
        (("-n", 9, "--prompts", good), "has 8 prompts, fewer than the 9 images to draw"),
        (("-n", 8, "--prompts", good, "--labels", "balanced"), "draws from text: leave out --labels"),
        (("-n", 8, "--prompts", good, "--text-encoder", "x"), "reads words by itself: it takes no text encoder"),
        (("-n", 2, "--prompts", bad), 'no word of the prompt "appel" is known; the model knows 12 words; near appel'),
    ):
        result = eval_fid(*FAST, *arguments)
        assert result.exit_code == 2 and words in result.output.splitlines()[-1], result.output
        assert len([line for line in result.output.splitlines() if line.startswith("error")]) == 1


def test_a_prompt_beyond_the_number_need_not_be_known(card: Card) -> None:
    pipe = hastezoo.Pipeline.from_pretrained(card.name, device="cpu")
    prompts = listed("a cat", "two hats", "appel")
    assert Generated(pipe, pipe.protocol(), count=2, prompts=prompts).asked == ["a cat", "two hats"]
    with pytest.raises(UserError, match='no word of the prompt "appel" is known'):
        Generated(pipe, pipe.protocol(), count=3, prompts=prompts)


def test_states_of_a_data_set_are_not_given_to_a_model_of_words(captioned: Path, card: Card) -> None:
    """A prepared data set keeps what CLIP made of its captions, and a model of words reads the captions themselves."""
    prompts = open_prompts(str(captioned))
    assert prompts.encoder is not None
    ask = EvaluationAsk(model=card.name, prompts=str(captioned), device="cpu")

    def quiet(*_: Any) -> None: ...

    import torch

    pipe = load_pipeline(ask, card, torch.device("cpu"), prompts, say=quiet, progress=quiet)
    assert isinstance(pipe.conditions, Prompts) and isinstance(pipe.conditions.encoder, WordNumbers)
    images = Generated(pipe, pipe.protocol(steps=2), count=2, prompts=listed(*prompts.texts[:1], "a cat"))
    assert images.read(0, 2).shape == (2, 8, 8, 1)
    result = measured(*FAST, "--prompts", captioned, "-n", 3)
    assert result["settings"]["prompts"]["rule"] == "coco-frozen" and result["settings"]["text_encoder"] is None


def test_whatever_changes_images_changes_their_identity(card: Card) -> None:
    pipe = hastezoo.Pipeline.from_pretrained(card.name, device="cpu")
    images = Generated(pipe, pipe.protocol(), count=2, prompts=listed("a cat", "two hats"))
    other = Generated(pipe, pipe.protocol(), count=2, prompts=listed("a cat", "two buses"))
    assert images.identity["prompts_sha256"] != other.identity["prompts_sha256"]
    assert images.identity["text_encoder_sha256"] == "" and images.labels is None
    assert images.marks == ["a-cat", "two-hats"] and images.shape == (8, 8, 1)
    settings = settings_of(images, "emoji")
    assert settings["text_encoder"] is None and settings["text_encoder_sha256"] is None and settings["labels"] is None
