"""Small stand-ins for the font and the list of names of emoji, and the marks of tests that need more than these."""

from __future__ import annotations

import colorsys
from pathlib import Path

import pytest
from PIL import features

from hastezoo.data.emoji import FONT, NAMES

# Without FriBiDi no font draws emoji of several characters, this file's own included.
needs_fribidi = pytest.mark.skipif(
    not features.check("raqm"), reason="Pillow finds no FriBiDi; install Debian's libfribidi0"
)
needs_emoji = pytest.mark.skipif(
    not (FONT.exists() and NAMES.exists() and features.check("raqm")),
    reason="no emoji; install Debian's fonts-noto-color-emoji and unicode-data (and libfribidi0)",
)

TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
Listed = tuple[str, str, str]  # characters' numbers, name, "group/subgroup"


def toned(codes: str, name: str, place: str) -> list[Listed]:
    """An emoji and its five skin tones, each the first character's."""
    first, _, rest = codes.partition(" ")
    tones = [(f"{first} {0x1F3FB + i:X} {rest}".strip(), f"{name}: {tone} skin tone") for i, tone in enumerate(TONES)]
    return [(codes, name, place), *((numbers, said, place) for numbers, said in tones)]


HANDS, ROLES = "People & Body/hand-fingers-open", "People & Body/person-role"
EMOJIS: list[Listed] = [
    ("1F600", "grinning face", "Smileys & Emotion/face-smiling"),
    ("1F62D", "loudly crying face", "Smileys & Emotion/face-concerned"),
    ("1F63A", "grinning cat", "Smileys & Emotion/cat-face"),
    ("2764 FE0F", "red heart", "Smileys & Emotion/heart"),
    *toned("1F44B", "waving hand", HANDS),
    *toned("270B", "raised hand", HANDS),
    *toned("1F469 200D 1F680", "woman astronaut", ROLES),
    ("1F43C", "panda", "Animals & Nature/animal-mammal"),
    ("1F419", "octopus", "Animals & Nature/animal-marine"),
    ("1F33B", "sunflower", "Animals & Nature/plant-flower"),
    ("1F34E", "red apple", "Food & Drink/food-fruit"),
    ("1F34F", "green apple", "Food & Drink/food-fruit"),
    ("1F34C", "banana", "Food & Drink/food-fruit"),
    ("1F355", "pizza", "Food & Drink/food-prepared"),
    ("1F680", "rocket", "Travel & Places/transport-air"),
    ("1F308", "rainbow", "Travel & Places/sky & weather"),
    ("26BD", "soccer ball", "Activities/sport"),
    ("1F3B8", "guitar", "Objects/musical-instrument"),
    ("0023 FE0F 20E3", "keycap: #", "Symbols/keycap"),
    ("1F1EF 1F1F5", "flag: Japan", "Flags/country-flag"),
    ("1F3F3 FE0F 200D 1F308", "rainbow flag", "Flags/flag"),
]
HELD_OUT = {"flag: Japan", "rainbow flag"}  # of their names


def text_of(codes: str) -> str:
    return "".join(chr(int(code, 16)) for code in codes.split())


def write_names(path: Path, emojis: list[Listed] = EMOJIS) -> Path:
    """A list in the format of Unicode's emoji-test.txt, with lines of every kind."""
    lines = ["# emoji-test.txt", "# Version: 15.0", "", "# Format: code points; status # emoji name", ""]
    group = subgroup = ""
    for codes, name, place in emojis:
        outer, inner = place.split("/")
        if outer != group:
            lines += [f"# group: {outer}", ""]
        if (outer, inner) != (group, subgroup):
            lines += [f"# subgroup: {inner}"]
        group, subgroup = outer, inner
        lines.append(f"{codes:54} ; fully-qualified     # {text_of(codes)} E1.0 {name}")
        if "FE0F" in codes:
            short = " ".join(code for code in codes.split() if code != "FE0F")
            lines.append(f"{short:54} ; unqualified         # {text_of(short)} E1.0 {name}")
    lines += ["", "# subgroup: skin-tone", f"{'1F3FB':54} ; component           # \U0001f3fb E1.0 light skin tone"]
    path.write_text("\n".join([*lines, "", "#EOF", ""]), encoding="utf-8")
    return path


Points = list[tuple[int, int]]
INVISIBLE = (0x200D, 0xFE0F)  # characters that join others


def square(left: int, bottom: int, side: int) -> Points:
    return [(left, bottom), (left, bottom + side), (left + side, bottom + side), (left + side, bottom)]


def colours_of(number: int, count: int = len(EMOJIS)) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """RGB in [0, 1] of the diamond and of the square of an emoji of `write_font`."""
    return colorsys.hsv_to_rgb(number / count, 1, 0.9), colorsys.hsv_to_rgb((number / count + 0.4) % 1, 1, 0.6)


def write_font(path: Path, emojis: list[Listed] = EMOJIS) -> Path:
    """A font in which each of them is a diamond in a colour of its own, with a square in another one somewhere in it.

    The last is a flat diamond, half as high as the others, and the one before it a tall one.
    """
    from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    shapes: dict[str, Points] = {".notdef": square(0, 0, 900)}
    for name, half in {"diamond": 512, "flat": 256, "tall": 700}.items():
        shapes[name] = [(0, half), (512, 2 * half), (1024, half), (512, 0)]
    shapes |= {f"square{place}": square(280 + 160 * (place % 3), 280 + 160 * (place // 3), 160) for place in range(9)}
    characters: dict[int, str] = {}
    layers, palette, rules = {}, [], []
    for number, (codes, *_) in enumerate(emojis):
        codepoints = [int(code, 16) for code in codes.split()]
        for one in codepoints:
            characters.setdefault(one, f"u{one:X}")
            shapes.setdefault(f"u{one:X}", [] if one in INVISIBLE else square(0, 0, 700))
        parts = [characters[one] for one in codepoints]
        name = parts[0] if len(parts) == 1 else f"emoji{number}"
        if len(parts) > 1:
            rules.append((-len(parts), f"sub {' '.join(parts)} by {name};"))
        left = len(emojis) - number
        shape, place = {1: ("flat", 0), 2: ("tall", 4)}.get(left, ("diamond", number % 9))
        shapes[name] = shapes[shape]
        layers[name] = [(shape, 2 * number), (f"square{place}", 2 * number + 1)]
        palette += [(*colour, 1) for colour in colours_of(number, len(emojis))]
    builder = FontBuilder(1024, isTTF=True)
    builder.setupGlyphOrder(list(shapes))
    builder.setupCharacterMap(characters)
    glyphs, widths = {}, {}
    for name, points in shapes.items():
        pen = TTGlyphPen(None)
        for place, point in enumerate(points):
            (pen.lineTo if place else pen.moveTo)(point)
        if points:
            pen.closePath()
        glyphs[name] = pen.glyph()
        widths[name] = (1024, min(x for x, _ in points)) if points else (0, 0)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(widths)
    builder.setupHorizontalHeader(ascent=1024, descent=0)
    builder.setupNameTable({"familyName": "Small Emoji", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.setupCOLR(layers)
    builder.setupCPAL([palette])
    joining = "\n".join(rule for _, rule in sorted(rules))  # the longest first
    addOpenTypeFeaturesFromString(builder.font, f"languagesystem DFLT dflt;\nfeature ccmp {{\n{joining}\n}} ccmp;")
    builder.save(str(path))
    return path
