"""Prompts: cleaned, read, named in files, shown, and what is said of them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

from hastezoo.conditioning.prompts import LONGEST, clean, foreign_share, notes, read_prompts, shown, slug
from hastezoo.errors import UserError

ARABIC, HEBREW, JAPANESE, RUSSIAN = "قطة على الحافلة", "חתול על אוטובוס", "赤いバスの上の猫", "кот на автобусе"
FAMILY = "\U0001f468‍\U0001f469‍\U0001f467"  # three emoji, joined


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""),
        ("  \t\r\n ", ""),
        (" a\tred \r\n bus\n", "a red bus"),
        ("a\u00a0\u2003\u3000b\u2028c\u2029d\x85e\x0bf\x0cg", "a b c d e f g"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u1112\u1161\u11ab", "\ud55c"),  # Hangul, composed
        ("\u2126", "\u03a9"),  # the ohm sign is the letter
        (ARABIC, ARABIC),
        (JAPANESE, JAPANESE),
        (FAMILY, FAMILY),
        ("a \u202ecat\u202c", "a \u202ecat\u202c"),
        ("x" * 10_000, "x" * 10_000),
    ],
)
def test_what_is_drawn_from(given: str, expected: str) -> None:
    assert clean(given) == expected and clean(expected) == expected


@pytest.mark.parametrize(("given", "words"), [
    ("a\x00b", "control character U+0000 at character 2"),
    ("\x1b[31mred", "control character U+001B at character 1"),
    ("bell\x07", "control character U+0007 at character 5"),
    ("a\x7f", "control character U+007F at character 2"),
    ("a \x9b", "control character U+009B at character 3"),
    ("a \ud83d bus", "lone surrogate U+D83D at character 3"),
    ("\udc00", "lone surrogate U+DC00 at character 1"),
])  # fmt: skip
def test_controls_and_halves_of_pairs_are_refused(given: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        clean(given)


def test_exactly_the_control_characters_that_are_no_space_are_refused() -> None:
    refused = set()
    for code in range(0x3000):
        try:
            clean(chr(code))
        except UserError:
            refused.add(chr(code))
    every = map(chr, range(0x3000))
    assert refused == {one for one in every if unicodedata.category(one) == "Cc" and not one.isspace()}


def test_the_longest() -> None:
    assert len(clean(" " * 10 + "y" * LONGEST)) == LONGEST
    with pytest.raises(UserError, match="the prompt has 100,001 characters; 100,000 are the most"):
        clean("y" * (LONGEST + 1))


def test_a_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(f"\ufeffa  cat\r\n\r\n \t\ncafe\u0301\n{ARABIC}\ra cat\n one\u2028line".encode())
    assert read_prompts(path) == ["a cat", "caf\u00e9", ARABIC, "a cat", "one line"]
    assert read_prompts(str(path)) == read_prompts(path)


@pytest.mark.parametrize(("data", "words"), [
    (b"a cat\n\nb\x00c\n", r"prompts.txt, line 3: the prompt has the control character U\+0000 at character 2"),
    (b"a\n" + b"x" * (LONGEST + 1), "prompts.txt, line 2: the prompt has 100,001 characters"),
    (b"a cat\ncaf\xe9\n", r"prompts.txt is not text in UTF-8 \(byte 9\); save it as such"),
    ("a cat".encode("utf-16"), r"prompts.txt is not text in UTF-8 \(byte 0\)"),
    (b"", "prompts.txt has no prompts; write one a line"),
    (b"\xef\xbb\xbf \n\n", "prompts.txt has no prompts"),
])  # fmt: skip
def test_a_file_that_cannot_be_drawn_from(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as caught:
        read_prompts(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.txt cannot be read: No such file"):
        read_prompts(tmp_path / "nothing.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(("prompt", "expected"), [
    ("A red bus, parked!", "a-red-bus-parked"),
    ("  ...Crème brûlée -- Straße №7", "creme-brulee-strasse-no7"),
    ("", ""),
    (ARABIC, ""),
    (JAPANESE, ""),
    (FAMILY, ""),
    (f"{RUSSIAN} 3", "3"),
    ("a/b\\c:d*e?f\"g<h>i|j.png", "a-b-c-d-e-f-g-h-i-j-png"),
    ("../../etc/passwd", "etc-passwd"),
    ("-rf .", "rf"),
    ("NUL", "nul-prompt"),
    ("com1.", "com1-prompt"),
    ("COM\u00b9", "com1-prompt"),
    ("console", "console"),
    ("a photograph of an astronaut riding a horse on the moon", "a-photograph-of-an-astronaut-riding-a"),
    ("a photograph of an astronaut riding cats on the moon", "a-photograph-of-an-astronaut-riding-cats"),  # 40
    ("z" * 99, "z" * 40),
    ("\u202ea cat\u200b", "a-cat"),
])  # fmt: skip
def test_names_for_files(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


def test_names_for_files_are_cut() -> None:
    assert slug("one two three", 7) == "one-two" and slug("one two three", 6) == "one"
    assert slug("one two three", 2) == "on"


@pytest.mark.parametrize(("prompt", "expected"), [
    ("a cat", '"a cat"'),
    ("", '""'),
    (HEBREW, f'"{HEBREW}"'),
    ("a \u202egnp.tac", '"a <U+202E>gnp.tac"'),
    ("c\u200bat\u2069\ufeff\u00ad", '"c<U+200B>at<U+2069><U+FEFF><U+00AD>"'),
    ("a\nb\x1b[2J\ud800\u2028", '"a<U+000A>b<U+001B>[2J<U+D800><U+2028>"'),
    ("x" * 60, '"' + "x" * 60 + '"'),
    ("x" * 61, '"' + "x" * 59 + '…"'),
    ("\u202e" * 30, '"' + "<U+202E>" * 7 + '…"'),
])  # fmt: skip
def test_prompts_in_a_line_of_a_terminal(prompt: str, expected: str) -> None:
    assert shown(prompt) == expected


def test_what_is_said_of_a_prompt() -> None:
    assert notes("a cat, café 100% 😀") == notes("123") == notes("😀😀") == notes("a b 猫犬") == []
    assert notes("") == [
        "the prompt is empty: drawn without text; unless there is a negative prompt, guidance changes nothing"
    ]
    for prompt in (ARABIC, HEBREW, JAPANESE, RUSSIAN, "cat кот на"):
        assert len(notes(prompt)) == 1 and "most letters are not Latin" in notes(prompt)[0]


def test_the_share_of_other_scripts_counts_letters_alone() -> None:
    assert foreign_share("") == foreign_share("12 !?") == foreign_share("Ünïcödé ﬁ") == 0
    assert foreign_share("ab, жщ 12345") == 0.5 and foreign_share("zжщ") == 2 / 3 and foreign_share(ARABIC) == 1
