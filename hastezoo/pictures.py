"""Arrays of bytes -> pictures to look at, and how plots look."""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from hastezoo.errors import UserError
from hastezoo.files import atomic_write

CELL = 64  # smaller images are enlarged to about this many pixels in grids and animations
GAP = 2
GROUND = 40
CAPTION = 18  # pixels of a line of text
LINES = 3  # of a caption at the most
NO_TEXT = "(no text)"
# Of matplotlib, for every plot of the project.
PLOT_STYLE: dict[str, object] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
    "text.parse_math": False,  # a folder may be called $x$
}


def to_pil(pixels: np.ndarray, enlarge: int = 1) -> Image.Image:
    """uint8 (H, W, C) with C = 1 or 3 -> a grey or RGB image, enlarged by a whole factor without smoothing.

    Raises:
        ValueError: If the array is something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"expected uint8 (H, W, 1 or 3), not {pixels.dtype} {pixels.shape}")
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if enlarge > 1:
        image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
    return image


def encode(image: Image.Image, format: str, text: dict[str, str] | None = None) -> bytes:
    """An image as PNG or lossless WebP.

    Args:
        image: The picture.
        format: png or webp.
        text: What a PNG file carries beside the picture, by key: a tEXt chunk each, before the pixels.

    Raises:
        ValueError: If there is text for another format.
    """
    if text and format != "png":
        raise ValueError(f"only PNG files carry text, not {format}")
    options: dict[str, object] = {"lossless": True} if format == "webp" else {}
    if text:
        options["pnginfo"] = chunks = PngImagePlugin.PngInfo()
        for key, value in text.items():
            chunks.add_text(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format.upper(), **options)
    return buffer.getvalue()


def read_text(path: Path) -> dict[str, str]:
    """The texts that a PNG file carries, by key; none of another kind of picture.

    Raises:
        UserError: If the file is no picture, or a broken one.
    """
    try:
        with Image.open(path) as image:
            found = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
            return {key: str(value) for key, value in found.items()}
    except UnidentifiedImageError:
        raise UserError(f"{path} is no picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"the picture {path} cannot be read: {reason}") from None


def viewing_scale(height: int) -> int:
    """The whole factor that brings an image to about CELL pixels."""
    return max(1, round(CELL / height))


def columns_for(count: int, conditions: int = 1) -> int:
    """Columns of a grid: a row for each condition where that fills it, else as square as can be."""
    if conditions > 1 and count % conditions == 0 and count // conditions > 1:
        return count // conditions
    return max(1, int(np.ceil(np.sqrt(count))))


def grid(pixels: np.ndarray, columns: int | None = None, captions: Sequence[object] | None = None) -> Image.Image:
    """Images (N, H, W, C) set out row by row on a dark ground.

    Args:
        pixels: The images.
        columns: As square as can be where it is not given.
        captions: Text under each image, or, where there are as many as rows and fewer than images, under each row; in
            up to `LINES` lines, as many as the longest needs.
    """
    count, height, width, _ = pixels.shape
    columns = columns or columns_for(count)
    scale, rows = viewing_scale(height), -(-count // columns)
    by_row = captions is not None and len(captions) == rows and rows < count
    step_x = width * scale + GAP
    room = (columns * step_x if by_row else step_x) - 2 * GAP
    written = [wrapped(str(caption), room) for caption in captions or ()]
    step_y = height * scale + GAP + CAPTION * max(map(len, written), default=0)
    first = to_pil(pixels[0])
    mode = first.mode if captions is None else "RGB"
    sheet = Image.new(mode, (columns * step_x + GAP, rows * step_y + GAP), GROUND if mode == "L" else (GROUND,) * 3)
    for index, image in enumerate(pixels):
        place = (GAP + index % columns * step_x, GAP + index // columns * step_y)
        sheet.paste(to_pil(image, scale), place)
    for index, lines in enumerate(written):
        across, down = (0, index) if by_row else (index % columns, index // columns)
        for number, line in enumerate(lines):
            top = GAP + down * step_y + height * scale + number * CAPTION
            write(sheet, line, (GAP + across * step_x, top), room)
    return sheet


def wrapped(text: str, room: int, most: int = LINES) -> list[str]:
    """Text in lines of so many pixels, broken between words; the last has all that is left, whatever its length."""
    lines, words = [""], (text[: most * room] or NO_TEXT).split()  # no letter is narrower than a pixel
    for place, word in enumerate(words):
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _width(longer) <= room:
            lines[-1] = longer
        elif len(lines) < most:
            lines.append(word)
        else:
            lines[-1] = " ".join([lines[-1], *words[place:]])
            break
    return lines


def write(sheet: Image.Image, text: str, place: tuple[int, int], room: int) -> None:
    """Write a line of text at (x, y) into a picture, cut to so many pixels."""
    kept = text[:room] or NO_TEXT  # cutting a book letter by letter is slow
    while len(kept) > 1 and _width(kept) > room:
        kept = kept.removesuffix("…")[:-1].rstrip() + "…"
    ImageDraw.Draw(sheet).text((place[0], place[1] + 2), kept, fill=(225, 225, 225), font=caption_font())


def _width(text: str) -> float:
    """Pixels of a line of text."""
    return caption_font().getlength(text)


@functools.cache
def caption_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which matplotlib brings along (it is not imported for it), or Pillow's own of Latin letters."""
    found = importlib.util.find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), CAPTION - 6)
    return ImageFont.load_default()


def save_animation(path: Path, frames: Sequence[Image.Image], milliseconds: int = 80, hold: int = 1500) -> None:
    """An animated WebP or GIF, by the ending of `path`, whose last frame stays for `hold` milliseconds."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in ("webp", "gif"):
        raise ValueError(f"an animation is .webp or .gif, not {path.suffix!r}")
    buffer = io.BytesIO()
    durations = [milliseconds] * (len(frames) - 1) + [hold]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(
        buffer, kind.upper(), save_all=True, append_images=list(frames[1:]), duration=durations, loop=0, **options
    )
    atomic_write(path, buffer.getvalue())
