"""Precision and recall against matrices of all distances, in float64 and as the reference evaluator rounds them."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from hastezoo.evaluation import neighbours
from hastezoo.evaluation.neighbours import PrecisionRecall, precision_recall
from tests.conftest import GOLDEN
from tests.memory import run_measured

Shares = tuple[float, float]


def exact_distances(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Squared, in float64, a pair at a time."""
    return np.stack([np.square(v.astype(np.float64) - point).sum(1) for point in u.astype(np.float64)])


def half_distances(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Squared, every step in half precision but for the sums, which are float32."""
    u, v = u.astype(np.float16), v.astype(np.float16)
    near, far = (np.square(x).astype(np.float32).sum(1).astype(np.float16) for x in (u, v))
    products = (u.astype(np.float32) @ v.astype(np.float32).T).astype(np.float16)
    return np.maximum((near[:, None] - np.float16(2) * products) + far, np.float16(0))


def plain(distances: object, reference: np.ndarray, samples: np.ndarray, k: int) -> Shares:
    """Precision and recall from whole matrices of distances."""
    assert callable(distances)
    real, drawn = (np.sort(distances(x, x), axis=1)[:, k] for x in (reference, samples))  # the point itself is the 0th
    across = distances(reference, samples)
    return float((across <= real[:, None]).any(0).mean()), float((across <= drawn).any(1).mean())


def check(reference: np.ndarray, samples: np.ndarray, *, k: int = 3, block: int = 64, ulps: int = 1) -> PrecisionRecall:
    """Both kinds of shares are those of whole matrices; those in half precision to so many points."""
    found = precision_recall(reference, samples, k=k, block=block)
    assert (found.precision_float32, found.recall_float32) == plain(exact_distances, reference, samples, k)
    precision, recall = plain(half_distances, reference, samples, k)
    assert abs(found.precision - precision) * len(samples) <= ulps + 1e-9
    assert abs(found.recall - recall) * len(reference) <= ulps + 1e-9
    return found


def features(seed: int, count: int, width: int = 40, inner: int = 6, shift: float = 0.0) -> np.ndarray:
    """Non-negative and close to a surface of fewer dimensions, as a network's are."""
    surface, random = np.random.default_rng(99).normal(size=(inner, width)), np.random.default_rng(seed)
    found = random.normal(size=(count, inner)) @ surface + 0.1 * random.normal(size=(count, width)) + shift
    return np.abs(found).astype(np.float32)


@pytest.mark.parametrize("block", [64, 256])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_they_are_those_of_all_distances(k: int, block: int) -> None:
    found = check(features(0, 320), features(1, 512, shift=0.2), k=k, block=block)
    assert 0 < found.recall_float32 < 1 and 0 < found.precision_float32 < 1
    assert found.precision_float32 != found.recall_float32


@pytest.mark.parametrize("width", [1, 3, 500])
def test_in_any_number_of_dimensions(width: int) -> None:
    check(features(2, 210, width), features(3, 150, width, shift=0.3), ulps=3)


def test_half_precision_is_another_measure() -> None:
    """Norms and products of some hundreds are rounded to 1/4: that moves points in and out of balls."""
    found = check(features(0, 700, 120, 40), features(1, 600, 120, 40))
    assert found.precision != found.precision_float32


def test_half_precision_is_the_evaluators_step_by_step() -> None:
    """Of multiples of 1/8, whose sums float32 holds exactly in any order, nothing may differ."""
    for seed in range(5):
        points = np.round(8 * features(seed, 800, 60, 60)) / 8
        again = points[:30] + np.eye(60, dtype=np.float32)[:30] / 8  # so near that rounding puts distances below zero
        for samples in (points[400:], np.concatenate([points[400:], *[again] * 4])):
            check(points[:400], samples, ulps=0)


def test_in_half_precision_it_matters_which_norm_comes_first() -> None:
    u, v = np.round(8 * features(0, 50, 60)) / 8, np.round(16 * features(1, 40, 60)) / 8
    sets = [neighbours._Points(x, np.zeros(60), torch.device("cpu"), 64) for x in (u, v)]
    norms = [points.norms["half"] for points in sets]
    products = torch.from_numpy(u @ v.T).half()
    there = neighbours._distances(norms[0], products, norms[1]).clamp(min=0).numpy()
    back = neighbours._distances(norms[1], products.T, norms[0]).clamp(min=0).numpy()
    assert np.array_equal(there, half_distances(u, v)) and np.array_equal(back, half_distances(v, u))
    assert not np.array_equal(there, back.T)


@pytest.mark.parametrize(
    ("block", "count"), [(1, 40), (7, 200), (50, 300), (64, 300), (128, 300), (301, 300), (10**6, 300)]
)
def test_blocks_change_nothing(block: int, count: int) -> None:
    reference, samples = features(4, count), features(5, count - 11, shift=0.2)
    whole, found = (precision_recall(reference, samples, block=size) for size in (512, block))
    assert (found.precision_float32, found.recall_float32) == (whole.precision_float32, whole.recall_float32)
    assert abs(found.precision - whole.precision) * len(samples) < 1.01
    assert abs(found.recall - whole.recall) * len(reference) < 1.01


def test_sides_are_not_swapped() -> None:
    """Samples in one corner of the reference: all of them are real, and most of what is real is not drawn."""
    random = np.random.default_rng(6)
    reference = random.uniform(0, 10, size=(500, 2)).astype(np.float32)
    samples = random.uniform(0, 2, size=(300, 2)).astype(np.float32)
    found = precision_recall(reference, samples)
    assert found.precision_float32 > 0.9 > 0.2 > found.recall_float32
    back = precision_recall(samples, reference)
    assert (back.precision_float32, back.recall_float32) == (found.recall_float32, found.precision_float32)


def test_the_ball_holds_its_surface_and_reaches_to_the_kth_other() -> None:
    reference = np.array([[0.0], [1.0], [3.0], [10.0]], np.float32)  # radii, k = 1: 1, 1, 2, 7; k = 2: 3, 2, 3, 9
    for k, at, inside in ((1, -1, 1), (1, -1.125, 0), (1, 17, 1), (1, 17.5, 0), (2, -3, 1), (2, -3.5, 0)):
        samples = np.array([[at], [1000.0], [1100.0], [1300.0]], np.float32)
        found = precision_recall(reference, samples, k=k)
        assert found.precision == found.precision_float32 == inside / 4


def test_points_on_a_lattice_have_many_ties() -> None:
    random = np.random.default_rng(7)
    reference, samples = (random.integers(0, 4, size=(count, 4)).astype(np.float32) for count in (260, 300))
    check(reference, samples, k=2, ulps=0)


def test_points_that_are_the_same() -> None:
    reference = features(8, 100)
    found = check(reference, np.repeat(reference[:30], 4, axis=0))  # balls of radius 0
    assert found.precision_float32 == 1 and found.recall_float32 == 0.3
    assert astuple(check(reference, reference)) == (1, 1, 1, 1)


@pytest.mark.parametrize(("offset", "scale"), [(0, 1e-8), (20, 1), (5, 0.1), (10, 0.1), (1000, 0.1)])
def test_points_that_rounding_makes_the_same(offset: float, scale: float) -> None:
    """Where half precision has few digits left or none; the exact shares do not mind."""
    reference, samples = ((offset + scale * features(seed, 320, 5)).astype(np.float32) for seed in (9, 10))
    for block in (64, 512):
        found = precision_recall(reference, samples, block=block)
        assert (found.precision_float32, found.recall_float32) == plain(exact_distances, reference, samples, 3)


def test_rounding_into_a_ball_or_out_of_it_does_not_count() -> None:
    """Between 8 and 16 half precision goes by 1/128: 8.9962 becomes 9, 8.996 becomes 8.9922; the ball is round 10."""
    for surface, sample, inside in ((11.0037, 8.9962, 0), (11.0042, 8.996, 1)):
        reference = np.array([[10], [surface], [13.5], [15.9]], np.float32)
        found = precision_recall(reference, np.array([[sample], [1], [2]], np.float32), k=1)
        assert found.precision_float32 == inside / 3


def test_beyond_half_precision_all_is_exact() -> None:
    """Squared norms that overflow: the ADM evaluator then takes float32 distances for both."""
    reference, samples = 300 * features(11, 200), 300 * features(12, 200)
    found = precision_recall(reference, samples)
    with np.errstate(all="ignore"):
        assert not np.isfinite(half_distances(reference, samples)).all()
    assert (found.precision, found.recall) == (found.precision_float32, found.recall_float32)
    assert (found.precision_float32, found.recall_float32) == plain(exact_distances, reference, samples, 3)


def test_inputs_are_read_only_and_may_be_memory_maps(tmp_path: Path) -> None:
    reference, samples = features(15, 120), features(16, 130)
    np.save(tmp_path / "samples.npy", samples)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    reference.flags.writeable = False
    assert precision_recall(reference, mapped) == precision_recall(reference.copy(), samples)
    assert np.array_equal(samples, features(16, 130))


def test_progress_reaches_its_end() -> None:
    told: list[tuple[int, int]] = []
    precision_recall(features(0, 100), features(1, 150), block=40, progress=lambda *numbers: told.append(numbers))
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(set(done)) and done[-1] == totals[-1] and len(set(totals)) == 1


def test_what_has_no_neighbours_is_refused() -> None:
    few, many = features(0, 3), features(1, 10)
    for sets in ((few, many), (many, few)):
        with pytest.raises(ValueError, match="neighbour number 3"):
            precision_recall(*sets)
    with pytest.raises(ValueError, match="neighbour number 0"):
        precision_recall(many, many, k=0)
    with pytest.raises(ValueError, match=r"\(10, 40\) and \(10, 8\)"):
        precision_recall(many, many[:, :8])
    for bad in (1e5, np.nan, np.inf):
        with pytest.raises(ValueError, match="half precision"):
            precision_recall(many, np.where(many == many[4, 4], bad, many).astype(np.float32))


@pytest.mark.parametrize("block", [2048, 100])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_golden_precision_and_recall(k: int, block: int) -> None:
    path = GOLDEN / "metrics_golden.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    with np.load(path) as golden:
        found = precision_recall(golden["ref_pool"], golden["smp_pool"], k=k, block=block)
        exact = float(golden[f"precision_k{k}"]), float(golden[f"recall_k{k}"])
        half = float(golden[f"precision_k{k}_adm_code"]), float(golden[f"recall_k{k}_adm_code"])
        wrong = float(golden["precision_wrong_swapped"]), float(golden["recall_wrong_swapped"])
    assert (found.precision_float32, found.recall_float32) == pytest.approx(exact, abs=1e-12)
    assert abs(found.precision - half[0]) <= 1.01 / 600 and abs(found.recall - half[1]) <= 1.01 / 500
    if k == 3:
        assert exact == pytest.approx((547 / 600, 389 / 500)) and half == pytest.approx((548 / 600, 389 / 500))
        assert abs(found.precision - wrong[0]) > 0.1 and abs(found.recall - wrong[1]) > 0.1


@pytest.mark.gpu
def test_a_gpu_finds_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    reference, samples = features(17, 3000, 512, 20), features(18, 5000, 512, 20)
    here, there = (precision_recall(reference, samples, device=device) for device in ("cpu", "cuda"))
    assert (here.precision_float32, here.recall_float32) == (there.precision_float32, there.recall_float32)
    assert abs(here.precision - there.precision) < 3 / 5000 and abs(here.recall - there.recall) < 3 / 3000


MEASURED = """
import re, sys
from pathlib import Path
import numpy as np
from hastezoo.evaluation.neighbours import precision_recall
def resident():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def features(seed, count, width):
    surface = np.random.default_rng(99).normal(size=(40, width)).astype(np.float32)
    found = np.empty((count, width), np.float32)
    for start in range(0, count, 500):
        rows, random = found[start : start + 500], np.random.default_rng((seed, start))
        rows[:] = np.abs(random.standard_normal((len(rows), 40), np.float32) @ surface) / 20
        rows += 0.1 * np.abs(random.standard_normal(rows.shape, np.float32))
    return found
reference, samples, width = map(int, sys.argv[1:])
precision_recall(*(features(seed, 100, width) for seed in (0, 1)))  # what is loaded once and for all
inputs = features(0, reference, width), features(1, samples, width)
before = resident()
found = precision_recall(*inputs)
print(before, found.precision, found.recall)
"""


@pytest.mark.slow
def test_no_matrix_of_all_distances_is_held() -> None:
    output, peak = run_measured(MEASURED, "3000", "12000", "16")
    before, precision, recall = map(float, output.split())
    assert 0 < precision < 1 and 0 < recall < 1
    assert peak - before < 12_000 * 12_000 * 4 / 4


@pytest.mark.slow
def test_50_000_samples_fit_in_two_gigabytes() -> None:
    output, peak = run_measured(MEASURED, "10000", "50000", "2048")
    before, precision, recall = map(float, output.split())
    assert 0 < precision < 1 and 0 < recall < 1
    assert peak < 2 << 30 and peak - before < 1 << 30
