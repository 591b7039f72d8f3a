"""The Fréchet distance against closed forms and the reference evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from hastezoo.data import digits
from hastezoo.evaluation.metrics import frechet_distance
from hastezoo.evaluation.statistics import Moments
from tests.conftest import GOLDEN


def test_one_dimension_is_elementary() -> None:
    a, b = Moments(np.array([1.0]), np.array([[4.0]]), 9), Moments(np.array([-2.0]), np.array([[9.0]]), 9)
    assert frechet_distance(a, b) == pytest.approx(3**2 + (3 - 2) ** 2)


def test_equals_the_matrix_square_root() -> None:
    random = np.random.default_rng(0)
    a, b = (Moments.of(random.normal(size=(200, 12)) @ random.normal(size=(12, 12)) + shift) for shift in (0, 1))
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    wanted = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert abs(frechet_distance(a, a)) < 1e-9


def test_moments_are_numpys() -> None:
    x = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    moments = Moments.of(x)
    assert np.allclose(moments.mean, x.astype(float).mean(0), atol=1e-12) and moments.count == 50
    assert np.allclose(moments.covariance, np.cov(x.astype(float).T), atol=1e-12)


def test_golden_fid() -> None:
    path: Path = GOLDEN / "metrics_golden.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path) as golden:
        reference, samples = golden["ref_pool"], golden["smp_pool"]
        got = frechet_distance(Moments.of(samples), Moments.of(reference))
        singular = frechet_distance(Moments.of(samples[:40]), Moments.of(reference[:40]))
    assert got == pytest.approx(1.39747464359, rel=1e-9)
    assert singular == pytest.approx(3.85375707401, rel=1e-9)


def test_real_splits_are_as_far_apart_as_stated() -> None:
    train, test = (Moments.of(digits.load(split)[0]) for split in ("train", "test"))
    assert frechet_distance(train, test) == pytest.approx(23.0, abs=0.05)


def test_mismatches_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        frechet_distance(Moments.of(np.eye(2)), Moments.of(np.eye(3)))
    with pytest.raises(ValueError, match="N of at least 2"):
        Moments.of(np.zeros((1, 3)))
