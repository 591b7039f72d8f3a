"""Unicode's list of emoji as it is read, plain names, and which split a name is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hastezoo.data.emoji import (
    Emoji,
    Split,
    is_in,
    read_names,
    share,
)
from hastezoo.errors import UserError
from tests.emoji_files import (
    needs_emoji,
    text_of,
)

LINES = """\
\ufeff# emoji-test.txt
# Version: 15.0
# Format: code points; status # emoji name
#   fully-qualified     \u2014 a fully-qualified emoji; fully-qualified

# group: Smileys & Emotion

# subgroup: face-smiling
1F600                  ; fully-qualified     # \U0001f600 E1.0 grinning face
263A FE0F              ; fully-qualified     # \u263a\ufe0f E0.6 smiling face
263A                   ; unqualified         # \u263a E0.6 smiling face
# Smileys & Emotion subtotal:\t\t180

# group: People & Body
# subgroup: family
1F468 200D 2764 FE0F 200D 1F468 ; fully-qualified # \U0001f468\u200d\u2764\ufe0f\u200d\U0001f468 E2.0 couple: man, man
1F468 200D 2764 200D 1F468 ; minimally-qualified # \U0001f468\u200d\u2764\u200d\U0001f468 E2.0 couple: man, man
# group: Component
# subgroup: skin-tone
1F3FB                  ; component           # \U0001f3fb E1.0 light skin tone
# group: Symbols
# subgroup: keycap
0023 FE0F 20E3         ; fully-qualified     # #\ufe0f\u20e3 E0.6 keycap: #
1F947;fully-qualified # \U0001f947 E3.0 not in the format: no space
1F170 FE0F             ; fully-qualified     # \U0001f170\ufe0f A button (blood type), of an old file without versions

#EOF
"""


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_names_are_the_fully_qualified_lines_in_order_with_their_groups(tmp_path: Path) -> None:
    path = tmp_path / "emoji-test.txt"
    path.write_text(LINES, encoding="utf-8")
    assert read_names(path) == [
        Emoji("\U0001f600", "grinning face", "Smileys & Emotion", "face-smiling"),
        Emoji("\u263a\ufe0f", "smiling face", "Smileys & Emotion", "face-smiling"),
        Emoji(text_of("1F468 200D 2764 FE0F 200D 1F468"), "couple: man, man", "People & Body", "family"),
        Emoji("#\ufe0f\u20e3", "keycap: #", "Symbols", "keycap"),
        Emoji("\U0001f170\ufe0f", "A button (blood type), of an old file without versions", "Symbols", "keycap"),
    ]


def test_line_ends_of_another_system_change_nothing(tmp_path: Path) -> None:
    path, other = tmp_path / "unix.txt", tmp_path / "windows.txt"
    path.write_bytes(LINES.encode())
    other.write_bytes(LINES.replace("\n", "\r\n").encode())
    assert read_names(other) == read_names(path)


def test_names_that_cannot_be_read_are_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(LINES.replace("\u2014", "\xe9").encode("latin-1", errors="ignore"))
    for path, reason in ((tmp_path / "none.txt", "No such file"), (tmp_path, "Is a directory"), (latin, "utf-8")):
        with pytest.raises(UserError) as caught:
            read_names(path)
        message = one_line(caught)
        assert str(path) in message and reason in message
        assert "unicode-data" in message and "emoji-test.txt" in message and "--names" in message


@pytest.mark.parametrize("content", ["", "# group: Flags\n", "hello\n", "1F3FB ; component # \U0001f3fb E1.0 light\n"])
def test_a_file_without_emoji_is_no_list_of_them(content: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="names no emoji; it should be a copy") as caught:
        read_names(path)
    assert str(path) in one_line(caught)


@pytest.mark.parametrize("codes", ["1F60Z", "110000", "-1", "FFFFFFFFFFFFFFFFFFFF"])
def test_a_damaged_line_is_named(codes: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.txt"
    path.write_text(f"{codes} ; fully-qualified # x E1.0 grinning face\n", encoding="utf-8")
    with pytest.raises(UserError, match="is damaged") as caught:
        read_names(path)
    assert codes in one_line(caught) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("grinning face", "grinning face"),
        ("waving hand: light skin tone", "waving hand"),
        ("waving hand: medium-light skin tone", "waving hand"),
        ("waving hand: medium skin tone", "waving hand"),
        ("waving hand: medium-dark skin tone", "waving hand"),
        ("waving hand: dark skin tone", "waving hand"),
        ("handshake: light skin tone, medium-dark skin tone", "handshake"),
        ("kiss: woman, man, light skin tone, dark skin tone", "kiss: woman, man"),
        ("kiss: person, person, medium-light skin tone, medium skin tone", "kiss: person, person"),
        ("couple with heart: man, man, medium skin tone", "couple with heart: man, man"),
        ("family: man, woman, girl", "family: man, woman, girl"),
        ("man: red hair", "man: red hair"),
        ("flag: Japan", "flag: Japan"),
        ("flag: Bonaire, Sint Eustatius", "flag: Bonaire, Sint Eustatius"),
        ("keycap: #", "keycap: #"),
        ("keycap: *", "keycap: *"),
        ("light bulb", "light bulb"),
        ("medium-light square", "medium-light square"),
    ],
)
def test_a_plain_name_has_no_skin_tones(name: str, plain: str) -> None:
    assert Emoji("x", name, "", "").plain == plain


@pytest.mark.parametrize("kind", ["red hair", "curly hair", "bald", "beard"])
def test_a_plain_name_of_hair_is_that_of_the_emoji_without_tone(kind: str) -> None:
    assert Emoji("x", f"man: medium-dark skin tone, {kind}", "", "").plain == f"man: {kind}"


# The splits are a function of the names alone, so that a model's claims of what it never saw stay true.
SPLITS: dict[Split, list[str]] = {
    "held-out": [
        "flag: Japan", "rainbow flag", "zany face", "ogre", "nose", "woman artist", "baby chick", "lotus", "ship",
        "yo-yo", "musical keyboard", "Aries", "flag: Falkland Islands",
    ],
    "judge": [
        "grinning cat", "red heart", "raised hand", "panda", "octopus", "green apple", "banana", "rainbow", "keycap: #",
        "soccer ball", "nine o\u2019clock", "pregnant woman", "flag: Cura\xe7ao",
    ],
    "train": [
        "grinning face", "loudly crying face", "waving hand", "woman astronaut", "sunflower", "red apple", "pizza",
        "rocket", "guitar", "Santa Claus", "milky way", "Japanese \u201capplication\u201d button", "flag: Comoros",
    ],
}  # fmt: skip
BELONGS: dict[Split, tuple[Split, ...]] = {
    "held-out": ("held-out", "judge", "all"), "judge": ("train", "judge", "all"), "train": ("train", "all"),
}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_what_they_always_were(split: Split) -> None:
    for name in SPLITS[split]:
        found = tuple(each for each in ("train", "held-out", "judge", "all") if is_in(each, name))
        assert set(found) == set(BELONGS[split]), name


def test_shares_of_made_up_names_are_those_that_are_said() -> None:
    names = [f"name {number}" for number in range(4000)]
    held_out = [name for name in names if is_in("held-out", name)]
    others = [name for name in names if is_in("train", name)]
    assert sorted(held_out + others) == sorted(names)
    assert len(held_out) / len(names) == pytest.approx(0.1, abs=0.015)
    assert all(is_in("judge", name) and is_in("all", name) for name in held_out)
    assert sum(is_in("judge", name) for name in others) / len(others) == pytest.approx(0.5, abs=0.025)
    assert all(0 <= share(name) < 1 for name in names) and share("a") != share("a", "judge")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'dev': one of train, held-out, judge, all"):
        is_in("dev", "rocket")  # type: ignore[arg-type]


@needs_emoji
def test_the_splits_of_unicodes_names() -> None:
    emojis = read_names()
    assert len({emoji.text for emoji in emojis}) == len(emojis) >= 3655
    names = {emoji.plain for emoji in emojis}
    found = {split: {name for name in names if is_in(split, name)} for split in ("train", "held-out", "judge", "all")}
    assert found["train"] | found["held-out"] == found["all"] == names and not found["train"] & found["held-out"]
    assert len(found["held-out"]) / len(names) == pytest.approx(0.1, abs=0.01)
    assert found["held-out"] < found["judge"]
    assert len(found["judge"]) / len(names) == pytest.approx(0.55, abs=0.02)
    assert names >= {name for listed in SPLITS.values() for name in listed}


def without_tones(emoji: Emoji) -> str:
    """The characters that the skin tones of an emoji share, whatever their names."""
    return "".join(one for one in emoji.text if one != "\ufe0f" and not 0x1F3FB <= ord(one) <= 0x1F3FF)


@needs_emoji
def test_skin_tones_of_an_emoji_are_in_one_split() -> None:
    """By their characters, not by their names."""
    sides: dict[str, set[bool]] = {}
    for emoji in read_names():
        sides.setdefault(without_tones(emoji), set()).add(is_in("train", emoji.plain))
    assert [text for text, found in sides.items() if len(found) > 1] == []
