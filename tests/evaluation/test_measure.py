"""Every number of an evaluation is the formula's on the same features; what cannot be had says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hastezoo.errors import UserError
from hastezoo.evaluation import metrics as formulas
from hastezoo.evaluation.extractors import POOL, SPATIAL, Extractor, Pixels
from hastezoo.evaluation.features import FeatureStore, extract
from hastezoo.evaluation.measure import METRICS, check_counts, check_metrics, measure, metrics_for
from hastezoo.evaluation.neighbours import precision_recall
from hastezoo.evaluation.references import Reference, reference_of
from hastezoo.evaluation.statistics import Moments
from tests.evaluation.invented import Invented, Toy

COUNT = 1300


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy()


def stored(folder: Path, images: Invented, extractor: Extractor, count: int = COUNT) -> FeatureStore:
    store = FeatureStore(folder, {"of": "a test"})
    extract(images, extractor, store, count=count, batch_size=100)
    return store


@pytest.fixture
def reference(toy: Toy) -> Reference:
    return reference_of(Invented(1400, seed=1), toy, name="real")


@pytest.fixture
def store(tmp_path: Path, toy: Toy) -> FeatureStore:
    return stored(tmp_path / "features", Invented(COUNT), toy)


def test_each_number_is_its_formulas(store: FeatureStore, reference: Reference, toy: Toy) -> None:
    features, real = toy(Invented(COUNT).read(0, COUNT)), toy(Invented(1400, seed=1).read(0, 1400))
    found = measure(store, COUNT, reference, toy).metrics
    pool, spatial = Moments.of(features[POOL]), Moments.of(features[SPATIAL])
    assert found["fid"].value == pytest.approx(formulas.frechet_distance(pool, Moments.of(real[POOL])), rel=1e-9)
    assert found["sfid"].value == pytest.approx(formulas.frechet_distance(spatial, Moments.of(real[SPATIAL])), rel=1e-9)
    assert toy.classifier is not None
    probabilities = formulas.probabilities(features[POOL], toy.classifier)
    assert found["is"].value == pytest.approx(formulas.inception_score([probabilities]).value, rel=1e-6)
    balls = precision_recall(real[POOL], features[POOL])
    assert (found["precision"].value, found["recall"].value) == (balls.precision, balls.recall)
    assert (found["precision_float32"].value, found["recall_float32"].value) == (
        balls.precision_float32,
        balls.recall_float32,
    )
    kid = formulas.kernel_distance(features[POOL], real[POOL])
    assert (found["kid"].value, found["kid"].error) == (pytest.approx(kid.value), pytest.approx(kid.error))
    assert all(value.value is not None and value.reason is None for value in found.values())


def test_errors_are_what_repetition_shows(tmp_path: Path, reference: Reference, toy: Toy) -> None:
    """The distances of forty draws spread about as much as one draw says of itself."""
    values, errors = [], []
    for seed in range(40):
        store = stored(tmp_path / str(seed), Invented(400, seed=100 + seed), toy, 400)
        fid = measure(store, 400, reference, toy, ("fid",), curve=False).metrics["fid"]
        values.append(fid.value)
        errors.append(fid.error)
    assert 0.6 < np.std(values, ddof=1) / np.mean(errors) < 1.6


def test_the_curve_ends_in_the_distance(store: FeatureStore, reference: Reference, toy: Toy) -> None:
    found = measure(store, COUNT, reference, toy, ("fid",))
    assert found.curve is not None and found.curve.count == [81, 162, 325, 650, 1300]
    assert found.curve.fid[-1] == found.metrics["fid"].value
    features = toy(Invented(325).read(0, 325))[POOL]
    assert found.curve.fid[2] == pytest.approx(
        formulas.frechet_distance(Moments.of(features), reference.moments[POOL]), rel=1e-9
    )
    assert found.curve.fid[0] > found.curve.fid[-1], "few samples are further away"
    assert found.curve.limit is not None and found.curve.limit < found.curve.fid[-1]
    assert measure(store, COUNT, reference, toy, ("fid",), curve=False).curve is None


def test_a_reference_against_itself_is_at_no_distance(tmp_path: Path, toy: Toy) -> None:
    images = Invented(1100)
    found = measure(stored(tmp_path, images, toy, 1100), 1100, reference_of(images, toy), toy).metrics
    assert found["fid"].value == pytest.approx(0, abs=1e-9) and found["sfid"].value == pytest.approx(0, abs=1e-9)
    assert found["precision"].value == found["recall"].value == 1
    assert found["kid"].value is not None and found["kid"].value < 0  # images in both subsets


def test_an_order_by_class_is_noticed(tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of one class each have little to tell: the score is taken of the images shuffled, and that is said."""
    monkeypatch.setattr("hastezoo.evaluation.measure.SPLIT", 100)
    assert toy.classifier is not None
    images = Invented(1000)
    features = toy(images.read(0, 1000))[POOL]
    by_class = np.argsort((features @ toy.classifier.T).argmax(1), kind="stable")

    class Sorted(Invented):
        def read(self, start: int, stop: int) -> np.ndarray:
            return images.read(0, 1000)[by_class[start:stop]]

    reference = reference_of(Invented(30, seed=1), toy)
    sorted_one = measure(stored(tmp_path / "a", Sorted(1000), toy, 1000), 1000, reference, toy, ("is",))
    mixed_one = measure(stored(tmp_path / "b", images, toy, 1000), 1000, reference, toy, ("is",))
    assert sorted_one.order == "permuted" and "lowers the Inception Score to" in sorted_one.notes[0]
    assert mixed_one.order == "as given" and mixed_one.notes == []
    assert sorted_one.metrics["is"].value == pytest.approx(mixed_one.metrics["is"].value, rel=0.02)


def test_what_is_missing_says_why(tmp_path: Path, store: FeatureStore, reference: Reference, toy: Toy) -> None:
    bare = replace(
        reference,
        moments={POOL: reference.moments[POOL]},
        features=None,
        missing={SPATIAL: "the file holds mu and sigma alone", "features": "the file holds no images"},
    )
    found = measure(store, COUNT, bare, toy).metrics
    assert found["fid"].value is not None
    assert found["sfid"].value is None and found["sfid"].reason == "the file holds mu and sigma alone"
    for key in ("precision", "recall", "precision_float32", "recall_float32", "kid"):
        assert found[key].value is None and found[key].reason == "the file holds no images"
    pixels = Pixels()
    images = Invented(50)
    few = measure(stored(tmp_path / "p", images, pixels, 50), 50, reference_of(Invented(3), pixels), pixels, METRICS)
    assert few.metrics["sfid"].reason == "pixels features have no places, which sFID is about"
    assert few.metrics["is"].reason == "pixels features have no classifier, which the Inception Score takes"
    assert few.metrics["kid"].reason == "KID is a mean over subsets of 1000 images, and one side has 3"
    assert few.metrics["precision"].reason == "3 images have no 3 neighbours"


def test_fewer_samples_than_dimensions_are_refused(reference: Reference) -> None:
    widths = {POOL: 6, SPATIAL: 4}
    check_counts(6, reference, widths, METRICS)
    with pytest.raises(UserError, match=r"5 samples are fewer than the 6 dimensions of the pool features.*--allow-few"):
        check_counts(5, reference, widths, METRICS)
    check_counts(5, reference, widths, ("sfid", "is", "pr", "kid"))
    few = replace(reference, count=3)
    with pytest.raises(
        UserError, match="3 images in the reference real are fewer than the 4 dimensions of the spatial"
    ):
        check_counts(100, few, widths, ("sfid",))
    check_counts(100, replace(reference, count=None), widths, METRICS)


def test_metrics_are_those_the_features_have(toy: Toy) -> None:
    assert metrics_for(toy, (4, 4, 1)) == METRICS
    assert metrics_for(Pixels(), (4, 4, 1)) == ("fid", "pr", "kid")


def test_unknown_metrics_are_refused() -> None:
    check_metrics(METRICS)
    with pytest.raises(UserError, match="unknown metric 'fd': --metrics takes fid,sfid,is,pr,kid"):
        check_metrics(("fid", "fd"))
    with pytest.raises(UserError, match="unknown metric ''"):
        check_metrics(())
