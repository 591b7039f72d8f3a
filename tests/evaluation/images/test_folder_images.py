"""Folders of image files, of any hand's and of `hastezoo sample`'s."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hastezoo.cli.main import main
from hastezoo.errors import UserError
from hastezoo.evaluation.images import open_images
from tests.data.making import adm_crop, crop_of
from tests.evaluation.sources import pixels, refusal, write_files


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        open_images(str(folder), **options)
    return refusal(error)


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    images = pixels(12)
    found = open_images(str(write_files(tmp_path / "x", images)))
    assert (found.count, found.shape, found.lossy, found.labels) == (12, (8, 8, 3), False, None)
    assert np.array_equal(found.read(0, 12), images) and np.array_equal(found.read(9, 11), images[9:11])


def test_folders_below_count_and_hidden_things_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(5)
    for name, image in zip(("b/x.png", "a10/x.png", "a2/x.png", "c.bmp", "a2/deep/x.webp"), images, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    for name in (".hidden.png", ".cache/x.png", "notes.txt", "b/x.png.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    walk = os.walk

    def disorderly(top: Path) -> Any:
        for place, folders, names in walk(top):
            random.Random(1).shuffle(names)
            yield place, folders, names

    monkeypatch.setattr(os, "walk", disorderly)
    assert np.array_equal(open_images(str(tmp_path)).read(0, 5), images[[4, 2, 1, 0, 3]])


def test_many_files_go_through_threads_in_order(tmp_path: Path) -> None:
    """More than one thread's share of headers."""
    images = pixels(600, side=4)
    found = open_images(str(write_files(tmp_path / "x", images, "bmp")))
    assert np.array_equal(found.read(0, 600), images)


def test_grey_stays_grey_only_where_all_are(tmp_path: Path) -> None:
    grey = pixels(4, channels=1)
    folder = write_files(tmp_path / "x", grey)
    found = open_images(str(folder))
    assert found.shape == (8, 8, 1) and np.array_equal(found.read(0, 4), grey)
    Image.fromarray(pixels(1)[0]).save(folder / "9.png")  # the last of them is in colour
    mixed = open_images(str(folder)).read(0, 5)
    assert np.array_equal(mixed[:4], np.repeat(grey, 3, -1)) and np.array_equal(mixed[4], pixels(1)[0])


def test_alpha_is_dropped_and_deep_grey_is_scaled(tmp_path: Path) -> None:
    image, alpha = pixels(2)[:, :, :, :1], pixels(1, seed=9)[0, :, :, 0]
    for name, mode, bands in (("a", "LA", 1), ("b", "RGBA", 3)):
        (tmp_path / name).mkdir()
        merged = Image.merge(mode, [Image.fromarray(image[0, :, :, 0])] * bands + [Image.fromarray(alpha)])
        merged.save(tmp_path / name / "x.png")
        found = open_images(str(tmp_path / name))
        assert found.shape == (8, 8, bands) and np.array_equal(found.read(0, 1)[0], np.repeat(image[0], bands, -1))
    (tmp_path / "c").mkdir()
    Image.fromarray(image[1, :, :, 0].astype(np.uint16) * 256 + 77).save(tmp_path / "c" / "x.png")
    assert np.array_equal(open_images(str(tmp_path / "c")).read(0, 1)[0], image[1])


def test_sizes_that_differ(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(3))
    Image.new("RGB", (9, 8)).save(folder / "2.png")
    assert refused(folder) == (
        f"the images in {folder} differ in size: 0.png has 8 x 8 pixels, 2.png 9 x 8; measure images of one size, or "
        "give a size to crop them to"
    )


def test_photographs_are_cropped_as_adm_does(tmp_path: Path) -> None:
    wanted = []
    for number, name in enumerate(("astronaut", "coffee", "rocket")):
        image = crop_of(name, number)
        image.save(tmp_path / f"{number}.png")
        wanted.append(adm_crop(image, 24))
    found = open_images(str(tmp_path), size=24)
    assert found.shape == (24, 24, 3) and np.array_equal(found.read(0, 3), wanted)
    assert found.identity != open_images(str(tmp_path), size=16).identity


def test_unreadable_files_are_named_before_any_work(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(3, side=32))
    (folder / "1.png").write_bytes(b"")
    line = refused(folder)
    assert line.startswith(f"{folder / '1.png'} cannot be read as an image (") and line.endswith(
        "; mend it, or take it away"
    )


def test_files_that_end_early_are_named_when_they_are_read(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(3, side=32))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    found = open_images(str(folder))
    with pytest.raises(UserError) as error:
        found.read(0, 3)
    assert refusal(error).startswith(f"{folder / '1.png'} cannot be read as an image (")
    Image.new("RGB", (5, 5)).save(folder / "1.png")
    with pytest.raises(UserError, match=r"1\.png has changed: its pixels are \(5, 5, 3\), not \(32, 32, 3\)"):
        found.read(0, 3)


def test_pixels_of_32_bits_would_be_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "x.tif")
    assert refused(tmp_path).startswith(f"{tmp_path / 'x.tif'} cannot be read as an image (its pixels are of 32 bits")


def test_folders_without_images(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path} holds no images (.jpg, .jpeg, .png, .webp, ...)"


@pytest.mark.parametrize(
    ("ending", "options", "lossy"),
    [
        ("png", {}, False),
        ("bmp", {}, False),
        ("jpg", {}, True),
        ("webp", {"lossless": True}, False),
        ("webp", {"lossless": False}, True),
        ("webp", {"lossless": True, "exif": b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"}, False),
        ("webp", {"lossless": False, "icc_profile": b"odd"}, True),  # after which comes a byte to fill up
        ("tif", {}, False),
        ("tif", {"compression": "jpeg"}, True),
        ("gif", {}, None),
    ],
)
def test_what_compression_lost(ending: str, options: dict[str, Any], lossy: bool | None, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(2, side=16), ending, **options)
    assert open_images(str(folder)).lossy is lossy


def test_one_lossy_file_is_enough(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(3, side=16))
    Image.fromarray(pixels(1, side=16)[0]).save(folder / "1.jpg")
    Image.fromarray(pixels(1, side=16)[0]).save(folder / "2.gif")
    assert open_images(str(folder)).lossy is True
    assert open_images(str(folder), size=16).lossy is True
    assert open_images(str(folder), size=8).lossy is None  # made smaller, who can tell
    (folder / "1.jpg").unlink()
    assert open_images(str(folder)).lossy is None


def test_the_identity_follows_names_sizes_times_order_and_place(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(3), "bmp")
    first = open_images(str(folder)).identity
    assert open_images(f"{folder}/../x").identity == first
    facts = (folder / "1.bmp").stat()
    os.utime(folder / "1.bmp", ns=(facts.st_atime_ns, facts.st_mtime_ns + 1000))
    second = open_images(str(folder)).identity
    (folder / "2.bmp").rename(folder / "3.bmp")
    third = open_images(str(folder)).identity
    folder.rename(tmp_path / "y")
    fourth = open_images(str(tmp_path / "y")).identity
    (tmp_path / "y" / "3.bmp").unlink()
    fifth = open_images(str(tmp_path / "y")).identity
    assert len({json.dumps(one) for one in (first, second, third, fourth, fifth)}) == 5


def sample(folder: Path, *options: str) -> Path:
    arguments = ["sample", "--class", "3", "--class", "8", "-n", "6", "--steps", "2", "--out", str(folder), *options]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("form", ["png", "webp", "npz"])
def test_what_sample_left(form: str, tmp_path: Path) -> None:
    """The grid and the animation are no samples; of WebP only the pixels tell that they are grey."""
    wanted = open_images(str(sample(tmp_path / "npz", "--format", "npz") / "samples.npz"))
    found = open_images(str(sample(tmp_path / form, "--format", form, "--trajectory", "webp")))
    assert (found.count, found.shape) == (12, (8, 8, 1))
    assert np.array_equal(found.read(0, 12), wanted.read(0, 12))
    assert found.labels is not None and found.labels.tolist() == [3] * 6 + [8] * 6
    assert found.lossy is (None if form == "npz" else False)


def test_samples_come_in_their_records_order(tmp_path: Path) -> None:
    folder = sample(tmp_path / "x")
    record = json.loads((folder / "samples.json").read_text())
    before = open_images(str(folder))
    record["samples"].reverse()
    (folder / "samples.json").write_text(json.dumps(record))
    after = open_images(str(folder))
    assert np.array_equal(after.read(0, 12), before.read(0, 12)[::-1]) and after.identity != before.identity
    assert after.labels is not None and after.labels.tolist() == [8] * 6 + [3] * 6
    assert "drawn by sit-ti-digits" in after.description


def test_colour_samples_in_webp_are_in_colour(tmp_path: Path) -> None:
    images = pixels(3)
    images[0] = images[0, :, :, :1]  # the first is grey by chance
    folder = write_files(tmp_path / "x", images, "webp", lossless=True)
    rows = [{"file": f"{number}.webp", "class": 0} for number in range(3)]
    (folder / "samples.json").write_text(json.dumps({"request": {"model": "m"}, "samples": rows}))
    assert np.array_equal(open_images(str(folder)).read(0, 3), images)


def test_samples_that_are_not_all_there(tmp_path: Path) -> None:
    folder = sample(tmp_path / "x")
    (folder / "00004_class3_seed4.png").unlink()
    assert refused(folder) == (
        f"{folder} lacks 1 of the 12 files that its samples.json names, such as 00004_class3_seed4.png; the same "
        "`hastezoo sample` command goes on"
    )


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("{", "is not a samples.json of hastezoo"),
        ("[]", "is not a samples.json of hastezoo"),
        ('{"request": {"model": "m"}, "samples": []}', "names no files of its folder"),
        ('{"request": {"model": "m"}, "samples": [{"file": "../0.png", "class": 0}]}', "names no files of its folder"),
        ('{"request": {"model": "m"}, "samples": [{"file": "0.png"}]}', "is not a samples.json of hastezoo"),
    ],
)
def test_records_of_something_else(content: str, wanted: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(2))
    (folder / "samples.json").write_text(content)
    assert refused(folder) == f"{folder / 'samples.json'} {wanted}; take it away, and every image counts"
