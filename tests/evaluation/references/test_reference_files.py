"""References that were written: our own files, the evaluator's, and what is kept of images for the next time."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, SPATIAL, Pixels
from hastezoo.evaluation.images import open_images
from hastezoo.evaluation.references import load_reference, reference_of
from hastezoo.evaluation.references.building import build_reference
from hastezoo.evaluation.references.file import read_reference, write_reference
from tests.evaluation.references.test_references import Log, assert_same
from tests.evaluation.sources import Eye, adm, flip, pixels, refusal, save, write_files


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        build_reference(*arguments, **options)
    return refusal(error)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "images.npz", arr_0=pixels(60), arr_1=np.arange(60) % 4)


def kept_files(home: Path) -> list[Path]:
    return sorted((home / "references").glob("*"))


def test_our_own_file_round_trips_bit_for_bit(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.safetensors"
    built = build_reference(str(source), out, Eye())
    found = load_reference(str(out), Eye())
    assert_same(found, built)
    assert found.name == str(out) and found.count == 60 and found.description == str(source)
    tensors = load_file(out)
    assert {name: (one.dtype, one.shape) for name, one in tensors.items()} == {
        "mu": (np.float64, (6,)), "sigma": (np.float64, (6, 6)), "mu_s": (np.float64, (4,)),
        "sigma_s": (np.float64, (4, 4)), "features": (np.float32, (60, 6)),
    }  # fmt: skip


def test_arrays_that_lie_otherwise_in_memory_are_written_in_order(tmp_path: Path) -> None:
    whole = load_reference("digits-test", Pixels())
    assert whole.features is not None
    turned = type(whole)(**{**whole.__dict__, "features": np.asfortranarray(whole.features)})
    write_reference(tmp_path / "x.safetensors", turned, Pixels())
    assert_same(read_reference(tmp_path / "x.safetensors", Pixels()), whole)


def test_statistics_that_lack_something_round_trip(tmp_path: Path) -> None:
    path = adm(tmp_path / "x.npz", mu_s=None, sigma_s=None)
    built = build_reference(str(path), tmp_path / "y.safetensors", Eye())
    found = load_reference(str(tmp_path / "y.safetensors"), Eye())
    assert_same(found, built)
    assert found.features is None and found.missing.keys() == {"features", "spatial"} and found.count is None


def test_another_extractor_is_refused_with_both_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.safetensors"
    build_reference(str(source), out, Eye())
    for other in (Eye(version="2"), Pixels()):
        with pytest.raises(UserError) as error:
            load_reference(str(out), other)
        line = refusal(error)
        assert line.startswith(f"{out} holds inception features (features inception, weights_sha256 {'1' * 64}), not ")
        assert other.name in line and all(value in line for value in other.identity.values())


def broken(path: Path, how: str) -> None:
    if how == "byte":
        flip(path, -5)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif how == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif how == "foreign":
        save_file({"x": np.zeros(3)}, path)
    elif how == "facts":
        save_file({"x": np.zeros(3)}, path, {"format": "hastezoo-reference-1", "reference": '{"features": "x"}'})
    elif how == "later":
        save_file({"x": np.zeros(3)}, path, {"format": "hastezoo-reference-9"})


DAMAGE = {
    "byte": "is damaged: its tensors have not the sha256 that it states; build it anew",
    "truncated": "is not a readable safetensors file: ",
    "pointer": "is a pointer of git-lfs",
    "foreign": "is no reference (hastezoo-reference-1) but of another program; `hastezoo reference build` makes one",
    "facts": "extractor: field required",
    "later": "is no reference (hastezoo-reference-1) but of the format hastezoo-reference-9; ",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_files(how: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.safetensors"
    build_reference(str(source), out, Eye())
    broken(out, how)
    with pytest.raises(UserError) as error:
        load_reference(str(out), Eye())
    assert refusal(error).removeprefix(str(out)).lstrip(": ").startswith(DAMAGE[how])


def test_the_evaluators_file_is_one_that_numpy_and_we_read(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "ref.npz"
    built = build_reference(str(source), out, Eye())
    with np.load(out, allow_pickle=False) as file:
        assert np.array_equal(file["arr_0"], pixels(60)) and np.array_equal(file["arr_1"], np.arange(60) % 4)
        assert np.array_equal(file["mu"], built.moments[POOL].mean)
        assert np.array_equal(file["sigma_s"], built.moments[SPATIAL].covariance) and file["count"] == 60
    with zipfile.ZipFile(out) as archive, archive.open("arr_0.npy") as member:  # the way of the evaluator's own reader
        assert np.lib.format.read_magic(member) == (1, 0)
        assert np.lib.format.read_array_header_1_0(member) == ((60, 8, 8, 3), False, np.dtype(np.uint8))
        assert member.read() == pixels(60).tobytes()
    found = load_reference(str(out), Eye())
    assert np.array_equal(found.features, built.features) and found.count == 60 and found.missing == {}
    for feature in (POOL, SPATIAL):
        assert np.array_equal(found.moments[feature].mean, built.moments[feature].mean)
        assert np.array_equal(found.moments[feature].covariance, built.moments[feature].covariance)
        assert found.moments[feature].count == 60


def test_only_a_subset_of_the_images_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = np.array([0, 1, 2, 70, 71, 100, 149])
    for module in ("references", "references.arrays"):
        monkeypatch.setattr(f"hastezoo.evaluation.{module}.subset", lambda count: chosen)
    source = write_files(tmp_path / "x", grey := pixels(150, channels=1))
    build_reference(str(source), tmp_path / "ref.npz", Eye())
    with np.load(tmp_path / "ref.npz") as file:
        assert np.array_equal(file["arr_0"], np.repeat(grey[chosen], 3, -1)) and "arr_1" not in file


def test_what_cannot_be_built(source: Path, tmp_path: Path) -> None:
    own, adms = tmp_path / "a.safetensors", tmp_path / "a.npz"
    assert refused(str(source), tmp_path / "a.pt", Eye()).endswith(
        "a.pt must end in .safetensors, or in .npz for the ADM evaluator"
    )
    assert refused(str(source), adms, Pixels()) == (
        "statistics in an npz are of inception features; write those of pixels to FILE.safetensors"
    )
    place = tmp_path / "no" / "a.npz"
    assert refused(str(source), place, Eye()) == (
        f"cannot write {place}: {place.parent} is no folder that can be written; give another --out"
    )
    build_reference(str(source), own, Eye())
    assert refused(str(source), own, Eye()) == f"{own} is there already; give another --out, or --force"
    assert refused(str(own), tmp_path / "b.safetensors", Eye()) == f"{own} is a reference already; copy it"
    adm(adms, pixels(20))
    assert "is a reference of that kind already" in refused(str(adms), tmp_path / "b.npz", Eye())
    (tmp_path / "c.npz").mkdir()
    assert refused(str(source), tmp_path / "c.npz", Eye(), force=True).endswith("is there already; give another --out")
    before = own.read_bytes()
    build_reference("digits-test", own, Eye(), force=True)
    assert own.read_bytes() != before


def test_few_images_are_warned_of(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for count in (6, 7):
        build_reference(
            str(save(tmp_path / f"{count}.npz", arr_0=pixels(count))), tmp_path / f"{count}.safetensors", Eye()
        )
    (warning,) = recwarn.list
    assert str(warning.message).startswith("6 images are too few for 6 dimensions: the covariance is singular, and ")


def test_what_was_computed_is_kept_and_read_again(source: Path, own_home: Path) -> None:
    first, log = load_reference(str(source), Eye()), Log()
    (path,) = kept_files(own_home)
    again = Eye()
    assert_same(load_reference(str(source), again, say=log), first)
    assert again.calls == 0 and log == [f"inception statistics of {source}: computed before, read from {path}"]
    copy = source.with_name("copy.npz")
    copy.write_bytes(source.read_bytes())
    third = load_reference(str(copy), again)
    assert again.calls == 0 and third.name == third.description == str(copy)  # the same images under another name


def test_each_extractor_and_source_has_a_place_of_its_own(source: Path, tmp_path: Path, own_home: Path) -> None:
    sources, eyes = (source, save(tmp_path / "other.npz", arr_0=pixels(60, seed=3))), (Eye(), Eye(version="2"))
    for calls in (120, 120):
        for one in sources:
            for eye in eyes:
                load_reference(str(one), eye)
        assert [eye.calls for eye in eyes] == [calls, calls] and len(kept_files(own_home)) == 4


def test_other_images_under_the_same_name_are_looked_at(tmp_path: Path) -> None:
    """What torch-fidelity gets wrong: it caches by a name."""
    folder, eye = write_files(tmp_path / "x", pixels(30), "bmp"), Eye()
    first = load_reference(str(folder), eye)
    write_files(folder, pixels(30, seed=1), "bmp")  # all as before but the pixels and the time
    for path in folder.iterdir():
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    second = load_reference(str(folder), eye)
    assert eye.calls == 60 and not np.array_equal(first.moments[POOL].mean, second.moments[POOL].mean)
    load_reference(str(folder), eye, size=4)
    assert eye.calls == 90  # nor are those of another crop the same


def test_features_and_statistics_of_a_file_are_kept_apart(tmp_path: Path, own_home: Path) -> None:
    path = str(adm(tmp_path / "x.npz", pixels(30)))
    eye = Eye()
    first = load_reference(path, eye)
    assert_same(load_reference(path, eye), first)
    assert eye.calls == 30 and first.count is None and first.moments[POOL].count == 0
    (kept,) = kept_files(own_home)
    assert load_file(kept).keys() == {"features"}
    whole = reference_of(open_images(path), eye)  # statistics of its images, and not those that it states
    assert eye.calls == 60 and whole.count == 30 and whole.moments.keys() == {POOL, SPATIAL}


@pytest.mark.parametrize("how", ["byte", "truncated", "foreign", "facts", "empty"])
def test_what_is_kept_and_damaged_is_computed_anew(how: str, source: Path, own_home: Path) -> None:
    first, eye, log = load_reference(str(source), Eye()), Eye(), Log()
    (path,) = kept_files(own_home)
    good = path.read_bytes()
    path.write_bytes(b"") if how == "empty" else broken(path, how)
    assert_same(load_reference(str(source), eye, say=log), first)
    assert eye.calls == 60 and log[0].startswith(str(path)) and log[0].endswith("; it is computed anew")
    assert path.read_bytes()[-900:] == good[-900:]


def test_the_statistics_of_others_under_our_name_are_not_taken(source: Path, tmp_path: Path, own_home: Path) -> None:
    load_reference(str(source), Eye())
    (path,) = kept_files(own_home)
    other = str(save(tmp_path / "other.npz", arr_0=pixels(60, seed=3)))
    build_reference(other, path, Eye(), force=True)
    eye = Eye()
    assert load_reference(str(source), eye).identity == open_images(str(source)).identity and eye.calls == 60


def test_a_store_that_cannot_be_written_costs_time_alone(source: Path, own_home: Path) -> None:
    own_home.mkdir()
    (own_home / "references").write_text("a file where a folder should be")
    log = Log()
    assert load_reference(str(source), Eye(), say=log).count == 60
    assert len(log) == 1 and "not kept, since" in log[0]


def test_an_interruption_leaves_nothing(source: Path, tmp_path: Path, own_home: Path) -> None:
    class Interrupted(Eye):
        def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
            if self.calls >= 32:
                raise KeyboardInterrupt
            return super().__call__(images)

    (tmp_path / "out").mkdir()
    for ending in ("npz", "safetensors"):
        with pytest.raises(KeyboardInterrupt):
            build_reference(str(source), tmp_path / "out" / f"x.{ending}", Interrupted(), batch_size=16)
    assert not list((tmp_path / "out").iterdir()) and not kept_files(own_home)


def test_an_interruption_while_writing_leaves_what_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "x.npz"
    out.write_bytes(b"before")
    load_reference(str(source), Eye())  # so that images are read for writing alone

    def interrupted(self: Any, start: int, stop: int) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr("hastezoo.evaluation.images.arrays.NpzImages.read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_reference(str(source), out, Eye(), force=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.npz"] and out.read_bytes() == b"before"


def test_the_facts_in_a_file(source: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    import hastezoo

    build_reference(str(source), tmp_path / "x.safetensors", Eye())
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        metadata = file.metadata()
    facts = json.loads(metadata["reference"])
    assert metadata["format"] == "hastezoo-reference-1"
    assert facts["extractor"] == Eye().identity and facts["features"] == "inception"
    assert (facts["count"], facts["shape"], facts["lossy"], facts["source"]) == (60, [8, 8, 3], None, str(source))
    assert facts["source_identity"] == open_images(str(source)).identity and facts["hastezoo"] == hastezoo.__version__
    assert len(facts["sha256"]) == 64 and len(facts["date"]) == 10
