"""The error of the Fréchet distance, and its limit for many samples, against derivatives, the bootstrap, and draws."""

from __future__ import annotations

import numpy as np
import pytest

from hastezoo.evaluation.metrics import extrapolate, frechet_distance, frechet_error, frechet_gradient
from hastezoo.evaluation.statistics import Moments, RunningMoments
from tests.memory import run_measured


def moments(features: np.ndarray) -> Moments:
    running = RunningMoments()
    running.add(features)
    return running.moments()


def skewed(seed: int, count: int, width: int = 3) -> np.ndarray:
    """Correlated and far from normal."""
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return np.random.default_rng(seed).exponential(size=(count, width)) @ mixing


def test_gradient_is_that_of_the_distance() -> None:
    random = np.random.default_rng(2)
    samples, reference = Moments.of(skewed(0, 400, 6)), Moments.of(random.normal(size=(300, 6)) + 0.5)
    slope, curvature = frechet_gradient(samples, reference)
    transport = np.eye(6) - curvature
    assert np.allclose(transport @ samples.covariance @ transport, reference.covariance, atol=1e-9)
    for _ in range(5):
        shift, change = random.normal(size=6), random.normal(size=(6, 6))
        change = 0.01 * (change + change.T)
        ends = [
            frechet_distance(Moments(samples.mean + h * shift, samples.covariance + h * change, 400), reference)
            for h in (-1e-4, 1e-4)
        ]
        along = slope @ shift + np.vdot(curvature, change)
        assert (ends[1] - ends[0]) / 2e-4 == pytest.approx(along, rel=1e-6)


def test_error_in_one_dimension_is_elementary() -> None:
    x, reference = skewed(3, 500, 1), Moments(np.array([0.3]), np.array([[2.0]]), 0)
    samples = moments(x)
    apart, variance = x - x.mean(), samples.covariance[0, 0]
    influence = 2 * (x.mean() - 0.3) * apart + (1 - np.sqrt(2 / variance)) * (apart**2 - variance)
    assert frechet_error(samples, reference, [x]) == pytest.approx(influence.std() / np.sqrt(500), rel=1e-9)


def test_error_is_that_of_the_bootstrap_and_of_other_seeds() -> None:
    count, rounds = 1500, 500
    reference, x = Moments.of(skewed(1, 4000) * 1.3 + 0.2), skewed(2, count)
    stated = frechet_error(Moments.of(x), reference, [x[:400], x[400:]])
    assert stated is not None
    random = np.random.default_rng(3)
    drawn = [Moments.of(x[random.integers(count, size=count)]) for _ in range(rounds)]
    others = [Moments.of(skewed(seed, count)) for seed in range(100, 100 + rounds)]
    for some in (drawn, others):  # each is itself known to 3 % only, and skewed samples have errors of their own
        spread = np.std([frechet_distance(one, reference) for one in some])
        assert stated == pytest.approx(spread, rel=0.12)


def test_error_falls_with_the_square_root_of_the_count() -> None:
    reference = Moments.of(skewed(1, 4000) * 1.3 + 0.2)
    few, many = (frechet_error(Moments.of(x), reference, [x]) for x in (skewed(2, 1000), skewed(2, 16000)))
    assert few is not None and many is not None
    assert few / many == pytest.approx(4, rel=0.15)


def test_error_does_not_depend_on_the_chunks() -> None:
    x, reference = skewed(4, 3000).astype(np.float32), Moments.of(skewed(5, 500))
    whole = frechet_error(moments(x), reference, [x])
    assert frechet_error(moments(x), reference, np.array_split(x, 400)) == pytest.approx(whole, rel=1e-9)


def test_a_dimension_in_which_nothing_varies_changes_no_error() -> None:
    x, y = skewed(6, 200), skewed(7, 300)
    plain = frechet_error(moments(x), moments(y), [x])
    flat_x, flat_y = (np.insert(one, 1, 5.0, axis=1) for one in (x, y))
    assert frechet_error(moments(flat_x), moments(flat_y), [flat_x]) == pytest.approx(plain, rel=1e-6)


def test_other_dimensions_are_refused() -> None:
    two, three = Moments.of(np.eye(2)), Moments.of(np.eye(3))
    for call in (frechet_gradient, lambda a, b: frechet_error(a, b, [])):
        with pytest.raises(ValueError, match="2 and 3 dimensions"):
            call(two, three)


def test_error_needs_more_samples_than_dimensions_and_all_of_them() -> None:
    x = np.random.default_rng(8).normal(size=(7, 6))
    reference = Moments.of(np.random.default_rng(9).normal(size=(50, 6)))
    assert frechet_error(Moments.of(x), reference, [x]) is not None
    assert frechet_error(Moments.of(x[:6]), reference, [x[:6]]) is None
    with pytest.raises(ValueError, match="of 7 features, and 6 came"):
        frechet_error(Moments.of(x), reference, [x[:6]])


def test_a_line_is_found_again() -> None:
    counts = [1000, 2000, 5000, 50_000]
    assert extrapolate(counts, [2.5 + 3000 / count for count in counts]) == pytest.approx((2.5, 3000))
    assert extrapolate([10, 20], [1.0, 1.0]) == pytest.approx((1, 0))


def test_it_is_the_least_squares_line() -> None:
    counts, values = [100, 150, 400, 700], [4.0, 2.0, 3.0, 1.0]
    slope, limit = np.polyfit(1 / np.array(counts), values, 1)
    assert extrapolate(counts, values) == pytest.approx((limit, slope))


def test_the_bias_of_the_distance_is_taken_away() -> None:
    width = 20
    truth = Moments(np.zeros(width), np.eye(width), 0)
    x, counts = np.random.default_rng(4).normal(size=(4000, width)), [250, 500, 1000, 2000, 4000]
    values = [frechet_distance(Moments.of(x[:count]), truth) for count in counts]
    limit, slope = extrapolate(counts, values)
    assert slope > 0 and abs(limit) < 0.2 * values[-1]


def test_no_line_without_two_counts() -> None:
    for counts, values in (([5], [1.0]), ([5, 5], [1.0, 2.0]), ([5, 6], [1.0])):
        with pytest.raises(ValueError, match="two counts"):
            extrapolate(counts, values)


STAGE = """
import numpy as np
from hastezoo.evaluation.metrics import frechet_distance, frechet_error
from hastezoo.evaluation.statistics import RunningMoments
def chunks(seed, count):
    for part in range(count):
        yield np.random.default_rng((seed, part)).standard_normal((500, 2048), np.float32)
def moments(seed, count):
    running = RunningMoments()
    for chunk in chunks(seed, count):
        running.add(chunk)
    return running.moments()
samples, reference = moments(0, 20), moments(1, 10)
print(frechet_distance(samples, reference), frechet_error(samples, reference, chunks(0, 20)))
"""


@pytest.mark.slow
def test_2048_dimensions_fit_in_a_gigabyte() -> None:
    output, peak = run_measured(STAGE)
    distance, error = map(float, output.split())
    assert 0 < error < 0.05 * distance
    assert peak < 1 << 30
