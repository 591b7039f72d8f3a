"""Asking for images: seeds, what is refused before anything is loaded, and the request that comes of it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hastezoo.asking import LARGEST_SEED, MOST_SEEDS, Ask, check, load, make_request, parse_seeds, seeds_from
from hastezoo.conditioning.labels import label_of_seed
from hastezoo.errors import UserError
from hastezoo.pipeline import Pipeline
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import find_card
from tests.text_models import write_text_checkpoint

DIGITS = "sit-ti-digits-haste"


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return load(Ask(device="cpu"))


@pytest.fixture
def text_card(own_home: Path, tiny_clip: Path, tiny_vae: Path) -> Card:
    return write_text_checkpoint(own_home, tiny_clip, tiny_vae)


def said(ask: Ask, card: Card) -> str:
    """The one line that refuses it."""
    with pytest.raises(UserError) as error:
        check(ask, card)
    assert "\n" not in str(error.value) and "--" not in str(error.value), "options are the command line's"
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", [3]), ("0-3", [0, 1, 2, 3]), ("0-2, 40", [0, 1, 2, 40]), ("5-5", [5]), ("9,0-1", [9, 0, 1])],
)
def test_seed_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "1.5", "0-3,2", "9-1", "0-99999999999", str(2**63)])
def test_bad_seed_lists(text: str) -> None:
    with pytest.raises(UserError, match=r"^the list of seeds '"):
        parse_seeds(text)
    with pytest.raises(UserError, match=r"^--seeds '"):
        parse_seeds(text, called="--seeds")


def test_seeds_are_counted_from_the_first() -> None:
    assert seeds_from(5, 3) == [5, 6, 7]
    assert seeds_from(LARGEST_SEED - MOST_SEEDS, 1) == [LARGEST_SEED - MOST_SEEDS]
    for first, number, words in (
        (-1, 1, "the first seed must be at least 0 .*, not -1"),
        (LARGEST_SEED - MOST_SEEDS + 1, 1, "the first seed must be .* below"),
        (0, 0, "the number of images must be in 1.."),
        (0, MOST_SEEDS + 1, "the number of images must be in 1.."),
    ):
        with pytest.raises(UserError, match=f"^{words}"):
            seeds_from(first, number)


def test_nothing_unknown_is_asked_for_and_nothing_changed() -> None:
    with pytest.raises(ValidationError, match="extra"):
        Ask(clas=[3])  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Ask().model = "sit-ti-digits"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"seeds": []}, "no seeds"),
        ({"seeds": [3, -1]}, "not -1"),
        ({"seeds": [2**63, 0]}, f"not {2**63}"),
        ({"seeds": [4, 2, 4]}, "seed 4 is asked for twice"),
        ({"seeds": [2, 2]}, "seed 2 is asked for twice"),
        ({"classes": [3, "three"]}, "class 3 is asked for twice"),
        ({"classes": ["sevn"]}, "nearest: seven"),
        ({"classes": [10]}, "out of range"),
        ({"prompts": ["a cat"]}, "draws classes, not text: leave out prompts"),
        ({"negative": "a cat"}, "leave out the negative prompt"),
    ],
)
def test_what_a_model_of_classes_is_not_asked_for(asked: dict[str, Any], words: str) -> None:
    assert words in said(Ask(**asked), find_card(DIGITS))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "say what with a prompt"),
        ({"classes": [3], "prompts": ["a cat"]}, "leave out the classes"),
        ({"prompts": ["a\x00b"]}, "U+0000"),
        ({"prompts": ["a cat"], "negative": "\x07"}, "U+0007"),
        ({"prompts": ["a cat"], "seeds": []}, "no seeds"),
    ],
)
def test_what_a_model_of_text_is_not_asked_for(asked: dict[str, Any], words: str, text_card: Card) -> None:
    assert words in said(Ask(model=text_card.name, **asked), text_card)


def test_checking_settles_classes_and_prompts_once(text_card: Card) -> None:
    classes = check(Ask(classes=["seven", "2", 0]), find_card(DIGITS))
    assert list(classes.classes) == [7, 2, 0]
    asked = Ask(model=text_card.name, prompts=["a  cat", "two\ncats", "a cat "], negative=" no\tdogs ")
    with pytest.warns(UserWarning, match='repeated are drawn once .1 more, such as "a cat"') as noted:
        settled = check(asked, text_card)
    assert len(noted) == 1
    assert list(settled.prompts) == ["a cat", "two cats"] and settled.negative == "no dogs"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(settled, text_card) == settled and check(classes, find_card(DIGITS)) == classes


def test_checking_needs_no_torch() -> None:
    code = (
        "import sys\nfrom hastezoo.asking import Ask, check\nfrom hastezoo.zoo.registry import find_card\n"
        "import hastezoo.commands, hastezoo.trajectory\n"
        "check(Ask(classes=['seven']), find_card('sit-ti-digits'))\n"
        "check(Ask(classes=['golden retriever']), find_card('sit-xl'))\n"
        "print([name for name in ('torch', 'timm', 'click') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr


def test_each_class_is_drawn_with_every_seed(pipe: Pipeline) -> None:
    request = make_request(Ask(classes=["seven", 2], seeds=[5, 6, 9], batch_size=4), pipe)
    assert request.labels == [7, 7, 7, 2, 2, 2] and request.seeds == [5, 6, 9, 5, 6, 9]
    assert (request.conditions, request.batch_size, request.dtype) == (2, 4, "float32")
    assert request.weights_sha256 == pipe.weights_sha256 and request.vae is None


def test_without_classes_labels_are_drawn_from_the_seeds(pipe: Pipeline) -> None:
    request = make_request(Ask(seeds=range(20)), pipe)
    assert request.labels == [label_of_seed(seed, 10) for seed in range(20)] and request.conditions == 1


def test_settings_replace_the_protocols(pipe: Pipeline) -> None:
    request = make_request(Ask(protocol="sit-ode", overrides={"steps": 3, "interval": (0.1, 0.5)}), pipe)
    wanted = pipe.protocol("sit-ode").model_copy(update={"steps": 3, "interval": (0.1, 0.5)})
    assert request.protocol == wanted
    assert make_request(Ask(), pipe).protocol == pipe.protocol()
    for overrides, words in (({"stepz": 3}, "nearest: steps"), ({"steps": 0}, "greater than or equal to 1")):
        with pytest.raises(UserError, match=words):
            make_request(Ask(overrides=overrides), pipe)
    with pytest.raises(UserError, match="neither a number"):
        make_request(Ask(batch_size="many"), pipe)


def test_a_request_is_made_only_of_what_passes_the_check(pipe: Pipeline) -> None:
    for asked, words in (({"seeds": []}, "no seeds"), ({"prompts": ["a cat"]}, "not text")):
        with pytest.raises(UserError, match=words):
            make_request(Ask(**asked), pipe)


def test_prompts_become_numbers_and_are_cleaned(text_card: Card, recwarn: pytest.WarningsRecorder) -> None:
    asked = Ask(
        model=text_card.name, prompts=[" a  cat", "一只猫坐在垫子上"], negative="a\ndog", seeds=[4, 5], device="cpu"
    )
    request = make_request(asked, load(asked))
    assert request.prompts == ["a cat", "一只猫坐在垫子上"] and request.labels == [0, 0, 1, 1]
    assert request.seeds == [4, 5, 4, 5] and request.conditions == 2 and request.negative == "a dog"
    assert text_card.text is not None and request.text_encoder == text_card.text.repo and request.text_encoder_sha256
    assert [str(one.message) for one in recwarn if "English" in str(one.message)]


def test_own_weights_are_recorded_by_their_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_card("sit-ti-digits").weights_path
    assert source is not None
    (tmp_path / "own.safetensors").write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    asked = Ask(weights="own.safetensors", device="cpu", dtype="bfloat16", format="npz")
    pipeline = load(asked)
    request = make_request(asked, pipeline)
    assert request.weights == str(tmp_path / "own.safetensors")
    assert request.weights_sha256 == load(Ask(model="sit-ti-digits", device="cpu")).weights_sha256
    assert (request.dtype, request.format, str(pipeline.dtype)) == ("bfloat16", "npz", "torch.bfloat16")
