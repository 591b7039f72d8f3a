"""Images by what a user types: npz, digits, prepared data sets; and what cannot be opened, in a line."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, Pixels
from hastezoo.evaluation.images import as_bytes, open_images, suited
from hastezoo.evaluation.metrics import frechet_distance
from hastezoo.evaluation.statistics import Moments
from tests.data.comparing import rows_of
from tests.evaluation.sources import adm, pixels, refusal, save


def refused(text: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        open_images(str(text), **options)
    return refusal(error)


def test_an_npz_of_images(tmp_path: Path) -> None:
    images, labels = pixels(30), np.arange(30) % 7
    path = save(tmp_path / "x.npz", arr_0=images, arr_1=labels.astype(np.int32))
    found = open_images(str(path))
    assert (found.count, found.shape, found.lossy, found.description) == (30, (8, 8, 3), None, str(path))
    assert found.identity == {"kind": "npz", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert found.labels is not None and found.labels.dtype == np.int64 and np.array_equal(found.labels, labels)
    assert np.array_equal(found.read(3, 12), images[3:12]) and found.read(3, 12).dtype == np.uint8
    assert open_images(str(path), size=8).count == 30


@pytest.mark.parametrize(
    "labels",
    [None, np.arange(29), np.arange(30) / 7, np.ones((30, 2), int), np.array(["a"] * 30)],
    ids=["none", "fewer", "floats", "2d", "words"],
)
def test_labels_are_whole_numbers_one_an_image_or_nothing(labels: np.ndarray | None, tmp_path: Path) -> None:
    arrays = {} if labels is None else {"arr_1": labels}
    assert open_images(str(save(tmp_path / "x.npz", arr_0=pixels(30), **arrays))).labels is None


def test_grey_images_and_references_open_too(tmp_path: Path) -> None:
    assert open_images(str(save(tmp_path / "x.npz", arr_0=pixels(3, channels=1)))).shape == (8, 8, 1)
    assert open_images(str(adm(tmp_path / "y.npz", pixels(4)))).count == 4


WRONG = {
    "keys": ({"mu": np.zeros(3), "sigma": np.eye(3)}, " has no images (arr_0); it holds mu, sigma"),
    "nothing": ({}, " has no images (arr_0); it holds no arrays"),
    "floats": (
        {"arr_0": pixels(3) / 255},
        ": arr_0 is float64; images must be uint8: scale to 0..255, round, cast",
    ),
    "wide": ({"arr_0": pixels(3).astype(np.int64)}, ": arr_0 is int64; images must be uint8, 0..255"),
    "signed": ({"arr_0": pixels(3).astype(np.int8)}, ": arr_0 is int8; images must be uint8, 0..255"),
    "one": ({"arr_0": pixels(1)[0]}, ": arr_0 is of shape (8, 8, 3); images are (N, H, W, C)"),
    "first": (
        {"arr_0": pixels(4).transpose(0, 3, 1, 2)},
        ": arr_0 is (N, C, H, W), (4, 3, 8, 8); it must be (N, H, W, C): transpose(0, 2, 3, 1)",
    ),
    "alpha": (
        {"arr_0": pixels(4, channels=4)},
        ": arr_0 is of shape (4, 8, 8, 4); its images have 4 channels, not 1 or 3",
    ),
    "empty": ({"arr_0": pixels(0)}, ": arr_0 is of shape (0, 8, 8, 3): there are no images in it"),
    "flat": ({"arr_0": pixels(2, side=0)}, ": arr_0 is of shape (2, 0, 0, 3): there are no images in it"),
    "turned": ({"arr_0": np.asfortranarray(pixels(4))}, ": arr_0 is in Fortran order; save np.ascontiguousarray of it"),
    "range": (
        {"arr_0": pixels(40) // 128},
        ": the first 16 images of arr_0 hold nothing above 1 (values 0..1?); they must be 0..255",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_an_npz_may_not_be(name: str, tmp_path: Path) -> None:
    arrays, wanted = WRONG[name]
    path = save(tmp_path / "x.npz", **arrays)
    assert refused(path) == f"{path}{wanted}"


def test_pictures_that_start_dark_are_pictures(tmp_path: Path) -> None:
    images = pixels(20)
    images[:15] = 0
    assert open_images(str(save(tmp_path / "x.npz", arr_0=images))).count == 20


def test_digits_are_seen_as_they_are() -> None:
    """Through bytes, 17 levels would come out moved."""
    levels, labels = load_digits(return_X_y=True)
    found = open_images("digits")
    assert (found.count, found.shape, found.lossy) == (1797, (8, 8, 1), False)
    assert np.array_equal(Pixels()(found.read(0, 1797))[POOL], levels.astype(np.float32))
    assert np.array_equal(found.labels, labels)
    rounded = Pixels()(as_bytes(found.read(0, 1797)))[POOL]
    assert 0 < np.abs(rounded - levels).max() < 0.5 * 16 / 255 + 1e-6


def test_splits_of_digits_are_the_studys() -> None:
    train, test = open_images("digits-train"), open_images("digits-test")
    assert (train.count, test.count) == (1437, 360) and train.identity != test.identity
    a, b = (Moments.of(Pixels()(one.read(0, one.count))[POOL]) for one in (train, test))
    assert frechet_distance(a, b) == pytest.approx(23.0, abs=0.05)
    assert open_images("digits", size=8).count == 1797
    assert refused("digits", size=16) == "digits holds images of 8 x 8 pixels; only a folder's are cropped to a size"


def test_the_benchmark_of_digits_measures_the_same() -> None:
    """Its features are pixels in float64."""
    from hastezoo.data import digits

    drawn = pixels(300, channels=1)
    ours = frechet_distance(
        Moments.of(Pixels()(drawn)[POOL]), Moments.of(Pixels()(open_images("digits").read(0, 1797))[POOL])
    )
    theirs = frechet_distance(Moments.of(digits.from_bytes(drawn)), Moments.of(digits.load("all")[0]))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_prepared_data_set(prepared: Path) -> None:
    found, rows = open_images(str(prepared)), rows_of(prepared)
    assert (found.count, found.shape, found.lossy) == (len(rows), (64, 64, 3), False)
    assert np.array_equal(found.labels, [row["label"] for row in rows])
    for start, stop in ((0, 5), (98, 103), (len(rows) - 1, len(rows))):  # a shard has 100
        wanted = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows[start:stop]]
        assert np.array_equal(found.read(start, stop), wanted)
    fingerprint = json.loads((prepared / "manifest.json").read_text())["shards"]
    joined = "".join(shard["sha256"] for shard in fingerprint)
    assert found.identity == {"kind": "prepared", "fingerprint": hashlib.sha256(joined.encode()).hexdigest()[:16]}
    assert refused(prepared, size=32) == (
        f"{prepared} holds images of 64 x 64 pixels; only a folder's are cropped to a size"
    )


def test_data_sets_that_are_jpeg_or_not_finished(prepared: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(prepared, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "image_format": "jpeg"}))
    assert open_images(str(copy)).lossy is True
    (copy / "manifest.json").rename(copy / "prepare.json")
    assert refused(copy).startswith(f"{copy} is not finished: type its `hastezoo prepare` command again")


KINDS = "it may be an npz with images in arr_0, a folder of images, a prepared data set, or one of digits, "


def test_what_is_nothing_of_the_kind(tmp_path: Path) -> None:
    assert refused("digit-test") == (
        f"there is no file, folder or name 'digit-test': {KINDS}digits-train, digits-test; nearest: digits-test"
    )
    assert refused(tmp_path / "zzz").endswith(f"{KINDS}digits-train, digits-test")
    Image.new("RGB", (8, 8)).save(tmp_path / "x.PNG")
    assert refused(tmp_path / "x.PNG") == f"{tmp_path / 'x.PNG'} is one image; name the folder that it lies in"
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert refused(tmp_path / "x.safetensors").startswith(
        f"{tmp_path / 'x.safetensors'} is no file of images; they are an"
    )
    (tmp_path / "x.tar").write_bytes(b"")
    assert refused(tmp_path / "x.tar") == f"{tmp_path / 'x.tar'} is no npz: it does not begin as one"


def test_a_name_means_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "digits" / "x.png")
    assert open_images("digits").count == 1797
    assert open_images("./digits").shape == (9, 9, 3)


def test_images_are_made_to_suit_a_network() -> None:
    between = np.array([0.0, 0.4, 0.6, 254.6, 255.0, 127.5]).reshape(1, 1, 6, 1)
    assert as_bytes(between).ravel().tolist() == [0, 0, 1, 255, 255, 128] and as_bytes(between).dtype == np.uint8
    colour = pixels(2)
    assert suited(colour, 3) is colour and suited(between, None) is between
    grey = pixels(2, channels=1)
    assert np.array_equal(suited(grey, 3), np.concatenate([grey] * 3, axis=-1))
    assert suited(between, 3).dtype == np.uint8 and suited(between, 1).shape == (1, 1, 6, 1)
    with pytest.raises(ValueError, match="3 channels"):
        suited(colour, 1)
