"""References by name, from statistics, from images; held against numpy's mean and covariance."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hastezoo.data import digits
from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, SPATIAL, Extractor, Pixels
from hastezoo.evaluation.references import load_reference
from hastezoo.evaluation.references.named import NamedReference, named_references
from hastezoo.evaluation.references.reference import Reference, subset
from hastezoo.evaluation.statistics import Moments
from tests.evaluation.sources import Eye, adm, flip, pixels, refusal, save, statistics, write_files


class Log(list[str]):
    """What was said."""

    def __call__(self, line: str) -> None:
        assert "\n" not in line
        self.append(line)


def refused(text: Any, extractor: Extractor | None = None, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load_reference(str(text), extractor or Eye(), **options)
    return refusal(error)


def assert_moments(found: Moments, wanted: tuple[np.ndarray, np.ndarray]) -> None:
    assert found.mean.dtype == found.covariance.dtype == np.float64
    assert np.allclose(found.mean, wanted[0], rtol=1e-12) and np.allclose(found.covariance, wanted[1], rtol=1e-9)


def assert_same(one: Reference, other: Reference) -> None:
    """Bit for bit, but for the name."""
    for field in dataclasses.fields(Reference):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "moments":
            assert a.keys() == b.keys()
            for name in a:
                assert np.array_equal(a[name].mean, b[name].mean) and a[name].count == b[name].count
                assert np.array_equal(a[name].covariance, b[name].covariance)
        elif field.name == "features":
            assert (a is None) is (b is None) and np.array_equal(a, b) and (a is None or a.dtype == b.dtype)
        elif field.name != "name":
            assert a == b, field.name


def test_statistics_of_the_evaluators_file_are_taken_as_they_are(tmp_path: Path) -> None:
    images, eye, log = pixels(70), Eye(), Log()
    path = adm(tmp_path / "x.npz", images)
    seen: list[tuple[int, int]] = []
    found = load_reference(
        str(path), eye, batch_size=32, say=log, progress=lambda done, total: seen.append((done, total))
    )
    with np.load(path) as file:
        for feature, end in ((POOL, ""), (SPATIAL, "_s")):
            assert np.array_equal(found.moments[feature].mean, file["mu" + end])
            assert np.array_equal(found.moments[feature].covariance, file["sigma" + end])
            assert found.moments[feature].count == 0  # the file does not say
    assert found.features is not None and found.features.dtype == np.float32
    assert np.array_equal(found.features, Eye()(images)[POOL])
    assert (found.name, found.count, found.shape, found.lossy) == (str(path), None, (8, 8, 3), None)
    assert found.missing == {} and found.identity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert eye.calls == 70 and seen == [(32, 70), (64, 70), (70, 70)]
    assert len(log) == 1 and "kept in" in log[0]


def test_all_images_of_the_evaluators_file_are_balls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any other images a subset is; here one of at most 20."""
    monkeypatch.setattr("hastezoo.evaluation.references.subset", lambda count: subset(count, 20))
    images = pixels(50)
    whole = load_reference(str(adm(tmp_path / "x.npz", images)), Eye())
    assert whole.features is not None and len(whole.features) == 50
    part = load_reference(str(save(tmp_path / "y.npz", arr_0=images)), Eye(), batch_size=7)
    assert part.features is not None and len(part.features) == 20
    chosen = np.sort(np.random.default_rng(0).permutation(50)[:20])
    assert np.array_equal(part.features, Eye()(images)[POOL][chosen])
    assert_moments(part.moments[POOL], statistics(Eye()(images)[POOL]))


def test_the_subset_is_seeded_sorted_and_of_ten_thousand() -> None:
    assert np.array_equal(subset(300), np.arange(300)) and np.array_equal(subset(10_000), np.arange(10_000))
    chosen = subset(25_000)
    assert len(np.unique(chosen)) == 10_000 and (np.diff(chosen) > 0).all()
    assert abs(chosen.mean() - 12_500) < 300 and np.array_equal(chosen, subset(25_000))


def test_statistics_alone(tmp_path: Path) -> None:
    path = adm(tmp_path / "x.npz", mu_s=None, sigma_s=None, sigma=statistics(np.eye(6))[1].astype(np.float32))
    found = load_reference(str(path), Eye())
    assert found.features is None and found.shape is None and found.moments.keys() == {POOL}
    assert found.moments[POOL].covariance.dtype == np.float64
    assert found.missing == {"features": "x.npz holds no images (arr_0)", "spatial": "x.npz holds no mu_s and sigma_s"}
    assert found.identity == {"kind": "npz", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_other_features_than_inceptions_are_of_the_images(tmp_path: Path) -> None:
    images, log = pixels(90), Log()
    found = load_reference(str(adm(tmp_path / "x.npz", images)), Pixels(), say=log)
    assert_moments(found.moments[POOL], statistics(Pixels()(images)[POOL]))
    assert found.missing == {"spatial": "pixels has no spatial features"} and found.count == 90
    assert "the statistics in it are of inception features; those of pixels are of its images alone" in log[0]
    path = adm(tmp_path / "y.npz")
    assert refused(path, Pixels()) == (
        f"{path} holds statistics of inception features, and no images (arr_0) to take those of pixels of; take "
        "another reference"
    )


WRONG = {
    "half": ({"sigma": None}, " has mu and no sigma"),
    "other half": ({"mu": None}, " has sigma and no mu"),
    "spatial half": ({"mu_s": None}, " has sigma_s and no mu_s"),
    "width": (
        {"mu": np.zeros(64), "sigma": np.eye(64)},
        ": mu is float64 (64,), and for these features it must be floats (6,)",
    ),
    "square": (
        {"sigma": np.ones((6, 5))},
        ": sigma is float64 (6, 5), and for these features it must be floats (6, 6)",
    ),
    "whole": ({"mu": np.zeros(6, int)}, ": mu is int64 (6,), and for these features it must be floats (6,)"),
    "nan": ({"mu_s": np.array([0, 0, 0, np.nan])}, ": mu_s has values that are not finite"),
    "inf": ({"sigma": np.full((6, 6), np.inf)}, ": sigma has values that are not finite"),
    "symmetry": (
        {"sigma": np.eye(6) + np.eye(6, k=1) * 0.01},
        ": sigma is not symmetric (by 0.01, with variances up to 1)",
    ),
    "images": ({"arr_0": pixels(3) / 255}, ": arr_0 is float64; images must be uint8: scale to 0..255, round, cast"),
}


@pytest.mark.parametrize("name", WRONG)
def test_statistics_that_cannot_be(name: str, tmp_path: Path) -> None:
    changes, wanted = WRONG[name]
    path = adm(tmp_path / "x.npz", **changes)
    assert refused(path) == f"{path}{wanted}"


def test_rounding_leaves_a_covariance_symmetric_enough(tmp_path: Path) -> None:
    sigma = np.eye(6) * 4
    sigma[0, 1] = 4e-5
    assert load_reference(str(adm(tmp_path / "x.npz", sigma=sigma)), Eye()).moments[POOL].covariance[0, 1] == 4e-5


def test_images_of_every_kind_give_the_same_statistics(tmp_path: Path) -> None:
    images = pixels(40)
    wanted = Eye()(images)
    for source in (save(tmp_path / "x.npz", arr_0=images), write_files(tmp_path / "folder", images)):
        found = load_reference(str(source), Eye(), batch_size=16)
        for feature in (POOL, SPATIAL):
            assert_moments(found.moments[feature], statistics(wanted[feature]))
            assert found.moments[feature].count == 40
        assert np.array_equal(found.features, wanted[POOL]) and found.missing == {}
        assert (found.name, found.count, found.shape) == (str(source), 40, (8, 8, 3))
    assert found.lossy is False


def test_digits_are_their_levels() -> None:
    found = load_reference("digits", Pixels())
    assert_moments(found.moments[POOL], statistics(digits.load("all")[0]))
    assert np.array_equal(found.features, digits.load("all")[0]) and found.name == "digits" and found.lossy is False
    eye = Eye()
    assert load_reference("digits-test", eye).shape == (8, 8, 1) and eye.calls == 360  # shown to it as RGB bytes


def test_a_prepared_data_set(prepared: Path) -> None:
    found = load_reference(str(prepared), Eye())
    assert found.count == 240 and found.shape == (64, 64, 3) and found.lossy is False


def test_sizes(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "x", pixels(4, side=16))
    assert load_reference(str(folder), Eye(), size=8).shape == (8, 8, 3)
    path = adm(tmp_path / "x.npz", pixels(4))
    assert load_reference(str(path), Eye(), size=8).shape == (8, 8, 3)
    assert refused(path, size=16) == f"{path} is of images of 8 x 8 pixels; only a folder's are cropped to a size"


def test_what_is_too_little_or_not_finite(tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", arr_0=pixels(1))
    assert refused(path) == f"{path} has one image; statistics need two at least"

    class Broken(Eye):
        def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
            found = super().__call__(images)
            found[POOL][images[:, 0, 0, 0] == 77] = np.nan
            return found

    images = pixels(20)
    images[:, 0, 0, 0] = np.arange(60, 80)
    path = save(tmp_path / "y.npz", arr_0=images)
    assert refused(path, Broken(), batch_size=8) == f"the pool features of images 16..19 of {path} are not finite"


def test_what_is_not_there(tmp_path: Path) -> None:
    line = refused("imagnet256")
    assert line.startswith(
        "there is no file, folder or name 'imagnet256': it may be a file of statistics, an npz with "
    )
    assert line.endswith(
        "imagenet256, imagenet512, coco256-val, digits, digits-train, digits-test; nearest: imagenet256"
    )
    (tmp_path / "x.png").write_bytes(b"")
    assert refused(tmp_path / "x.png") == f"{tmp_path / 'x.png'} is one image; name the folder that it lies in"


def test_published_files_that_are_not_here(own_home: Path) -> None:
    line = refused("imagenet256")
    assert line.startswith(
        "the reference imagenet256 is not here: get VIRTUAL_imagenet256_labeled.npz (2,037,122,530 bytes) from "
        "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
    )
    place = own_home / "references" / "VIRTUAL_imagenet256_labeled.npz"
    assert line.endswith(f"and put it at {place}, or name the file by its path")
    assert "get fid_stats_mscoco256_val.npz from https://github.com/baofff/U-ViT and" in refused("coco256-val")


def test_published_files_are_found_by_either_name(own_home: Path) -> None:
    (own_home / "references").mkdir(parents=True)
    path = adm(own_home / "references" / "imagenet512.npz", pixels(20))
    found = load_reference("imagenet512", Eye())
    assert (found.name, found.count, found.moments[POOL].count) == ("imagenet512", 1_281_167, 1_281_167)
    assert found.description.startswith("ADM's reference of ImageNet at 512 px")
    path.rename(path.with_name("VIRTUAL_imagenet512.npz"))
    assert_same(load_reference("imagenet512", Eye()), found)
    adm(own_home / "references" / "fid_stats_mscoco256_val.npz", mu_s=None, sigma_s=None)
    assert load_reference("coco256-val", Eye()).missing.keys() == {"features", "spatial"}


def test_a_published_file_is_recognised_wherever_it_lies(tmp_path: Path) -> None:
    found = load_reference(str(adm(tmp_path / "VIRTUAL_imagenet512.npz", pixels(20))), Eye())
    assert (found.name, found.count, found.stated, found.verified) == ("imagenet512", 1_281_167, True, False)
    # Of the one of 256 px the size is known, and this is not it.
    path = adm(tmp_path / "VIRTUAL_imagenet256_labeled.npz", pixels(20))
    other = load_reference(str(path), Eye())
    assert (other.name, other.count, other.stated, other.verified) == (str(path), None, True, None)
    assert not load_reference("digits-test", Pixels()).stated


def test_a_truncated_download_is_refused(own_home: Path) -> None:
    (own_home / "references").mkdir(parents=True)
    path = adm(own_home / "references" / "VIRTUAL_imagenet256_labeled.npz", pixels(20))
    size = path.stat().st_size
    wanted = f"{path} has {size:,} bytes, and VIRTUAL_imagenet256_labeled.npz has 2,037,122,530: it is truncated"
    assert refused("imagenet256").startswith(wanted)


def test_a_digest_that_is_known_is_held_against_the_file(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own_home / "references").mkdir(parents=True)
    path = adm(own_home / "references" / "x.npz", pixels(20))
    facts = {"name": "known", "description": "d", "file": "x.npz", "url": "https://example.org/x.npz"}
    right = NamedReference(**facts, bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr("hastezoo.evaluation.references.named_references", lambda: {"known": right})
    assert load_reference("known", Eye()).description == "d"
    flip(path, -30)
    assert refused("known").startswith(f"{path} has not the sha256 of x.npz ({right.sha256}); fetch it again")


def test_the_table_of_names() -> None:
    table = named_references()
    assert list(table) == ["imagenet256", "imagenet512", "coco256-val"]
    assert all(one.url.startswith("https://") and not one.sha256 for one in table.values())
    assert "comparable only" in table["coco256-val"].note and table["coco256-val"].count is None


def test_names_win_and_homes_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    adm(tmp_path / "x.npz", pixels(4))
    assert load_reference("~/x.npz", Eye()).name == "~/x.npz"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits-test").mkdir()
    assert load_reference("digits-test", Pixels()).count == 360
