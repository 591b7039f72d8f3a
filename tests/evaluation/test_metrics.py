"""FID, the Inception Score and KID against closed forms, torch-fidelity, and the reference evaluator."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.linalg

from hastezoo.data import digits
from hastezoo.evaluation.metrics import (
    Score,
    frechet_distance,
    inception_score,
    kernel_distance,
    probabilities,
)
from hastezoo.evaluation.statistics import Moments, RunningMoments
from tests.conftest import GOLDEN

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def expected() -> Arrays:
    """Features and what the reference evaluator makes of them."""
    path = GOLDEN / "metrics_golden.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path) as archive:
        return dict(archive)


def chunks(features: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (features[start : start + size] for start in range(0, len(features), size))


def running(features: np.ndarray, size: int = 77) -> Moments:
    moments = RunningMoments()
    for chunk in chunks(features, size):
        moments.add(chunk)
    return moments.moments()


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64))
    return weights / weights.sum(1, keepdims=True)


# The Fréchet distance


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


@pytest.mark.parametrize("count", [5, 200])
def test_singular_covariances_are_exact(count: int) -> None:
    """Features that vary in a few directions only: as far apart as in those directions."""
    random = np.random.default_rng(13)
    few = [random.normal(size=(count, 4)) * (1, 2, 0.5, 3) + shift for shift in (0, 1)]
    turned = np.linalg.qr(random.normal(size=(30, 30)))[0][:4]
    wanted = frechet_distance(*(Moments.of(x) for x in few))
    assert frechet_distance(*(Moments.of(x @ turned) for x in few)) == pytest.approx(wanted, rel=1e-9)
    one = Moments.of(few[0] @ turned)
    twice = Moments(one.mean, 4 * one.covariance, 0)
    assert frechet_distance(one, twice) == pytest.approx(np.trace(one.covariance), rel=1e-9)


def test_rounding_of_a_singular_covariance_does_not_count() -> None:
    """Against 4 I: tr S + 12 - 4 tr sqrt(S), of which a third eigenvalue of 1e-15 would be 1e-7."""
    random = np.random.default_rng(14)
    for _ in range(20):
        few = random.normal(size=(50, 2)) * (1, 3)
        flat = Moments.of(few @ np.linalg.qr(random.normal(size=(3, 3)))[0][:2])
        root = np.sqrt(np.linalg.eigvalsh(np.cov(few.T))).sum()
        found = frechet_distance(flat, Moments(flat.mean, 4 * np.eye(3), 0))
        assert found == pytest.approx(np.trace(flat.covariance) + 12 - 4 * root, rel=1e-10)


def test_frechet_distance_is_torch_fidelitys() -> None:
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    random = np.random.default_rng(1)
    a, b = (random.normal(size=(300, 20)) @ random.normal(size=(20, 20)) + shift for shift in (0, 0.3))
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)), verbose=False)
    assert frechet_distance(running(a), running(b)) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


@pytest.mark.parametrize("moments", [Moments.of, running])
def test_golden_fid(expected: Arrays, moments: Callable[[np.ndarray], Moments]) -> None:
    reference, samples = expected["ref_pool"], expected["smp_pool"]
    assert frechet_distance(moments(samples), moments(reference)) == pytest.approx(1.39747464359, rel=1e-9)
    stored = Moments(expected["ref_mu"], expected["ref_sigma"], 0)
    assert frechet_distance(moments(samples), stored) == pytest.approx(1.39747464359, rel=1e-9)
    singular = frechet_distance(moments(samples[:40]), moments(reference[:40]))
    assert singular == pytest.approx(3.85375707401, rel=1e-9)


def test_golden_sfid(expected: Arrays) -> None:
    def spatial(maps: np.ndarray) -> np.ndarray:
        return maps[:, :7].transpose(0, 2, 3, 1).reshape(len(maps), -1)

    samples, reference = running(spatial(expected["smp_map"])), running(spatial(expected["ref_map"]))
    found = frechet_distance(samples, reference)
    assert found == pytest.approx(0.724597796306, rel=1e-9)
    assert abs(found - expected["sfid_wrong_all_channels"]) > 0.1
    stored = Moments(expected["ref_mu_s"], expected["ref_sigma_s"], 0)  # whose order is H, W, C
    assert frechet_distance(samples, stored) == pytest.approx(0.724597796306, rel=1e-9)


def test_real_splits_are_as_far_apart_as_stated() -> None:
    train, test = (Moments.of(digits.load(split)[0]) for split in ("train", "test"))
    assert frechet_distance(train, test) == pytest.approx(23.0, abs=0.05)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        frechet_distance(Moments.of(np.eye(2)), Moments.of(np.eye(3)))


# The Inception Score


def plain_score(p: np.ndarray, split: int) -> float:
    """Term by term, as it is defined."""
    scores = []
    for start in range(0, len(p), split):
        part = p[start : start + split]
        marginal = part.mean(0)
        scores.append(np.exp(np.mean([np.sum(row * (np.log(row) - np.log(marginal))) for row in part])))
    return float(np.mean(scores))


def test_certain_and_uniform_classes_score_as_many_as_there_are() -> None:
    certain = np.tile(np.eye(8), (5, 1))
    assert inception_score([certain]) == Score(pytest.approx(8), None, 1)
    assert inception_score([np.full((40, 8), 1 / 8)]).value == pytest.approx(1)
    assert inception_score([np.tile(np.eye(8)[0], (40, 1))]).value == pytest.approx(1)


def test_inception_score_by_definition() -> None:
    p = softmax(np.random.default_rng(5).normal(size=(230, 11)) * 2)
    for split in (1, 50, 230, 5000):
        assert inception_score([p], split).value == pytest.approx(plain_score(p, split), rel=1e-12)


def test_a_short_last_split_counts_fully_and_the_error_is_of_the_mean() -> None:
    p = softmax(np.random.default_rng(6).normal(size=(25, 4)) * 3)
    each = [inception_score([part]).value for part in (p[:10], p[10:20], p[20:])]
    found = inception_score([p], 10)
    assert found.splits == 3 and found.value == pytest.approx(np.mean(each))
    assert found.error == pytest.approx(np.std(each, ddof=1) / np.sqrt(3))
    assert inception_score([p], 25).error is None and inception_score([p], 25).splits == 1


@pytest.mark.parametrize("size", [1, 7, 50, 100, 10_000])
def test_inception_score_does_not_depend_on_the_chunks(size: int) -> None:
    p = softmax(np.random.default_rng(7).normal(size=(2300, 5)))
    found, whole = inception_score(chunks(p, size), 1100), inception_score([p], 1100)
    assert found.value == pytest.approx(whole.value, rel=1e-12) and found.splits == whole.splits == 3
    single = inception_score(chunks(p.astype(np.float32), size), 1100).value
    assert single == pytest.approx(whole.value, rel=1e-5)


def test_golden_inception_score(expected: Arrays) -> None:
    for split, wanted in ((5000, 6.52641586521), (250, 6.36008732511), (100, float(expected["is_split100"]))):
        for size in (600, 64):
            assert inception_score(chunks(expected["probs"], size), split).value == pytest.approx(wanted, rel=1e-9)
    wrong = float(expected["is_wrong_class_sorted_split100"])
    assert abs(inception_score([expected["probs"]], 100).value - wrong) > 1
    ordered = expected["probs"][np.argsort(expected["labels"], kind="stable")]
    assert inception_score([ordered], 100).value == pytest.approx(wrong, rel=1e-9)  # it is the order's fault


def test_inception_score_is_torch_fidelitys() -> None:
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = (3 * np.random.default_rng(8).normal(size=(600, 20))).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=2020)
    shuffled = logits[np.random.RandomState(2020).permutation(600)]
    ours = inception_score([probabilities(shuffled, np.eye(20))], 60)
    assert ours.value == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours.error is not None  # theirs is the spread over the splits, with n
    assert ours.error * np.sqrt(9) == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_probabilities_have_no_bias_and_do_not_overflow() -> None:
    random = np.random.default_rng(9)
    pool, classifier = random.normal(size=(6, 4)).astype(np.float32), random.normal(size=(9, 4)).astype(np.float32)
    found = probabilities(pool, classifier)
    assert found.dtype == np.float64 and found.shape == (6, 9)
    assert np.allclose(found, softmax(pool.astype(float) @ classifier.T.astype(float)), rtol=1e-12)
    assert np.array_equal(probabilities(np.zeros((1, 4)), classifier), np.full((1, 9), 1 / 9))
    far = probabilities(np.array([[1000.0, -1000.0]]), np.eye(2))
    assert np.allclose(far, [[1, 0]]) and np.isfinite(inception_score([far, far]).value)


def test_golden_probabilities(expected: Arrays) -> None:
    found = probabilities(expected["logits"], np.eye(20, dtype=np.float32))
    assert np.allclose(found, expected["probs"], rtol=1e-12, atol=0)


def test_inception_score_holds_one_chunk() -> None:
    made = (softmax(np.random.default_rng(seed).normal(size=(1000, 100))) for seed in range(40))
    tracemalloc.start()
    try:
        inception_score(made, 5000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 8 * 1000 * 100


def test_what_is_no_probability_is_refused() -> None:
    for bad in (np.zeros((3, 4)), np.full((3, 4), np.nan), np.array([[2.0, -1.0]]), np.ones(1)):
        with pytest.raises(ValueError, match="probabilities"):
            inception_score([bad])
    with pytest.raises(ValueError, match="no samples"):
        inception_score([])


# KID


def plain_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Sums over pairs, one at a time."""

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return float(np.mean([(a[i] @ b[j] / a.shape[1] + 1) ** 3 for i, j in pairs]))

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_kernel_distance_by_definition() -> None:
    random = np.random.default_rng(10)
    x, y = random.normal(size=(12, 4)), random.normal(size=(12, 4)) + 0.5
    found = kernel_distance(x, y, subsets=1, size=12)
    assert found == Score(pytest.approx(plain_kernel_distance(x, y), rel=1e-10), None, 1)


def test_kernel_distance_is_torch_fidelitys() -> None:
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    random = np.random.default_rng(11)
    x, y = np.abs(random.normal(size=(400, 32))), np.abs(random.normal(size=(300, 32))) * 1.1
    ours = kernel_distance(x, y, subsets=20, size=100)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=20, kid_subset_size=100, rng_seed=2020, verbose=False
    )
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours.error == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)
    assert ours.splits == 20


class Shelf:
    """Rows that are given only by their numbers."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.largest = rows, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        self.largest = max(self.largest, len(index))
        return self.rows[index]


def test_kernel_distance_takes_what_gives_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    x, y = np.random.default_rng(12).normal(size=(2, 90, 8)).astype(np.float32)
    path = tmp_path_factory.mktemp("kid") / "x.npy"
    np.save(path, x)
    whole, shelf = kernel_distance(x.astype(np.float64), y, subsets=5, size=30), Shelf(x)
    assert kernel_distance(shelf, y, subsets=5, size=30) == whole and shelf.largest == 30
    assert kernel_distance(np.load(path, mmap_mode="r"), y, subsets=5, size=30) == whole
    assert kernel_distance(x, y, subsets=5, size=30, seed=1) != whole


def test_kernel_distance_refuses_too_few() -> None:
    many, few = np.zeros((1000, 2)), np.zeros((999, 2))
    for pair in ((few, many), (many, few)):
        with pytest.raises(ValueError, match="subsets of 1000"):
            kernel_distance(*pair)
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        kernel_distance(np.zeros((5, 2)), np.zeros((5, 3)), size=5)
