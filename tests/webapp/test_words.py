"""A model that reads words by itself in the app: drawn without a page, and called as a program does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hastezoo.errors import UserError
from hastezoo.pipeline import Pipeline
from hastezoo.webapp import forms
from hastezoo.webapp.studio import Studio
from hastezoo.zoo.card import Card
from tests.webapp.serving import Served
from tests.webapp.test_drawing import draw, drawn
from tests.word_models import write_word_checkpoint

UNREAD = 'no word of the prompt "appel" is known; the model knows 12 words; near appel: apple'


@pytest.fixture(autouse=True)
def card(own_home: Path) -> Card:
    return write_word_checkpoint(own_home)


def test_the_images_are_those_of_the_pipeline(studio: Studio) -> None:
    result = drawn(studio, "tiny-words", prompts="a red apple\n\ntwo CATS!\n", negative="a bus", seed="5")
    assert result.request.prompts == ["a red apple", "two CATS!"] and result.request.text_encoder is None
    pipe = Pipeline.from_pretrained("tiny-words", device="cpu")
    images = [np.asarray(Image.open(path)) for path in result.files]
    expected = pipe(
        prompts=["a red apple", "a red apple", "two CATS!", "two CATS!"], seeds=[5, 6, 5, 6], steps=2,
        negative="a bus", batch_size=result.request.batch_size,
    )  # fmt: skip
    assert np.array_equal(images, expected.pixels)
    assert result.captions[2] == '"two CATS!" · seed 5' and result.notes == []
    assert "encoder" not in result.command + result.script and "--negative" in result.command
    record = json.loads((result.folder / "samples.json").read_text())["request"]
    assert record["text_encoder"] is None


def test_what_is_not_known_is_noted(studio: Studio) -> None:
    result = drawn(studio, "tiny-words", prompts=["a ripe apple", "hat " * 7])
    assert len(result.notes) == 2 and "not known and left out: ripe" in result.notes[0]
    assert "7 words are known and the first 6 are read" in result.notes[1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompts": ["appel"]}, UNREAD),
        ({"prompts": "a cat\n🐈"}, 'the prompt "🐈" has no word; the model knows 12 words'),
        ({"prompts": ["a cat"], "negative": "кот"}, 'no word of the prompt "кот" is known; the model knows 12 words'),
        ({"classes": [3]}, "leave out the classes"),
        ({}, "say what with a prompt"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_takes_no_turn(studio: Studio, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        draw(studio, "tiny-words", **values)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not any(studio.turns.counts().values()) and not studio.shelf.loaded
    assert not list(studio.outputs.images.iterdir())


def test_a_program_is_answered_with_one_line(served: Served) -> None:
    usual = {
        "model": "tiny-words", "classes": [], "prompts": ["appel"], "negative": "", "number": 1, "seed": "0",
        "protocol": "", "solver": "", "steps": 2, "cfg": None, "low": None, "high": None,
    }  # fmt: skip
    (event, answer), *more = served.call("generate", *usual.values())
    assert event == "error" and not more and answer["error"].endswith(UNREAD)
    event, answer = served.call("generate", *{**usual, "prompts": ["apples"]}.values())[-1]
    assert event == "complete" and len(answer[0]["images"]) == 1, answer


def test_it_is_offered_and_described_as_a_model_of_text(studio: Studio, card: Card) -> None:
    from hastezoo.webapp.words import card_line, family

    assert card.name in [one.name for one in studio.cards]
    assert family(card) == "MMDiT, text · 8 px" and "A tiny model of words" in card_line(card)
    form = forms.read(forms.DrawForm, {"model": card.name, "prompts": "a cat\ntwo hats", "number": 3})
    assert form.count == 6
