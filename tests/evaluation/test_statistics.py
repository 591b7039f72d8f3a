"""Moments that run along with the features against numpy's of all of them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hastezoo.evaluation.statistics import ROWS, Moments, RunningMoments

FEATURES = np.random.default_rng(0).normal(size=(2 * ROWS + 300, 5)) @ np.diag([1, 2, 3, 0.1, 1e3]) + 3


def running(features: np.ndarray, chunk: int) -> RunningMoments:
    moments = RunningMoments()
    for start in range(0, len(features), chunk):
        moments.add(features[start : start + chunk])
    return moments


def same(a: Moments, b: Moments) -> bool:
    """To the bit."""
    return a.count == b.count and np.array_equal(a.mean, b.mean) and np.array_equal(a.covariance, b.covariance)


@pytest.mark.parametrize("count", [2, 3, 7, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, len(FEATURES)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_they_are_numpys(count: int, dtype: type) -> None:
    x = FEATURES[:count].astype(dtype)
    found = running(x, 500).moments()
    assert found.count == count and found.mean.dtype == found.covariance.dtype == np.float64
    assert np.allclose(found.mean, x.astype(float).mean(0), rtol=1e-12, atol=0)
    assert np.allclose(found.covariance, np.cov(x.astype(float), rowvar=False, ddof=1), rtol=1e-9, atol=1e-12)
    assert np.array_equal(found.covariance, found.covariance.T)


@pytest.mark.parametrize("chunk", [1, 7, 500, ROWS, 2 * ROWS, 10**6])
def test_how_they_are_cut_into_chunks_changes_no_bit(chunk: int) -> None:
    assert same(running(FEATURES, chunk).moments(), running(FEATURES, 300).moments())


def test_asking_on_the_way_changes_no_bit() -> None:
    asked = RunningMoments()
    for start in range(0, len(FEATURES), 100):
        asked.add(FEATURES[start : start + 100])
        part = asked.moments()
        assert part.count == asked.count == min(start + 100, len(FEATURES))
        assert same(part, asked.moments()) and same(part, running(FEATURES[: start + 100], 500).moments())
    assert same(asked.moments(), running(FEATURES, 500).moments())


def test_moments_once_given_do_not_change() -> None:
    asked = running(FEATURES[:700], 500)
    before = asked.moments()
    mean, covariance = before.mean.copy(), before.covariance.copy()
    asked.add(FEATURES[700:])
    asked.moments()
    assert np.array_equal(before.mean, mean) and np.array_equal(before.covariance, covariance)


def test_the_callers_array_may_be_used_again() -> None:
    buffer, moments = np.empty((100, 5)), RunningMoments()
    for start in range(0, 1000, 100):
        buffer[:] = FEATURES[start : start + 100]
        moments.add(buffer)
    assert same(moments.moments(), running(FEATURES[:1000], 100).moments())


def test_a_large_mean_costs_no_digits() -> None:
    # Multiples of 2^-20 beside 2^30: both exact in float64, so that shifting changes nothing but the mean.
    x = np.round(FEATURES * 2**20) / 2**20
    near, far = running(x, 500).moments(), running(x + 2**30, 500).moments()
    assert np.allclose(far.covariance, near.covariance, rtol=1e-9, atol=1e-9)
    assert np.allclose(far.mean - 2**30, near.mean, rtol=0, atol=1e-6)


def test_one_feature_has_a_variance() -> None:
    found = running(np.array([[1.0], [2.0], [4.0]]), 2).moments()
    assert found.covariance.shape == (1, 1) and found.covariance[0, 0] == pytest.approx(7 / 3)


def test_memory_is_that_of_the_sums() -> None:
    width, chunk = 200, np.random.default_rng(1).normal(size=(500, 200)).astype(np.float32)
    moments = RunningMoments()
    tracemalloc.start()
    try:
        for _ in range(200):
            moments.add(chunk)
        moments.moments()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    rows, sums = 8 * ROWS * width, 8 * width * width
    assert peak < 2 * rows + 8 * sums < 200 * 8 * chunk.size / 10


def test_what_has_no_moments_is_refused() -> None:
    moments = RunningMoments()
    with pytest.raises(ValueError, match="at least 2 features, not 0"):
        moments.moments()
    moments.add(np.zeros((0, 3)))
    moments.add(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least 2 features, not 1"):
        moments.moments()
    with pytest.raises(ValueError, match=r"\(B, 3\), not \(2, 4\)"):
        moments.add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"\(B, 3\), not \(3,\)"):
        moments.add(np.zeros(3))
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="finite"):
            moments.add(np.array([[0.0, bad, 0.0]]))
    assert moments.count == 1  # what was refused has left no trace
    moments.add(np.ones((1, 3)))
    assert np.allclose(moments.moments().covariance, 0.5)


def test_moments_of_all_features_are_numpys() -> None:
    x = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    moments = Moments.of(x)
    assert np.allclose(moments.mean, x.astype(float).mean(0), atol=1e-12) and moments.count == 50
    assert np.allclose(moments.covariance, np.cov(x.astype(float).T), atol=1e-12)
    with pytest.raises(ValueError, match="N of at least 2"):
        Moments.of(np.zeros((1, 3)))
