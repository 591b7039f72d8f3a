"""Prompts for a model of words: which words a text has, which are known, and what is said of the others."""

from __future__ import annotations

import re
import unicodedata

import pytest
import torch

from hastezoo.conditioning.text import StoredText, create_text_encoder
from hastezoo.conditioning.words import WordNumbers, refuse_unread, split_words
from hastezoo.errors import UserError

ARABIC, CHINESE, RUSSIAN, HEBREW = "قطة على الحافلة", "一只猫坐在垫子上", "кот на автобусе", "חתול"
WORDS = (
    "a", "red", "apple", "bus", "cat", "hat", "woman", "cherries", "boxes", "pinata", "cape", "cap", "note", "not",
    "glasses", "1", "10", "1st", "berry", "dish", "tomato", "strasse", "s",
)  # fmt: skip
LENGTH = 6


@pytest.fixture
def reader() -> WordNumbers:
    return WordNumbers(WORDS, LENGTH)


def known(prompt: str) -> list[str]:
    """The words of the vocabulary that a prompt is read as."""
    return [WORDS[number - 1] for number in WordNumbers(WORDS, LENGTH).read(prompt)]


def refusal(prompt: str) -> str:
    """The one line that refuses it."""
    with pytest.raises(UserError) as caught:
        WordNumbers(WORDS, LENGTH).read(prompt)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n", []),
        ("A Red APPLE", ["a", "red", "apple"]),
        ("red,apple;bus. cat! hat? (two) [3] {x} <b> \"q\" 'r' #s @t & / \\ | * + = ~ ^ % $ `v`", [
            "red", "apple", "bus", "cat", "hat", "two", "3", "x", "b", "q", "r", "s", "t", "v",
        ]),
        ("snake_case kebab-case en\u2013dash em—dash", ["snake", "case", "kebab", "case", "en", "dash", "em", "dash"]),
        ("¿red? ¡cat! «bus» „hat“ “a” \u2018b\u2019 …c · • d", ["red", "cat", "bus", "hat", "a", "b", "c", "d"]),
        ("a woman's hat", ["a", "woman", "hat"]),
        ("A WOMAN\u2019S HAT", ["a", "woman", "hat"]),
        ("cats' hats, the boss's hat", ["cats", "hats", "the", "boss", "hat"]),
        ("it's don't rock'n'roll o\u2019clock", ["it", "dont", "rocknroll", "oclock"]),
        ("'S.O.S.' and the letter 's'", ["s", "o", "s", "and", "the", "letter", "s"]),
        ("'so' 'stop'", ["so", "stop"]),
        ("cafe\u0301 caf\u00e9 CAF\u00c9 pin\u0303ata", ["cafe", "cafe", "cafe", "pinata"]),
        ("Straße STRASSE ﬁsh", ["strasse", "strasse", "fish"]),
        ("\uff52\uff45\uff44 \U0001d42b\U0001d41e\U0001d41d ʳᵉᵈ", ["red", "red", "red"]),
        ("İstanbul", ["istanbul"]),
        ("No. 10, 1st 3.5 x² ½", ["no", "10", "1st", "3", "5", "x2", "1", "2"]),
        (RUSSIAN, ["кот", "на", "автобусе"]),
        (CHINESE, [CHINESE]),
        ("red🍎cat 🐈", ["red", "cat"]),
        ("👨‍👩‍👧 🇫🇷 ❤️", []),
        ("red\u200bcat \u202ehat\u202c", ["red", "cat", "hat"]),
    ],
)  # fmt: skip
def test_the_words_of_a_text(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    for form in ("NFC", "NFD"):
        assert split_words(unicodedata.normalize(form, text)) == words


def test_a_text_of_its_words_has_the_same_words() -> None:
    for text in ("Woman's Hat, piñata & No. 1", ARABIC, CHINESE, RUSSIAN, HEBREW, "ﷺ ½ Straße rock'n'roll"):
        assert split_words(" ".join(split_words(text))) == split_words(text)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("apples", ["apple"]),
        ("cats' hats", ["cat", "hat"]),
        ("buses", ["bus"]),
        ("berries", ["berry"]),
        ("dishes", ["dish"]),
        ("tomatoes", ["tomato"]),
        ("cherry", ["cherries"]),
        ("box", ["boxes"]),
        ("glass", ["glasses"]),
        ("capes caps", ["cape", "cap"]),
        ("notes", ["note"]),
        ("glasses cherries boxes", ["glasses", "cherries", "boxes"]),
        ("as 1s 10s", ["10"]),
    ],
)
def test_singular_and_plural_stand_for_each_other(prompt: str, words: list[str]) -> None:
    """What is itself known stays what it is, and a single letter has no plural."""
    assert known(prompt) == words


@pytest.mark.parametrize(
    ("singular", "plural"),
    [
        ("cat", "cats"), ("bus", "buses"), ("fox", "foxes"), ("waltz", "waltzes"), ("watch", "watches"),
        ("brush", "brushes"), ("potato", "potatoes"), ("berry", "berries"),
    ],
)  # fmt: skip
def test_whichever_of_both_is_known_the_other_is_read_as_it(singular: str, plural: str) -> None:
    for one, other in ((singular, plural), (plural, singular)):
        assert WordNumbers([one], 2).read(other) == [1]


@pytest.mark.parametrize(("one", "other"), [("cap", "capes"), ("on", "ones"), ("a", "as"), ("not", "notes")])
def test_words_that_are_no_plurals_of_each_other(one: str, other: str) -> None:
    for known, asked in ((one, other), (other, one)):
        with pytest.raises(UserError, match=f'"{asked}" is known'):
            WordNumbers([known], 2).read(asked)


def test_a_word_that_is_known_is_never_read_as_another() -> None:
    pairs = ["cat", "cats", "cherry", "cherries", "box", "boxes", "cap", "cape", "capes"]
    numbers = WordNumbers(pairs, 20).read(" ".join(pairs))
    assert numbers == list(range(1, 10))


def test_prompts_become_rows_of_numbers(reader: WordNumbers) -> None:
    prompts = ["A red apple", "", "the bus & the cat", "red " * 9, "hat"]
    found = reader.states(prompts)
    assert found.dtype == torch.int64 and found.tolist() == [
        [1, 2, 3, 0, 0, 0], [0] * 6, [4, 5, 0, 0, 0, 0], [2] * 6, [6, 0, 0, 0, 0, 0],
    ]  # fmt: skip
    for row, prompt in zip(found, prompts, strict=True):
        assert torch.equal(reader.states([prompt])[0], row)
    found.fill_(9)
    assert reader.states(["red"]).tolist() == [[2, 0, 0, 0, 0, 0]], "the rows are the caller's own"
    assert reader.states([]).shape == (0, 6)


def test_what_is_unknown_changes_nothing(reader: WordNumbers) -> None:
    wanted = reader.states(["red apple"])
    for prompt in ("the red, very ripe apple", "zzz red qqq apple", "Red 苹果 Apples 🍎", "red; apple!"):
        assert torch.equal(reader.states([prompt]), wanted), prompt
    for other in ("apple red", "red red apple", "red", "red apple cat"):
        assert not torch.equal(reader.states([other]), wanted), other


def test_the_first_words_are_read_and_the_rest_is_said(reader: WordNumbers) -> None:
    assert reader.states(["cat " * LENGTH]).tolist() == [[5] * LENGTH] and reader.notes("cat " * LENGTH) == []
    assert reader.notes("cat " * LENGTH + "qqq") == ["not known and left out: qqq"]
    prompt = "hat zzzzz " + "cat red " * 1250
    assert len(prompt) > 10_000
    assert reader.states([prompt]).tolist() == [[6, 5, 2, 5, 2, 5]]
    assert reader.notes(prompt) == [
        "not known and left out: zzzzz",
        "2,501 words are known and the first 6 are read",
    ]


def test_empty_prompts_are_drawn_without_text(reader: WordNumbers) -> None:
    for prompt in ("", "  \n"):
        assert reader.read(prompt) == []
        assert reader.notes(prompt) == [
            "the prompt is empty: drawn without text; unless there is a negative prompt, guidance changes nothing"
        ]


def test_unknown_words_are_named_each_once_with_what_is_near(reader: WordNumbers) -> None:
    assert reader.notes("a red apple, two cats") == ["not known and left out: two"]
    assert reader.notes("A Red Woman's hats!") == []
    assert reader.notes("a zebra zebra aple") == ["not known and left out: zebra, aple; near aple: apple, cape"]
    assert reader.notes("red кот qqqq") == ["not known and left out: кот, qqqq"]
    assert reader.notes("red " + " ".join(f"q{letter}q" for letter in "zyxwvuk")) == [
        "not known and left out: qzq, qyq, qxq, qwq, qvq and 2 more"
    ]
    assert reader.notes("red qzq qyq qxq qwq qvq quq") == ["not known and left out: qzq, qyq, qxq, qwq, qvq and 1 more"]
    assert reader.notes("red qzq qyq qxq qwq qvq") == ["not known and left out: qzq, qyq, qxq, qwq, qvq"]
    endless = reader.notes("cat " + "x" * 5000)
    assert endless == ["not known and left out: " + "x" * 40]
    assert WordNumbers(["cat", "xxxxxxxxxxxxxxx"], 2).notes("cat " + "x" * 40) == endless, "nothing is near it"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("appel", 'no word of the prompt "appel" is known; the model knows 23 words; near appel: apple'),
        ("qq  Hatt", 'no word of the prompt "qq Hatt" is known; the model knows 23 words; near hatt: hat'),
        (RUSSIAN, f'no word of the prompt "{RUSSIAN}" is known; the model knows 23 words'),
        (CHINESE, f'no word of the prompt "{CHINESE}" is known; the model knows 23 words'),
        (ARABIC, f'no word of the prompt "{ARABIC}" is known; the model knows 23 words'),
        (HEBREW, f'no word of the prompt "{HEBREW}" is known; the model knows 23 words'),
        ("red苹果", 'no word of the prompt "red苹果" is known; the model knows 23 words'),
        ("🐈", 'the prompt "🐈" has no word; the model knows 23 words'),
        ("?!", 'the prompt "?!" has no word; the model knows 23 words'),
        ("as us ms", 'no word of the prompt "as us ms" is known; the model knows 23 words; near us: bus'),
        ("\u200b", 'the prompt "<U+200B>" has no word; the model knows 23 words'),
        ("a\u202ecat\x00", "the prompt has the control character U+0000 at character 6; remove it"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(prompt: str, message: str) -> None:
    assert refusal(prompt) == message


def test_a_long_refusal_is_cut() -> None:
    for prompt in ("qx " * 3000, "x" * 10_000, CHINESE * 300):
        message = refusal(prompt)
        assert message.startswith("no word of the prompt ") and "…" in message and "near" not in message


def test_a_refused_prompt_is_refused_wherever_it_stands(reader: WordNumbers) -> None:
    with pytest.raises(UserError, match='"zzz" is known'):
        reader.states(["red", "zzz", "cat"])
    with pytest.raises(UserError, match=re.escape("U+0007")):
        reader.notes("red\x07")


def test_only_a_model_of_words_refuses_words(reader: WordNumbers) -> None:
    refuse_unread(reader, ["red", "", "a cat"])
    with pytest.raises(UserError, match='"zzz"'):
        refuse_unread(reader, ["red", "zzz"])
    refuse_unread(StoredText({}, length=3, width=4, source="clip", sha256="0"), ["zzz"])


def test_the_encoder_of_words_by_its_kind() -> None:
    found = create_text_encoder("words", words=("red", "cat"), length=3)
    assert isinstance(found, WordNumbers) and found.states(["cat red"]).tolist() == [[2, 1, 0]]
    assert (found.source, found.sha256, found.revision, found.length, found.width) == ("", "", "", 3, 0)
    with pytest.raises(ValueError, match="unknown text encoder 'word': one of clip, words"):
        create_text_encoder("word", words=("red",))
