"""Colour emoji as captioned images: drawn from a font, captioned by their Unicode names and groups.

Neither the pictures nor the names are part of this package. Debian has both, as `fonts-noto-color-emoji` (Google's Noto
Color Emoji, SIL Open Font License 1.1) and `unicode-data` (Unicode's emoji-test.txt, Unicode licence).

A sample is an emoji without regard to skin tone: a visit to it draws one of its skin tones and a form of its caption,
as a visit to a photograph of COCO draws one of its captions. Which is a function of the sample's number alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, features
from torch import Tensor
from torch.utils.data import Dataset

from hastezoo.conditioning.words import WordNumbers, split_words
from hastezoo.data.batch import Batch
from hastezoo.data.order import generator
from hastezoo.errors import UserError

Split = Literal["train", "held-out", "judge", "all"]
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
NAMES = Path("/usr/share/unicode/emoji/emoji-test.txt")
SIZE = 109  # pixels; the only size of the bitmaps in Noto Color Emoji
SIDE = 32
HELD_OUT = 0.1  # of the names
TONE = re.compile("(medium-light|medium-dark|light|medium|dark) skin tone")
FACE = "\U0001f600"  # grinning; every font of emoji has it, yellow and as wide as its others
UNASSIGNED = "\U0010ffff"  # what a font draws for it, it draws for every character that it does not have
PLAIN = 0.5  # of the visits to an emoji with skin tones see it without
VARIANTS = 1 << 20


@dataclass(frozen=True)
class Emoji:
    """One line of Unicode's list.

    Attributes:
        text: The characters.
        name: Such as `waving hand: light skin tone`.
        group, subgroup: Such as `People & Body` and `hand-fingers-open`.
    """

    text: str
    name: str
    group: str
    subgroup: str

    @property
    def plain(self) -> str:
        """The name without skin tones, which the emoji of all skin tones share."""
        head, _, rest = self.name.partition(": ")
        kept = [part for part in rest.split(", ") if part and not TONE.fullmatch(part)]
        return f"{head}: {', '.join(kept)}" if kept else head


def read_names(path: Path = NAMES) -> list[Emoji]:
    """The fully qualified emoji of a file in the format of Unicode's emoji-test.txt, in its order.

    Raises:
        UserError: If there is no such file, it is damaged, or no emoji is in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the names of emoji cannot be read from {path} ({getattr(error, 'strerror', None) or error}); install "
            "Debian's unicode-data, or name a copy of https://unicode.org/Public/emoji/latest/emoji-test.txt with "
            "--names"
        ) from None
    found, group, subgroup = [], "", ""
    for line in lines:
        head, _, comment = line.partition("#")
        if comment.startswith(" group: "):
            group = comment.removeprefix(" group: ").strip()
        elif comment.startswith(" subgroup: "):
            subgroup = comment.removeprefix(" subgroup: ").strip()
        elif head.rstrip().endswith("; fully-qualified"):
            try:
                text = "".join(chr(int(code, 16)) for code in head.partition(";")[0].split())
            except (ValueError, OverflowError):
                raise UserError(f"{path} is damaged: no characters have the numbers {head.strip()[:80]!r}") from None
            name = re.sub(r"^\s*\S+ (?:E[\d.]+ )?", "", comment).strip()  # before Unicode 12.1 without E and version
            found.append(Emoji(text, name, group, subgroup))
    if not found:
        raise UserError(f"{path} names no emoji; it should be a copy of Unicode's emoji-test.txt")
    return found


def share(name: str, salt: str = "split") -> float:
    """A number in [0, 1) that is a function of a name without skin tones: it says which split the name is in."""
    digest = hashlib.sha256(f"hastezoo emoji {salt} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_in(split: Split, name: str) -> bool:
    """Whether a name without skin tones belongs to a split.

    `train` is 90 % of the names and `held-out` the others. `judge` is what the judge of samples learns from: all that
    are held out, for it must know what it is to recognise, and half of the others.

    Raises:
        ValueError: If the split is unknown.
    """
    held_out = share(name) < HELD_OUT
    belongs = {
        "train": not held_out, "held-out": held_out, "judge": held_out or share(name, "judge") < 0.5, "all": True,
    }  # fmt: skip
    if split not in belongs:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(belongs)}")
    return belongs[split]


def draw(texts: Sequence[str], font: Path = FONT, side: int = SIDE) -> list[np.ndarray | None]:
    """Each emoji on white, uint8 (side, side, 3); None for one that the font does not have.

    Raises:
        UserError: If there is no such font, it has no colours, or emoji of several characters cannot be put together.
    """
    if not features.check("raqm"):
        raise UserError(
            "Pillow cannot put emoji of several characters together: it finds no FriBiDi; install Debian's libfribidi0"
        )
    advice = "install Debian's fonts-noto-color-emoji, or name its NotoColorEmoji.ttf with --font"
    try:
        font.open("rb").close()  # one that is not there, Pillow would look for by its name in other folders
        loaded = ImageFont.truetype(str(font), SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise UserError(f"the font {font} cannot be used ({error.strerror or error}); {advice}") from None
    face = np.asarray(_picture(FACE, loaded))
    if (face == face[..., :1]).all():
        raise UserError(f"the font {font} has no emoji in colour; {advice}")
    absent, usual = _picture(UNASSIGNED, loaded).tobytes(), loaded.getlength(FACE)
    found: list[np.ndarray | None] = []
    for text in texts:
        picture = _picture(text, loaded)
        # A sequence that the font does not know comes apart into several pictures in a row.
        has = picture.tobytes() != absent and loaded.getlength(text) <= 1.2 * usual
        small = picture.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
        found.append(np.asarray(small) if has else None)
    return found


def _picture(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji in the middle of a white square."""
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    side = max(right - left, bottom - top, 1)
    canvas = Image.new("RGB", (side, side), "white")
    place = ((side - right + left) // 2 - left, (side - bottom + top) // 2 - top)
    ImageDraw.Draw(canvas).text(place, text, font=font, embedded_color=True)
    return canvas


def caption_words(emoji: Emoji) -> list[str]:
    """All words that a caption of it may have: those of its name, then those of its groups that the name lacks."""
    name = split_words(emoji.name)
    groups = split_words(f"{emoji.subgroup} {emoji.group}")
    return name + [word for word in dict.fromkeys(groups) if word not in name]


def vocabulary(emojis: Sequence[Emoji]) -> tuple[str, ...]:
    """The words of all their captions, in alphabetical order."""
    return tuple(sorted({word for emoji in emojis for word in caption_words(emoji)}))


class EmojiImages(Dataset[tuple[Tensor, Tensor]]):
    """Emoji as a model of words sees them: (3, 32, 32) float32 in [-1, 1], with numbers of words (L,) int64.

    Args:
        split: Which names.
        length: L.
        font, names: Where pictures and names are from.
        words: The vocabulary; None for that of the split.
        limit: The first so many names only, for trials.

    Attributes:
        emojis: Those that the font has, in Unicode's order.
        pixels: uint8 (N, 32, 32, 3), of each.
        families: The samples: places in `emojis` of the skin tones of one name, the one without first.
        words: The vocabulary.
        missing: Emoji of the split that the font does not have.
        fingerprint: Changes when a picture or a name does.
        font: Where the pictures are from.

    Raises:
        UserError: If pictures or names are not to be had.
    """

    shape: tuple[int, ...] = (3, SIDE, SIDE)
    variants = VARIANTS

    def __init__(
        self,
        split: Split = "train",
        length: int = 16,
        *,
        font: Path = FONT,
        names: Path = NAMES,
        words: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> None:
        listed = [emoji for emoji in read_names(names) if is_in(split, emoji.plain)]
        if limit is not None:
            kept = set(list(dict.fromkeys(emoji.plain for emoji in listed))[:limit])
            listed = [emoji for emoji in listed if emoji.plain in kept]
        drawn = draw([emoji.text for emoji in listed], font)
        self.emojis = [emoji for emoji, picture in zip(listed, drawn, strict=True) if picture is not None]
        self.font = font
        self.missing = len(listed) - len(self.emojis)
        if not self.emojis:
            raise UserError(f"the font {font} has none of the emoji that {names} names")
        self.pixels = np.stack([picture for picture in drawn if picture is not None])
        named = "\n".join(emoji.name for emoji in self.emojis)
        self.fingerprint = hashlib.sha256(named.encode() + self.pixels.tobytes()).hexdigest()[:16]
        self.families = _families(self.emojis)
        self.words = tuple(words) if words is not None else vocabulary(self.emojis)
        self.reader = WordNumbers(self.words, length)
        self._data = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        self._captions = [caption_words(emoji) for emoji in self.emojis]
        self._named = [len(split_words(emoji.name)) for emoji in self.emojis]

    def __len__(self) -> int:
        return len(self.families)

    def without_images(self) -> Self:
        """Itself: what a teacher would see costs nothing."""
        return self

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch at once: data (B, 3, 32, 32), numbers of words (B, L), and for a teacher the images in [0, 1].

        Raises:
            IndexError: If there is no such sample.
        """
        visits = [self.visit(index) for index in indices]
        data = self._data[[row for row, _ in visits]]
        return Batch(data, self.reader.states([" ".join(said) for _, said in visits]), (data + 1) / 2)

    def visit(self, index: int) -> tuple[int, list[str]]:
        """What visit number `index` sees: a place in `emojis`, and the words of the caption.

        Half of the visits read the name, a quarter the name and its groups, and a quarter some words of both, in
        order, so that one word of a name draws something too.
        """
        if not 0 <= index < len(self) * self.variants:
            raise IndexError(f"there is no sample {index}; there are {len(self)}")
        turn, sample = divmod(index, len(self))
        family = self.families[sample]
        toned, form, *kept = torch.rand(2 + 32, generator=generator("emoji", turn, sample)).tolist()
        plain = len(family) == 1 or toned < PLAIN
        row = family[0 if plain else 1 + int((toned - PLAIN) / (1 - PLAIN) * (len(family) - 1))]
        words, named = self._captions[row], self._named[row]
        if form < 0.5:
            return row, words[:named]
        if form < 0.75:
            return row, words
        some = [word for word, chance in zip(words, kept, strict=False) if chance < 0.6]
        return row, some or words[: 1 + int(kept[-1] * named) % named]


def _families(emojis: Sequence[Emoji]) -> list[list[int]]:
    """Places of the emoji of each name without skin tones; where there is one without, it comes first."""
    found: dict[str, list[int]] = {}
    for place, emoji in enumerate(emojis):
        found.setdefault(emoji.plain, []).append(place)
    return [sorted(places, key=lambda place: emojis[place].name != name) for name, places in found.items()]
