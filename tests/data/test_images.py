"""The square that a model learns is ADM's, and what is stored of it is that square."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from hastezoo.data.folders import read_image
from hastezoo.data.images import as_it_is, centre_crop, decode, encode, to_rgb
from tests.data.making import adm_crop, crop_of, digit

SIZES = {
    "tall": (45, 200),
    "wide": (301, 47),
    "far larger": (331, 290),
    "twice": (64, 64),
    "just below twice": (63, 65),
    "exact": (32, 32),
    "smaller": (20, 31),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_crop_is_adms(size: tuple[int, int]) -> None:
    image = crop_of("chelsea" if size[1] <= 300 else "astronaut", 1, size)
    square = centre_crop(image, 32)
    assert square.shape == (32, 32, 3) and square.dtype == np.uint8
    assert np.array_equal(square, adm_crop(image, 32))


def test_an_image_of_the_size_stays_as_it_is() -> None:
    image = crop_of("coffee", 2, (32, 32))
    assert np.array_equal(centre_crop(image, 32), np.asarray(image))
    assert np.array_equal(as_it_is(image, 32), np.asarray(image))


def test_the_centre_of_an_odd_rest_leans_up_and_left() -> None:
    image = crop_of("rocket", 3, (35, 32))
    assert np.array_equal(centre_crop(image, 32), np.asarray(image)[:, 1:33])


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "YCbCr"])
def test_other_modes_are_cropped_as_rgb(mode: str, tmp_path: Path) -> None:
    image = crop_of("chelsea", 4, (80, 50)).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)  # what is half transparent is not darkened
    square = centre_crop(image, 32)
    assert square.shape == (32, 32, 3) and np.array_equal(square, adm_crop(image, 32))
    if mode in ("L", "LA", "1"):
        assert np.array_equal(square[..., 0], square[..., 2])
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        return  # Pillow 12 does not read back the TIFF that it writes of this mode
    file = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr") else "x.png")
    image.save(file)
    assert read_image(file).mode == "RGB" and np.array_equal(np.asarray(read_image(file)), np.asarray(to_rgb(image)))


def test_transparency_shows_the_colour_beneath() -> None:
    image = crop_of("chelsea", 4, (40, 40))
    see_through = image.copy()
    see_through.putalpha(100)
    assert np.array_equal(centre_crop(see_through, 32), centre_crop(image, 32))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_of_grey_are_not_clipped_to_white(mode: str, tmp_path: Path) -> None:
    """Pillow's own conversion makes everything above 255 white, and with it nearly every such photograph."""
    grey = np.asarray(crop_of("chelsea", 5, (40, 40)).convert("L"))
    wide = grey.astype(np.uint16) * 257
    image = Image.frombytes(mode, (40, 40), wide.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    assert np.array_equal(np.asarray(to_rgb(image)), np.stack([grey] * 3, -1))
    Image.fromarray(wide).save(tmp_path / "x.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png"))[..., 1], grey)


def test_an_image_cropped_before_must_have_the_size() -> None:
    with pytest.raises(ValueError, match="it is 8 x 8 pixels, not 32 x 32"):
        as_it_is(digit(0), 32)
    with pytest.raises(ValueError, match="it is 32 x 33 pixels"):
        as_it_is(crop_of("coffee", 0, (32, 33)), 32)
    assert as_it_is(digit(0).convert("L"), 8).shape == (8, 8, 3)


def test_png_is_lossless_and_jpeg_is_near() -> None:
    for pixels in (np.asarray(crop_of("astronaut", 6, (64, 64))), np.asarray(digit(3).resize((64, 64)))):
        png, jpeg = encode(pixels, "png"), encode(pixels, "jpeg")
        assert png.startswith(b"\x89PNG") and jpeg.startswith(b"\xff\xd8")
        assert np.array_equal(decode(png), pixels)
        difference = np.abs(decode(jpeg).astype(int) - pixels)
        assert 0 < difference.mean() < 2.5 and difference.max() < 40


def test_jpeg_keeps_the_colours_resolution() -> None:
    """Red and blue in columns of one pixel: with a quarter of the chroma they become violet."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::2, 0], pixels[:, 1::2, 2] = 255, 255
    assert np.abs(decode(encode(pixels, "jpeg")).astype(int) - pixels).max() < 40


def test_damaged_bytes_are_an_exception() -> None:
    file = encode(np.asarray(crop_of("astronaut", 7, (64, 64))), "png")
    for bad in (b"", b"not an image", file[: len(file) // 2]):
        with pytest.raises((OSError, SyntaxError)):
            decode(bad)
