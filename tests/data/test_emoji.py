"""Emoji as captioned images: what a font draws of them, and what a visit to one sees.

Most is tested on a small font and a small list of names; what those of Debian hold is tested where they are.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, features

from hastezoo.conditioning.words import split_words
from hastezoo.data.emoji import (
    VARIANTS,
    Emoji,
    EmojiImages,
    Split,
    caption_words,
    draw,
    is_in,
    read_names,
    vocabulary,
)
from hastezoo.errors import UserError
from tests.emoji_files import (
    EMOJIS,
    HELD_OUT,
    TONES,
    colours_of,
    needs_emoji,
    needs_fribidi,
    text_of,
    write_font,
    write_names,
)


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_font(tmp_path_factory.mktemp("font") / "small.ttf")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_names(tmp_path_factory.mktemp("names") / "emoji-test.txt")


@pytest.fixture(scope="module")
def samples(font: Path, names: Path) -> EmojiImages:
    """All of the small ones."""
    return EmojiImages("all", font=font, names=names)


def as_bytes(colour: tuple[float, ...]) -> list[int]:
    return [round(255 * value) for value in colour]


@needs_fribidi
def test_each_emoji_is_one_picture_in_its_colours_on_white(font: Path) -> None:
    drawn = draw([text_of(codes) for codes, *_ in EMOJIS], font)
    for number, picture in enumerate(drawn):
        assert picture is not None and picture.shape == (32, 32, 3) and picture.dtype == np.uint8
        assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
        found = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
        for colour in colours_of(number):
            assert min(np.abs(np.subtract(pixel, as_bytes(colour))).max() for pixel in found) <= 3, number
    assert len({picture.tobytes() for picture in drawn if picture is not None}) == len(EMOJIS)


def extent(picture: np.ndarray | None) -> list[int]:
    """First and last row, first and last column that are not nearly white."""
    assert picture is not None
    found = np.argwhere((picture < 128).any(axis=2))
    return [*found[:, 0].take([0, -1]).tolist(), int(found[:, 1].min()), int(found[:, 1].max())]


@needs_fribidi
def test_a_flat_or_tall_picture_is_in_the_middle_of_a_square(font: Path) -> None:
    usual, tall, flat = draw([text_of(EMOJIS[number][0]) for number in (0, -2, -1)], font)
    assert extent(usual) == pytest.approx([0, 31, 0, 31], abs=2)
    assert extent(tall) == pytest.approx([0, 31, 4, 27], abs=2)
    assert extent(flat) == pytest.approx([8, 23, 0, 31], abs=2)


@needs_fribidi
def test_what_the_font_does_not_have_is_none(font: Path) -> None:
    """An unassigned character, a letter, two pictures in a row, and a sequence that the font does not join."""
    wanting = ["\U0010fffe", "Z", "\U0001f600\U0001f63a", "\U0001f43c\u200d\U0001f680"]
    drawn = draw(["\U0001f600", *wanting, "\U0001f680"], font)
    assert [picture is None for picture in drawn] == [False, True, True, True, True, False]
    assert draw([], font) == []


@needs_fribidi
def test_another_side(font: Path) -> None:
    picture = draw(["\U0001f600"], font, 48)[0]
    assert picture is not None and picture.shape == (48, 48, 3)


def refused(font: Path) -> str:
    with pytest.raises(UserError) as caught:
        draw(["\U0001f600"], font)
    return one_line(caught)


@needs_fribidi
def test_a_font_that_cannot_be_used_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    text = tmp_path / "text.ttf"
    text.write_text("no font")
    # Pillow alone would find a font of that name elsewhere.
    absent = tmp_path / "NotoColorEmoji.ttf"
    plain = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for font, reason in (
        (text, "unknown file format"), (absent, "No such file"), (tmp_path, "Is a directory"),
        (plain, "has no emoji in colour"),
    ):  # fmt: skip
        message = refused(font)
        assert str(font) in message and reason in message
        assert "fonts-noto-color-emoji" in message and "--font" in message


def test_without_fribidi_nothing_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "raqm")
    assert "libfribidi0" in refused(tmp_path / "any.ttf")


@needs_fribidi
def test_the_samples_are_names_with_their_skin_tones(samples: EmojiImages) -> None:
    listed = [name for _, name, _ in EMOJIS]
    assert [emoji.name for emoji in samples.emojis] == listed and samples.missing == 0
    assert len(samples) == len(samples.families) == 21
    assert sorted(place for family in samples.families for place in family) == list(range(len(EMOJIS)))
    for family in samples.families:
        name, *others = [listed[place] for place in family]
        assert others in ([], [f"{name}: {tone} skin tone" for tone in TONES])
    assert [len(family) for family in samples.families].count(6) == 3
    pictures = draw([emoji.text for emoji in samples.emojis], samples.font)
    for pixels, picture in zip(samples.pixels, pictures, strict=True):
        assert picture is not None and np.array_equal(pixels, picture)


@needs_fribidi
def test_the_emoji_without_tone_comes_first_wherever_it_is_listed(font: Path, tmp_path: Path) -> None:
    names = write_names(tmp_path / "names.txt", [*EMOJIS[5:10], EMOJIS[4], *EMOJIS[10:]])
    assert EMOJIS[4][1] == "waving hand"
    samples = EmojiImages("all", font=font, names=names)
    assert samples.families[0] == [5, 0, 1, 2, 3, 4] and samples.emojis[5].name == "waving hand"


@needs_fribidi
@pytest.mark.parametrize("split", ["train", "held-out", "judge", "all"])
def test_a_split_has_its_names_and_only_their_words(split: Split, font: Path, names: Path) -> None:
    samples = EmojiImages(split, font=font, names=names)
    wanted = [emoji for emoji in read_names(names) if is_in(split, emoji.plain)]
    assert samples.emojis == wanted
    assert split != "held-out" or {one.name for one in wanted} == HELD_OUT
    words = {word for one in wanted for word in split_words(f"{one.name} {one.group} {one.subgroup}")}
    assert samples.words == vocabulary(wanted) == tuple(sorted(words))
    assert ("flag" in samples.words, "pizza" in samples.words) == (split != "train", split in ("train", "all"))


@needs_fribidi
def test_the_default_split_is_what_is_trained_on(font: Path, names: Path) -> None:
    assert not HELD_OUT & {emoji.name for emoji in EmojiImages(font=font, names=names).emojis}


def test_words_of_a_caption_are_each_said_once_the_names_first() -> None:
    emoji = Emoji("x", "Smiling face: with smiling eyes", "Smileys & Emotion", "face-smiling")
    assert caption_words(emoji) == ["smiling", "face", "with", "smiling", "eyes", "smileys", "emotion"]
    assert caption_words(Emoji("x", "keycap: #", "Symbols", "keycap")) == ["keycap", "symbols"]
    food = Emoji("x", "pizza", "Food & Drink", "food-prepared")
    assert caption_words(food) == ["pizza", "food", "prepared", "drink"]


@needs_fribidi
def test_the_first_names_only(font: Path, names: Path, samples: EmojiImages) -> None:
    """Counted in names, with all of their skin tones."""
    few = EmojiImages("all", font=font, names=names, limit=6)
    assert len(few) == 6 and len(few.emojis) == 16 and few.emojis == samples.emojis[:16]
    assert few.words == vocabulary(few.emojis) and set(few.words) < set(samples.words)


@needs_fribidi
def test_emoji_that_the_font_does_not_have_are_counted_and_left_out(font: Path, tmp_path: Path) -> None:
    newer = [("1FAE8", "shaking face", "Smileys & Emotion/face-sleepy"), *EMOJIS]
    samples = EmojiImages("all", font=font, names=write_names(tmp_path / "newer.txt", newer))
    assert samples.missing == 1 and [emoji.name for emoji in samples.emojis] == [name for _, name, _ in EMOJIS]
    assert "shaking" not in samples.words and samples.visit(0)[0] == 0
    alone = write_names(tmp_path / "alone.txt", newer[:1])
    with pytest.raises(UserError, match="has none of the emoji that") as caught:
        EmojiImages("all", font=font, names=alone)
    assert str(font) in one_line(caught) and str(alone) in str(caught.value)


@needs_fribidi
def test_a_batch_is_the_pixels_and_the_words_of_its_visits(samples: EmojiImages) -> None:
    numbers = [0, 20, 4 + 21 * 7, 5 + 21 * 900_000, 0]
    batch = samples.__getitems__(numbers)
    assert batch.data.shape == (5, *samples.shape) == (5, 3, 32, 32) and batch.data.dtype == torch.float32
    assert batch.condition.shape == (5, 16) and batch.condition.dtype == torch.int64
    assert batch.images is not None and batch.images.min() >= 0 and batch.images.max() <= 1
    assert batch.data.min() >= -1 and batch.data.max() == 1
    for row, number in enumerate(numbers):
        place, words = samples.visit(number)
        pixels = samples.pixels[place].transpose(2, 0, 1) / 255
        assert np.abs(batch.images[row].numpy() - pixels).max() < 1e-6
        assert np.abs(batch.data[row].numpy() - (2 * pixels - 1)).max() < 1e-6
        wanted = [1 + samples.words.index(word) for word in words]
        assert batch.condition[row].tolist() == wanted + [0] * (16 - len(wanted))
    assert samples.without_images() is samples and samples.variants == VARIANTS


@needs_fribidi
def test_words_and_length_can_be_given(font: Path, names: Path, samples: EmojiImages) -> None:
    words = ("people", "hand", "waving", "never", "raised", *samples.words[::-1])
    words = tuple(dict.fromkeys(words))
    other = EmojiImages("all", 3, font=font, names=names, words=list(words))
    assert other.words == words
    batch = other.__getitems__(range(4, 4 + 21 * 20, 21))
    assert batch.condition.shape == (20, 3)
    for row, number in enumerate(range(4, 4 + 21 * 20, 21)):
        place, said = other.visit(number)
        assert (place, said) == samples.visit(number), "what is seen does not depend on the vocabulary"
        wanted = [1 + words.index(word) for word in said][:3]
        assert batch.condition[row].tolist() == wanted + [0] * (3 - len(wanted))


@needs_fribidi
def test_a_visit_is_a_function_of_its_number(samples: EmojiImages, font: Path, names: Path) -> None:
    """Whatever came before, whatever else draws random numbers, and in another process."""
    numbers = [3, 4 + 21 * 5, 17, 21 * VARIANTS - 1, 9 + 21 * 12]
    seen = [samples.visit(number) for number in numbers]
    torch.manual_seed(99)
    again = EmojiImages("all", font=font, names=names)
    again.__getitems__(range(50))
    assert [again.visit(number) for number in numbers[::-1]] == seen[::-1]


@needs_fribidi
def test_a_visit_is_what_it_always_was(samples: EmojiImages) -> None:
    """Or another release would train another model from the same command."""
    found = [samples.visit(4 + 21 * turn) for turn in range(6)]
    assert [(samples.emojis[place].name, " ".join(words)) for place, words in found] == VISITS


VISITS = [
    ("waving hand", "waving hand fingers body"),
    ("waving hand", "waving hand"),
    ("waving hand", "waving people body"),
    ("waving hand", "waving hand fingers open people body"),
    ("waving hand: medium-light skin tone", "waving hand medium light skin tone"),
    ("waving hand", "waving hand"),
]


@needs_fribidi
@pytest.mark.parametrize("number", [-1, 21 * VARIANTS, 21 * VARIANTS + 5])
def test_a_number_beyond_the_last_visit_is_refused(samples: EmojiImages, number: int) -> None:
    with pytest.raises(IndexError, match=f"there is no sample {number}; there are 21"):
        samples.visit(number)
    with pytest.raises(IndexError):
        samples.__getitems__([0, number])


@needs_fribidi
def test_half_of_the_visits_see_no_skin_tone_and_the_others_every_one_alike(samples: EmojiImages) -> None:
    turns = 3000
    for sample in (4, 6):
        assert len(samples.families[sample]) == 6
        places = Counter(samples.visit(sample + 21 * turn)[0] for turn in range(turns))
        plain, *tones = samples.families[sample]
        assert places[plain] / turns == pytest.approx(0.5, abs=0.03)
        assert [places[tone] / turns for tone in tones] == pytest.approx([0.1] * 5, abs=0.02)
    assert {samples.visit(0 + 21 * turn)[0] for turn in range(50)} == {samples.families[0][0]}


@needs_fribidi
def test_captions_are_the_name_or_it_with_its_groups_or_some_of_their_words(samples: EmojiImages) -> None:
    """A half, a quarter and a quarter, in which each word is kept with 0.6; which of the six words is no matter."""
    sample, turns = 6, 4000
    found: Counter[str] = Counter()
    words_kept: Counter[str] = Counter()
    for turn in range(turns):
        place, said = samples.visit(sample + 21 * turn)
        named, every = split_words(samples.emojis[place].name), caption_words(samples.emojis[place])
        if samples.emojis[place].name != "woman astronaut":
            continue
        kind = "name" if said == named else "all" if said == every else "some"
        found[kind] += 1
        if kind == "some":
            words_kept.update(said)
    assert every != named and caption_words(samples.emojis[samples.families[sample][0]]) == [
        "woman", "astronaut", "person", "role", "people", "body"
    ]  # fmt: skip
    total, keep = sum(found.values()), 0.6
    assert total > 1900
    by_chance = {"name": keep**2 * (1 - keep) ** 4, "all": keep**6}
    assert found["name"] / total == pytest.approx(0.5 + 0.25 * by_chance["name"], abs=0.03)
    assert found["all"] / total == pytest.approx(0.25 + 0.25 * by_chance["all"], abs=0.03)
    some = 0.25 * (1 - sum(by_chance.values()))
    assert found["some"] / total == pytest.approx(some, abs=0.03)
    # Of a word of a name, over what is neither the name nor all of it.
    for word, missing in (("woman", "name"), ("people", "")):
        wanted = keep - by_chance["all"] - (by_chance["name"] if missing else 0)
        assert words_kept[word] / total == pytest.approx(0.25 * wanted, abs=0.03)


@needs_fribidi
def test_words_of_a_caption_are_known_in_order_and_never_none(samples: EmojiImages) -> None:
    """Of names of one word too, of which chance often keeps none."""
    alone = 0
    for number in range(21 * 300):
        place, said = samples.visit(number)
        every = caption_words(samples.emojis[place])
        rest = iter(every)
        assert said and all(word in rest for word in said), (number, said, "not in the order of the name")
        assert set(said) <= set(samples.words)
        alone += said == every[:1] and len(split_words(samples.emojis[place].name)) > 1
    assert alone > 20, "one word of a name draws something too"


@pytest.fixture(scope="module")
def real() -> EmojiImages:
    """All that Debian's font has."""
    return EmojiImages("all")


def drawn(real: EmojiImages, name: str) -> np.ndarray:
    found = [place for place, emoji in enumerate(real.emojis) if emoji.name == name]
    assert len(found) == 1
    return real.pixels[found[0]].astype(int)


def is_colour(pixel: np.ndarray, *wanted: int) -> bool:
    return bool(np.abs(pixel - np.array(wanted)).max() <= 45)


@needs_emoji
def test_every_emoji_of_unicode_is_drawn_on_white(real: EmojiImages) -> None:
    listed = read_names()
    assert len(listed) >= 3655 and real.missing == 0 and real.emojis == listed
    assert real.pixels.shape == (len(listed), 32, 32, 3) and (real.pixels[:, [0, -1]][:, :, [0, -1]] == 255).all()
    assert (real.pixels.reshape(len(listed), -1) < 255).any(1).all(), "one is blank"
    assert len({picture.tobytes() for picture in real.pixels}) > 0.97 * len(listed)
    assert max(len(caption_words(emoji)) for emoji in real.emojis) <= 16, "a caption is longer than what is read"


@needs_emoji
def test_known_emoji_have_their_colours(real: EmojiImages) -> None:
    assert is_colour(drawn(real, "red apple")[18, 16], 255, 80, 25)
    assert is_colour(drawn(real, "grinning face")[16, 16], 253, 225, 50)
    assert is_colour(drawn(real, "blue heart")[16, 16], 25, 118, 210)
    france = drawn(real, "flag: France")
    assert is_colour(france[16, 5], 0, 44, 157) and is_colour(france[16, 16], 255, 255, 255)
    assert is_colour(france[16, 27], 236, 35, 48)
    japan = drawn(real, "flag: Japan")
    assert is_colour(japan[16, 16], 187, 0, 44) and is_colour(japan[16, 4], 255, 255, 255)
    # A sequence of two characters and a joiner: one person with a face, and its skin tone.
    assert is_colour(drawn(real, "woman astronaut")[15, 16], 250, 193, 33)
    assert is_colour(drawn(real, "woman astronaut: dark skin tone")[15, 16], 102, 75, 67)
    assert np.asarray(Image.fromarray(real.pixels[0])).shape == (32, 32, 3)


@needs_emoji
def test_what_debians_font_does_not_have_is_none() -> None:
    wanting = ["\U0010fffe", "\U0001f600\U0001f63a", "\U0001f43c\u200d\U0001f680"]
    assert [picture is None for picture in draw(["\U0001f600", *wanting])] == [False, True, True, True]
