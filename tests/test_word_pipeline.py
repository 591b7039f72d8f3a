"""Drawing from words: a small model that reads them by itself, with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hastezoo
from hastezoo.asking import Ask, check, load, make_request
from hastezoo.commands import as_command, as_python
from hastezoo.conditioning.conditions import Prompts
from hastezoo.conditioning.words import WordNumbers
from hastezoo.errors import UserError
from hastezoo.pipeline import Pipeline
from hastezoo.zoo.card import Card
from hastezoo.zoo.modelfile import save_model
from hastezoo.zoo.registry import find_card, list_cards
from tests.test_commands import check_line, check_script, drawn
from tests.word_models import LENGTH, WORDS, random_words, write_word_checkpoint

SETTINGS: dict[str, Any] = {"solver": "euler-maruyama", "steps": 4, "cfg": 2.0, "interval": (0.2, 0.9)}
UNREAD = 'no word of the prompt "appel" is known; the model knows 12 words; near appel: apple'


@pytest.fixture
def card(own_home: Path) -> Card:
    return write_word_checkpoint(own_home)


@pytest.fixture
def pipe(card: Card) -> Pipeline:
    return hastezoo.Pipeline.from_pretrained(card.name, device="cpu")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def own_weights(folder: Path, words: list[str], **changes: Any) -> str:
    """A file of weights for the small model that knows other words."""
    path = folder / "own.safetensors"
    save_model(path, random_words(1, words=words, **changes), "word_mmdit", weights="ema")
    return str(path)


@pytest.mark.parametrize("negative", ["", "a blue hat"])
def test_the_pipeline_is_the_sum_of_its_parts(pipe: Pipeline, states: list[torch.Tensor], negative: str) -> None:
    """Numbers of words, guidance away from those of the negative prompt, and the solver, put together by hand."""
    from hastezoo.sampling import guidance, interpolants, noise, solvers

    pipe(prompts=["A red bus", "two cats, one hat"], seeds=[11, 12], negative=negative, **SETTINGS)
    numbers = torch.tensor([[1, 2, 5, 0, 0, 0], [8, 6, 11, 0, 0, 0]])
    null = torch.tensor([[1, 3, 11, 0, 0, 0] if negative else [0] * 6])

    def model(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return pipe.network(x.float(), t.float(), condition).double()

    field = guidance.guided(model, numbers, null, scale=2.0, interval=(0.2, 0.9))
    source = noise.NoiseSource([11, 12])
    x = solvers.integrate(
        "euler-maruyama", field, source.initial((2, 3, 8, 8)), steps=4, interpolant=interpolants.Linear(), noise=source
    )
    assert torch.equal(x, states[0])


def test_the_same_known_words_are_the_same_images(pipe: Pipeline) -> None:
    def pixels(prompt: str) -> np.ndarray:
        return pipe(prompts=prompt, seeds=[5], steps=3).pixels

    wanted = pixels("red apple")
    for prompt in (
        "RED APPLES!",
        "the red, ripe apple",
        "Zzz Red zzz apple's",
        "red 🍎 apple",
        "\uff32\uff25\uff24 apple",
    ):
        assert np.array_equal(pixels(prompt), wanted), prompt
    for prompt in ("apple red", "red", "red red apple", "blue apple", "", "red apple cat"):
        assert not np.array_equal(pixels(prompt), wanted), prompt
    assert np.array_equal(pixels("cat " * LENGTH), pixels("cat " * 2500)), "what is beyond the length is not read"
    assert not np.array_equal(pixels("cat " * LENGTH), pixels("cat " * (LENGTH - 1)))


def test_what_does_not_go_together(pipe: Pipeline) -> None:
    for refused, words in (
        ({"classes": [3]}, "tiny-words draws from text: give it prompts"),
        ({}, "draws from text: give it prompts"),
        ({"prompts": [3]}, "a prompt is a text, not 3"),
        ({"prompts": ["a", "red"], "seeds": [1, 2, 3]}, "2 prompts do not pair with 3 seeds"),
        ({"prompts": "a\x00b"}, "U\\+0000"),
        ({"prompts": "a", "negative": "b\x1b"}, "U\\+001B"),
        ({"prompts": "appel"}, f"^{UNREAD}$"),
        ({"prompts": ["a cat", "🐈"]}, 'the prompt "🐈" has no word'),
        ({"prompts": "a cat", "negative": "кот"}, 'no word of the prompt "кот" is known; the model knows 12 words$'),
    ):
        with pytest.raises(UserError, match=words):
            pipe(**refused, steps=1)


def test_no_text_encoder_is_taken_and_nothing_is_loaded_for_it(
    card: Card, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hastezoo.pipeline.resolve", None)  # whoever calls it fails
    for encoder in (tiny_clip, "somewhere"):
        with pytest.raises(UserError, match=r"^tiny-words reads words by itself: it takes no text encoder$"):
            load(Ask(model=card.name, text_encoder=str(encoder), device="cpu"))


def test_half_precision_keeps_the_numbers_of_words(pipe: Pipeline) -> None:
    exact = pipe(prompts="two cats", seeds=[3], steps=3).pixels.astype(int)
    half = hastezoo.Pipeline.from_pretrained("tiny-words", device="cpu", dtype="bfloat16")
    rough = half(prompts="two cats", seeds=[3], steps=3).pixels.astype(int)
    assert 0 < np.abs(exact - rough).mean() < 8


def test_the_reader_of_a_pipeline_is_that_of_its_weights(pipe: Pipeline) -> None:
    assert isinstance(pipe.conditions, Prompts) and isinstance(pipe.conditions.encoder, WordNumbers)
    assert list(pipe.conditions.encoder.numbers) == WORDS and pipe.conditions.encoder.length == LENGTH
    assert pipe.config.words == tuple(WORDS)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "say what with a prompt"),
        ({"classes": [3], "prompts": ["a cat"]}, "leave out the classes"),
        ({"prompts": ["a\x00b"]}, "U+0000"),
        ({"prompts": ["appel"]}, UNREAD),
        ({"prompts": ["a cat", "кот"]}, 'no word of the prompt "кот" is known'),
        ({"prompts": ["a cat", "?!"]}, 'the prompt "?!" has no word'),
        ({"prompts": ["a cat"], "negative": "qqq"}, 'no word of the prompt "qqq" is known'),
    ],
)
def test_what_is_not_asked_for(asked: dict[str, Any], words: str, card: Card) -> None:
    with pytest.raises(UserError) as caught:
        check(Ask(model=card.name, **asked), card)
    assert words in str(caught.value) and "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_checking_keeps_prompts_as_they_are_written(card: Card) -> None:
    settled = check(Ask(model=card.name, prompts=["A  red, ripe apple!", ""], negative=" Two  hats "), card)
    assert list(settled.prompts) == ["A red, ripe apple!", ""] and settled.negative == "Two hats"
    assert check(settled, card) == settled


@pytest.mark.usefixtures("card")
def test_unknown_words_are_refused_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom hastezoo.cli.main import main\n"
        "try:\n    main(['sample', '--model', 'tiny-words', '--prompt', 'appel'])\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "2 False\n" and result.stderr == f"error: {UNREAD}\n"


def test_a_request_has_no_text_encoder_and_says_what_is_unknown(pipe: Pipeline) -> None:
    ask = Ask(model="tiny-words", prompts=["a red appel", "cat " * 7, ""], negative="no hats", device="cpu")
    with pytest.warns(UserWarning) as noted:
        request = make_request(ask, pipe)
    assert request.text_encoder is None and request.text_encoder_sha256 == ""
    assert request.prompts == ["a red appel", "cat cat cat cat cat cat cat", ""] and request.negative == "no hats"
    said = [str(one.message) for one in noted]
    assert len(said) == 4
    assert said[0] == '"a red appel": not known and left out: appel; near appel: apple'
    assert said[1].endswith(": 7 words are known and the first 6 are read") and "drawn without text" in said[2]
    assert said[3] == '"no hats": not known and left out: no'


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("prompts", "negative"),
    [(["A red apple's hat", "two 🐈 cats"], ""), (["a cat"], "-blue 'hat' \"bus\""), ([""], "")],
    ids=["two", "negative", "empty"],
)
def test_a_request_said_again_draws_the_same(work: Path, pipe: Pipeline, prompts: list[str], negative: str) -> None:
    ask = Ask(
        model="tiny-words", prompts=prompts, negative=negative, seeds=[4, 5, 8], batch_size=2, device="cpu",
        overrides={"steps": 2},
    )  # fmt: skip
    request = make_request(ask, pipe)
    drawn(request, pipe)
    line, script = as_command(request, "again", device="cpu"), as_python(request, device="cpu")
    assert "encoder" not in line + script and "vae" not in line + script
    check_line(request, line)
    check_script(request, script)
    record = json.loads(Path("again/samples.json").read_text())["request"]
    assert record["text_encoder"] is None and record["text_encoder_sha256"] == ""


def test_own_weights_are_judged_by_their_own_words(card: Card, tmp_path: Path) -> None:
    weights = own_weights(tmp_path, ["green", "frog"], context_length=4)
    own = Ask(model=card.name, weights=weights, prompts=("the green frog",), device="cpu")
    assert check(own, card) == own, "the card's words are not theirs"
    pipeline = load(own)
    with pytest.warns(UserWarning, match="not known and left out: the"):
        request = make_request(own, pipeline)
    assert request.weights == weights
    numbers, _ = pipeline.conditions.tensors(["the green frog"], "", torch.device("cpu"))
    assert numbers.tolist() == [[1, 2, 0, 0]]
    for prompts, negative, words in ((("a red bus",), "", "a red bus"), (("the green frog",), "red", "red")):
        ask = own.model_copy(update={"prompts": prompts, "negative": negative})
        assert check(ask, card) == ask
        with pytest.raises(UserError, match=f'no word of the prompt "{words}" is known; the model knows 2 words'):
            make_request(ask, pipeline)


def test_weights_of_another_architecture_are_refused(card: Card, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_model(path, random_words(), "word_mmdit_ti")
    with pytest.raises(UserError, match="holds a word_mmdit_ti, but tiny-words is a word_mmdit"):
        load(Ask(model=card.name, weights=str(path), device="cpu"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": {"kind": "words", "repo": "a/b"}}, "text of kind 'clip' has a repo, and of kind 'words' none"),
        ({"text": {"kind": "clip"}}, "text of kind 'clip' has a repo, and of kind 'words' none"),
        ({"text": {"kind": "words", "length": 1}}, "greater than or equal to 2"),
        ({"text": {"kind": "letters"}}, "text.kind: input should be 'clip' or 'words'"),
        ({"config": {}}, "has a list of them, its config's words"),
        ({"config": {"words": []}}, "has a list of them, its config's words"),
        ({"config": {"words": "red apple"}}, "has a list of them, its config's words"),
        ({"config": {"words": ["red", 1]}}, "has a list of them, its config's words"),
        ({"config": {"words": ["red"], "context_length": 5}}, "the length of its text is not its config's"),
        ({"classes": "digits"}, "either classes or text"),
        ({"text": None}, "either classes or text"),
    ],
)
def test_a_card_that_does_not_say_its_words_is_refused(changes: dict[str, Any], words: str, own_home: Path) -> None:
    """In one line, and the other cards stay."""
    from hastezoo.zoo.toml import to_toml

    values = write_word_checkpoint(own_home).model_dump(exclude_none=True)
    assert Card.model_validate(values).name == "tiny-words"
    (own_home / "cards" / "tiny-words.toml").write_text(to_toml({**values, **changes}))
    with pytest.warns(UserWarning) as noted:
        cards = list_cards()
    assert words in str(noted[0].message) and "\n" not in str(noted[0].message), noted[0].message
    assert "tiny-words" not in [card.name for card in cards] and len(cards) > 5


def test_the_published_card_reads_what_emoji_are_called() -> None:
    card = find_card("mmdit-ti-emoji-haste")
    assert card.text is not None
    reader = WordNumbers(card.config["words"], card.text.length)
    for prompt in ("A red apple!", "cats", "piñata", "woman's hat", "blueberry", "3"):
        assert reader.read(prompt) and reader.notes(prompt) == [], prompt
    settled = check(Ask(model=card.name, prompts=["a red apple"]), card)
    assert list(settled.prompts) == ["a red apple"]
