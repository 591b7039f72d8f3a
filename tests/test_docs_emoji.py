"""The documents and the card say of the embedded model of words what was measured on its weights."""

from __future__ import annotations

from typing import Any

import pytest

from hastezoo.conditioning.words import split_words
from hastezoo.data.emoji import is_in
from hastezoo.recipes.emoji import TAU, EmojiConfig
from hastezoo.zoo.registry import find_card
from tests.conftest import ROOT
from tests.test_docs_numbers import result_of

CARD = find_card("mmdit-ti-emoji-haste")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return result_of("emoji_quality")


def words_of(document: str) -> str:
    """Its text without line breaks."""
    return " ".join((ROOT / document).read_text().split())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_the_card_holds_what_was_measured_on_these_weights(measured: dict[str, Any]) -> None:
    assert CARD.weights is not None and measured["weights_sha256"] == CARD.weights.sha256
    assert CARD.steps == EmojiConfig().train.steps > TAU
    values = {entry.short: (entry.value, entry.count) for entry in CARD.results}
    assert values == {
        "own name": (round(measured["seen"]["drawn"]["top1"], 3), measured["seen"]["prompts"]),
        "held-out name": (round(measured["held_out"]["drawn"]["top1"], 3), measured["held_out"]["prompts"]),
        "copies": (round(measured["seen"]["copies"], 3), measured["seen"]["prompts"]),
    }
    assert all(entry.kind == "measured" and entry.source == "benchmarks/emoji_quality.py" for entry in CARD.results)


@pytest.mark.parametrize("document", ["README.md", "MODEL_CARD.md"])
def test_numbers_stand_beside_the_picture(document: str, measured: dict[str, Any]) -> None:
    text, seen, held_out = words_of(document), measured["seen"], measured["held_out"]
    for kind, side in (("seen", seen), ("held_out", held_out)):
        assert f"{side['prompts']}" in text, kind
        assert percent(side["drawn"]["top1"]) in text and percent(side["real"]["top1"]) in text, kind
        assert percent(side["copies"]) in text, kind
    assert f"{measured['candidates']:,}" in text


def test_the_page_says_what_was_measured_of_the_pictures(measured: dict[str, Any]) -> None:
    text, seen, held_out = words_of("docs/emoji.md"), measured["seen"], measured["held_out"]
    own, copied = percent(seen["nearest_is_own_name"]), percent(seen["copies"])
    drawn, real = percent(seen["drawn"]["top1"]), percent(seen["real"]["top1"])
    assert f"Of seen names {drawn} of the pictures are nearest to their own name, of the real ones {real}." in text
    assert f"of {own} the nearest training picture is that of their own name" in text and f"{copied} are copies" in text
    assert own in words_of("MODEL_CARD.md")
    assert f"**Of held-out names** {percent(held_out['drawn']['top1'])} are nearest" in text
    assert f"{percent(held_out['drawn']['top5'])} to one of five" in text
    unseen = measured["real_that_the_judge_never_saw"]
    assert f"Of {unseen['count']} real pictures that it never saw" in text
    assert f"{percent(unseen['top1'])} among {unseen['count'] + measured['candidates']:,} names" in text
    assert f"({percent(unseen['top5'])} among five)" in text
    visits = EmojiConfig().train.steps * EmojiConfig().train.batch_size / 1670
    assert f"{visits:.0f} visits to each name" in text


def test_the_picture_shows_two_dozen_labelled_prompts(measured: dict[str, Any]) -> None:
    kinds = [one["kind"] for one in measured["grid"]]
    assert kinds == 12 * ["trained"] + 6 * ["composed"] + 6 * ["held out"]
    known = set(CARD.config["words"])
    for one in measured["grid"]:
        assert set(split_words(one["prompt"])) <= known, one
        if one["kind"] == "held out":
            assert is_in("held-out", one["prompt"])
    for document in ("README.md", "docs/emoji.md"):
        assert "images/emoji.png" in (ROOT / document).read_text()
    assert (ROOT / "docs" / "images" / "emoji.png").stat().st_size < 300_000


def test_what_was_promised(measured: dict[str, Any]) -> None:
    """It is mostly known what a picture was to be, and eight of them come in less than 20 s on two cores."""
    assert measured["seconds_of_eight"] < 20
    assert f"{measured['seconds_of_eight']:.0f} s" in words_of("docs/emoji.md")
    assert measured["seen"]["drawn"]["top5"] > 0.5


def test_the_page_says_of_the_study_what_came_out() -> None:
    text, found = words_of("docs/emoji.md"), result_of("emoji_study")
    needed = {arm: rows["1000"] for arm, rows in found["steps_needed"].items()}
    assert f"HASTE is after {sum(needed['haste-never']) / 2:.0f} steps where the plain model is after 1000" in text
    assert f"REPA after {sum(needed['repa']) / 2:.0f}" in text
    curves = found["curves"]
    last = {
        arm: {key: sum(seed[-1] for seed in curves[arm][key]) / 2 for key in ("seen_top1", "seen_error", "unseen_loss")}
        for arm in curves
    }
    never, ended, repa, plain = (last[arm] for arm in ("haste-never", "haste-500", "repa", "none"))
    shares = [f"{100 * one['seen_top1']:.1f} %" for one in (never, repa, plain)]
    assert f"of HASTE's {shares[0]} are nearest to their own name, of REPA's {shares[1]}, of the plain" in text
    assert f"model's {shares[2]}" in text
    assert f"({ended['seen_error']:.3f} against {never['seen_error']:.3f})" in text
    assert f"({100 * ended['seen_top1']:.1f} % against {shares[0]})" in text
    losses = [f"{one['unseen_loss']:.3f}" for one in (plain, ended, repa, never)]
    assert (
        f"without text, is {losses[0]} for the plain model, {losses[1]} for HASTE ended at 500, {losses[2]} for REPA "
        f"and {losses[3]} for HASTE that goes on" in text
    )
    cosines = [sum(seed) / 2 for seed in zip(*found["trigger"]["mean_cosine"], strict=True)]
    assert f"falls from {cosines[0]:.2f} to {cosines[-1]:.2f}" in text
    assert found["trigger"]["would_end"] == [None, None]


def test_what_bfloat16_gains_on_a_cpu() -> None:
    step, text = result_of("attention_precision")["step"], words_of("docs/emoji.md")
    ways = ("bfloat16, attention in float32", "bfloat16")
    shares = [f"{step[way]['over float32']:.2f}" for way in ways]
    assert f"In bfloat16 a step takes {shares[0]} of the time it takes in float32" in text
    assert f"in bfloat16 throughout {shares[1]}" in text
