"""What there is to know of a checkpoint, held against its card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hastezoo.zoo.facts import facts
from hastezoo.zoo.registry import find_card, find_protocol, list_cards, package_cards
from tests.test_imports import HEAVY
from tests.word_models import write_word_checkpoint


@pytest.mark.parametrize("name", package_cards())
def test_every_figure_and_origin_of_a_card_is_there(name: str) -> None:
    card = find_card(name)
    found = facts(card)
    assert found["name"] == name and found["parameters"] == f"{card.parameters:,}"
    results = [str(found[key]) for key in found if key.startswith("result ")]
    assert len(results) == len(card.results)
    for text, result in zip(results, card.results, strict=True):
        assert text.startswith(f"{result.metric} {result.value:g}")
        assert f"{result.kind} by {result.source}" in text and result.note in text
    origins = [str(found[key]) for key in found if key.startswith("origin ")]
    assert len(origins) == len(card.origins)
    assert all(text.startswith(str(origin)) for text, origin in zip(origins, card.origins, strict=True))
    assert ("training" in found) == (card.training is not None)


def test_classes_text_pixels_and_latents_are_told_apart() -> None:
    digits, latents, text = (facts(find_card(name)) for name in ("sit-ti-digits", "sit-xl", "mmdit-coco-haste"))
    assert digits["condition"] == "10 classes (zero ... nine); null label 10"
    assert digits["autoencoder"] == "none: a model of pixels"
    assert "null label 1000" in str(latents["condition"]) and str(latents["autoencoder"]).endswith("1/8")
    assert str(text["condition"]).startswith("text, through ") and "null label" not in str(text["condition"])


def test_a_protocol_is_told_by_what_it_changes_and_its_solver_steps_and_scale() -> None:
    for card in list_cards():
        protocol = find_protocol(card.protocol)
        told = str(facts(card)["protocol"])
        assert told.startswith(f"{card.protocol}: solver {protocol.solver}, steps {protocol.steps}, cfg {protocol.cfg}")
        assert "rtol" not in told
    assert facts(find_card("sit-ti-digits"))["protocol"] == (
        "digits: solver heun, steps 25, cfg 2.0, rounding nearest, count 1000"
    )


def test_weights_say_where_they_are_or_are_to_be_had() -> None:
    here, elsewhere = facts(find_card("sit-ti-digits")), facts(find_card("sit-xl"))
    card = find_card("sit-ti-digits")
    assert card.weights is not None
    assert here["sha256"] == card.weights.sha256 and str(here["status"]).endswith(", on this machine")
    assert "sha256" not in elsewhere and str(elsewhere["status"]).endswith("not on this machine")


def test_facts_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hastezoo.zoo.facts import facts\nfrom hastezoo.zoo.registry import list_cards\n"
        f"print(len([facts(card) for card in list_cards()]), *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == [str(len(list_cards()))], result.stdout + result.stderr


def test_a_model_of_words_is_told_by_how_many_it_knows(own_home: Path) -> None:
    """And not by listing them."""
    found = facts(write_word_checkpoint(own_home))
    assert found["condition"] == (
        "text, 12 words of its own (a ... pinata), the first 6 of a prompt; null condition: the empty prompt"
    )
    built = str(found["architecture"])
    assert built.startswith("word_mmdit (input_size 8, ") and "width 64" in built and "words" not in built
    assert "cherries" not in " ".join(map(str, found.values()))
