"""REPA's folders: images and latents are paired by number, and what does not pair is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hastezoo.data.repa import RepaFolders, looks_like
from hastezoo.data.source import open_source
from hastezoo.errors import UserError

COUNT = 7
DIGITS = load_digits()


def image_name(number: int) -> str:
    return f"{number // 4:05d}/img{number:08d}.png"


def latent_name(number: int) -> str:
    """In folders that sort the other way round than those of the images."""
    return f"{9 - number // 4:05d}/img-mean-std-{number:08d}.npy"


def stored_moments(number: int) -> np.ndarray:
    """(8, 3, 2): means that tell the number, then standard deviations."""
    rng = np.random.default_rng(number)
    return np.concatenate([np.full((4, 3, 2), number), rng.uniform(0.1, 2, (4, 3, 2))]).astype(np.float32)


def write_labels(file: Path, entries: object) -> None:
    file.write_text(json.dumps({"labels": entries}), encoding="utf-8")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Seven digits as REPA's preprocessing leaves them, labelled by what they show."""
    for number in range(COUNT):
        image, latent = tmp_path / "images" / image_name(number), tmp_path / "vae-sd" / latent_name(number)
        for file in (image, latent):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((DIGITS.images[number] * 15).astype(np.uint8)).save(image)
        np.save(latent, stored_moments(number))
    write_labels(tmp_path / "images" / "dataset.json", [[image_name(n), int(DIGITS.target[n])] for n in range(COUNT)])
    write_labels(tmp_path / "vae-sd" / "dataset.json", [[latent_name(n), int(DIGITS.target[n])] for n in range(COUNT)])
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "vae-sd" / "00009" / "other.npy").write_bytes(b"not a latent")
    return tmp_path


def test_images_latents_and_labels_are_paired_by_number(folders: Path) -> None:
    source = RepaFolders(folders, shard_size=3)
    assert (source.total, source.units, source.has_moments) == (COUNT, 3, True)
    assert source.classes == [str(label) for label in range(max(DIGITS.target[:COUNT]) + 1)]
    units = [list(source.items(unit)) for unit in range(source.units)]
    assert [len(unit) for unit in units] == [3, 3, 1]
    items = [item for unit in units for item in unit]
    assert [item.id for item in items] == [image_name(number) for number in range(COUNT)]
    for number, item in enumerate(items):
        assert item.label == DIGITS.target[number] and item.moments
        image, moments = item.load(), item.moments()
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image)[..., 1], (DIGITS.images[number] * 15).astype(np.uint8))
        assert moments.dtype == np.float32
        assert np.array_equal(moments, stored_moments(number).reshape(2, 4, 3, 2))


def test_a_name_says_what_it_is(folders: Path) -> None:
    assert looks_like(folders) and not looks_like(folders / "images")
    assert isinstance(open_source(str(folders), shard_size=3), RepaFolders)


def test_a_copy_and_a_second_opening_give_the_same(folders: Path) -> None:
    first = RepaFolders(folders, shard_size=3)
    for other in (pickle.loads(pickle.dumps(first)), RepaFolders(folders, shard_size=3)):
        assert (other.fingerprint, other.units, other.classes) == (first.fingerprint, first.units, first.classes)
        assert [item.id for item in other.items(1)] == [item.id for item in first.items(1)]
        assert all(
            np.array_equal(a.moments(), b.moments()) for a, b in zip(other.items(2), first.items(2), strict=True)
        )
    assert pickle.loads(pickle.dumps(next(first.items(0)))).load().size == (8, 8)


def test_the_fingerprint_follows_names_and_labels(folders: Path) -> None:
    before = RepaFolders(folders, 3).fingerprint
    assert RepaFolders(folders, 2).fingerprint == before
    assert RepaFolders(folders, 2, "mean-logvar").fingerprint != before  # the same files, but other latents
    (folders / "vae-sd" / "dataset.json").unlink()
    assert RepaFolders(folders, 3).fingerprint == before
    write_labels(folders / "images" / "dataset.json", [[image_name(number), 9] for number in range(COUNT)])
    changed = RepaFolders(folders, 3).fingerprint
    (folders / "images" / "00000").rename(folders / "images" / "x")
    assert len({before, changed, RepaFolders(folders, 3).fingerprint}) == 3


@pytest.mark.parametrize("kept", ["above", "images", "vae-sd"])
def test_one_dataset_json_suffices(folders: Path, kept: str) -> None:
    (folders / "images" / "dataset.json").rename(folders / "dataset.json")
    (folders / "vae-sd" / "dataset.json").unlink()
    if kept != "above":
        (folders / "dataset.json").rename(folders / kept / "dataset.json")
    labels = [item.label for unit in range(2) for item in RepaFolders(folders, 4).items(unit)]
    assert labels == DIGITS.target[:COUNT].tolist()


def test_no_dataset_json(folders: Path) -> None:
    for folder in ("images", "vae-sd"):
        (folders / folder / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"has no dataset\.json with the labels"):
        RepaFolders(folders, 3)


def test_a_missing_latent_or_image_is_said(folders: Path) -> None:
    """Paired by order, every image after the missing one would get its neighbour's latent."""
    (folders / "vae-sd" / latent_name(2)).unlink()
    (folders / "vae-sd" / latent_name(5)).unlink()
    with pytest.raises(
        UserError, match=r"2 are in .*images without a latent in vae-sd, the first 00000/img00000002\.p"
    ):
        RepaFolders(folders, 3)
    for number in (2, 5, 6):
        (folders / "images" / image_name(number)).unlink()
    with pytest.raises(UserError, match=r"1 is in .*vae-sd without an image in images, the first .*-00000006\.npy"):
        RepaFolders(folders, 3)
    (folders / "vae-sd" / latent_name(6)).unlink()
    with pytest.raises(UserError, match=r"3 are with a label in dataset\.json and no file in .*, the first number 2;"):
        RepaFolders(folders, 3)


def test_an_image_without_a_label(folders: Path) -> None:
    (folders / "vae-sd" / "dataset.json").unlink()
    write_labels(folders / "images" / "dataset.json", [[image_name(number), 1] for number in range(1, COUNT)])
    with pytest.raises(UserError, match=r"1 is in .*images without a label in dataset\.json, .*img00000000\.png"):
        RepaFolders(folders, 3)


def test_labels_that_disagree(folders: Path) -> None:
    entries = [[latent_name(number), int(DIGITS.target[number])] for number in range(COUNT)]
    entries[3][1] = 8
    write_labels(folders / "vae-sd" / "dataset.json", entries)
    with pytest.raises(UserError, match=r"vae-sd.dataset\.json gives .*00000003\.npy label 8; another entry says 3"):
        RepaFolders(folders, 3)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (None, r"holds no labels \(labels: null\)"),
        ([[image_name(0), None]], r"the label of 00000/img00000000\.png is null"),
        ([[image_name(0), True]], "is true, not a number"),
        ([[image_name(0), -1]], "is -1, not a number"),
        ([[image_name(0)]], "is no pair of a name and a label"),
    ],
)
def test_labels_of_no_use(folders: Path, entries: object, message: str) -> None:
    write_labels(folders / "images" / "dataset.json", entries)
    with pytest.raises(UserError, match=message):
        RepaFolders(folders, 3)


def test_two_images_of_one_number(folders: Path) -> None:
    (folders / "images" / "00001" / "img00000000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"two files of number 0: 00000/img00000000\.png and 00001/img00000000\.jpg"):
        RepaFolders(folders, 3)


def test_a_jpeg_in_place_of_a_png(folders: Path) -> None:
    png = folders / "images" / image_name(1)
    Image.open(png).save(png.with_suffix(".JPG"))
    png.unlink()
    item = list(RepaFolders(folders, 3).items(0))[1]
    assert item.id == "00000/img00000001.JPG" and item.load().mode == "RGB"


def test_a_broken_image_is_found_when_it_is_read(folders: Path) -> None:
    file = folders / "images" / image_name(0)
    file.write_bytes(file.read_bytes()[:60])
    item = next(RepaFolders(folders, 3).items(0))
    with pytest.raises(OSError):
        item.load()


def test_log_variances_are_detected_and_converted(folders: Path) -> None:
    expected = stored_moments(0).reshape(2, 4, 3, 2)
    stored = stored_moments(0)
    stored[4:] = 2 * np.log(stored[4:])
    stored[4, 0, 0], stored[5, 0, 0] = 50, -50  # clipped as the autoencoder's own posterior is
    expected[1, 0, 0, 0], expected[1, 1, 0, 0] = np.exp(10), np.exp(-15)
    np.save(folders / "vae-sd" / latent_name(0), stored)
    read = next(RepaFolders(folders, 3).items(0)).moments
    assert read
    with pytest.raises(UserError, match=r"negative standard .*: these are log-variances; --moments mean-logvar$"):
        read()
    read = next(RepaFolders(folders, 3, moments="mean-logvar").items(0)).moments
    assert read and np.allclose(read(), expected, rtol=1e-5) and read().dtype == np.float32


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((7, 2, 2), np.float32), r"holds float32 \(7, 2, 2\)"),
        (np.zeros((8, 2), np.float32), r"holds float32 \(8, 2\)"),
        (np.zeros((8, 2, 2), np.uint8), r"holds uint8 \(8, 2, 2\)"),
        (np.full((8, 2, 2), np.nan, np.float32), "not finite"),
        (np.array([{}], dtype=object), "cannot be read as an array"),  # a pickle, which could run anything
    ],
)
def test_latents_of_no_use(folders: Path, array: np.ndarray, message: str) -> None:
    np.save(folders / "vae-sd" / latent_name(0), array)
    read = next(RepaFolders(folders, 3).items(0)).moments
    assert read
    with pytest.raises(UserError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_unknown_moments(folders: Path) -> None:
    with pytest.raises(UserError, match="unknown moments 'std': mean-std or mean-logvar"):
        RepaFolders(folders, 3, moments="std")  # type: ignore[arg-type]
