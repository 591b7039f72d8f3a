"""What do the metrics take at full size, once features are there?

    python benchmarks/metric_speed.py [--samples 50000] [--reference 10000] [--rounds 3]

On synthetic features of 2048 dimensions: running moments; the Fréchet distance beside scipy's square root of the
product and beside torch-fidelity's eigenvalues of it, in one run; the whole stage of FID and sFID with their errors,
from float32 chunks of 500; the Inception Score; precision and recall; KID beside torch-fidelity's. Floors are the
operations that a method cannot do without, at the speed of a plain matrix product here, measured too. Peak memory is
that of a process of its own, inputs included. Needs Linux, 500 MB of disk and 3 GB of memory.
Writes benchmarks/results/metric_speed.json.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from dated import RESULTS, date_and_device
from sampling_speed import spread

from hastezoo.evaluation.metrics import (
    frechet_distance,
    frechet_error,
    inception_score,
    kernel_distance,
    probabilities,
)
from hastezoo.evaluation.statistics import Moments, RunningMoments

WIDTH, SPATIAL, CHUNK, CLASSES = 2048, 2023, 500, 1008
PROCESS = """
import re, sys, time
from pathlib import Path
import numpy as np
from hastezoo.evaluation.neighbours import precision_recall
reference, samples = (np.load(path) for path in sys.argv[1:])
began = time.perf_counter()
found = precision_recall(reference, samples)
print("SECONDS", time.perf_counter() - began)
print("PEAK", 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
print("FOUND", found)
"""


def write_features(path: Path, count: int, seed: int) -> np.ndarray:
    """Non-negative features whose variances fall off as a network's do, as a memory map."""
    mixing = np.random.default_rng(99).standard_normal((WIDTH, WIDTH), np.float32)
    mixing *= 0.3 * np.arange(1, WIDTH + 1, dtype=np.float32)[:, None] ** -0.7
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (count, WIDTH))
    for start in range(0, count, CHUNK):
        part = rows[start : start + CHUNK]
        drawn = np.random.default_rng((seed, start)).standard_normal(part.shape, np.float32)
        part[:] = np.abs(drawn @ mixing + 0.05 * seed)
    rows.flush()
    return np.load(path, mmap_mode="r")


def chunks(features: np.ndarray, width: int = WIDTH) -> Iterator[np.ndarray]:
    return (np.array(features[start : start + CHUNK, :width]) for start in range(0, len(features), CHUNK))


def moments(features: np.ndarray, width: int = WIDTH) -> Moments:
    running = RunningMoments()
    for chunk in chunks(features, width):
        running.add(chunk)
    return running.moments()


def timed(call: Callable[[], Any], rounds: int = 1) -> tuple[dict[str, float], Any]:
    """(seconds, what the last call gave)."""
    seconds, found = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        found = call()
        seconds.append(time.perf_counter() - began)
    return spread(seconds), found


def operations_per_second() -> dict[str, float]:
    """Of a plain matrix product of the blocks in use: float64 by numpy, float32 by torch."""
    import torch

    wide, narrow = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)), torch.randn(WIDTH, WIDTH)
    work = 2 * WIDTH**3
    return {
        "float64": work / timed(lambda: wide @ wide, 5)[0]["least"],
        "float32": work / timed(lambda: narrow @ narrow.T, 5)[0]["least"],
    }


def floor(operations: float, speed: float) -> dict[str, float]:
    return {"operations": operations, "seconds": round(operations / speed, 2)}


def by_square_root(a: Moments, b: Moments) -> float:
    """The formula as written."""
    import scipy.linalg

    root = np.trace(scipy.linalg.sqrtm(a.covariance @ b.covariance)).real
    return float(np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * root)


def by_torch_fidelity(a: Moments, b: Moments) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    both = ({"mu": one.mean, "sigma": one.covariance} for one in (a, b))
    return float(fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"])


def distances(samples: Moments, real: Moments, rounds: int) -> dict[str, Any]:
    """The ways take turns."""
    ways = {"ours": frechet_distance, "square root": by_square_root, "torch-fidelity": by_torch_fidelity}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    values = {}
    for _ in range(rounds):
        for name, way in ways.items():
            took, values[name] = timed(lambda way=way: way(samples, real))
            seconds[name].append(took["median"])
    found: dict[str, Any] = {name: {"seconds": spread(seconds[name]), "value": values[name]} for name in ways}
    for name in list(ways)[1:]:
        found[f"{name} over ours"] = round(found[name]["seconds"]["median"] / found["ours"]["seconds"]["median"], 1)
    return found


def stage(features: np.ndarray, real: Moments) -> dict[str, float]:
    """A Fréchet distance from features to a number with its error, by step."""
    first, samples = timed(lambda: moments(features, len(real.mean)))
    second, _ = timed(lambda: frechet_distance(samples, real))
    third, _ = timed(lambda: frechet_error(samples, real, chunks(features, len(real.mean))))
    steps = {"moments": first["median"], "distance": second["median"], "error": third["median"]}
    return {**steps, "total": round(sum(steps.values()), 2)}


def neighbours(folder: Path) -> dict[str, Any]:
    """Precision and recall in a process of their own."""
    command = [sys.executable, "-c", PROCESS, str(folder / "reference.npy"), str(folder / "samples.npy")]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak, found = (re.search(rf"{name} (.*)", out) for name in ("SECONDS", "PEAK", "FOUND"))
    assert seconds and peak and found
    return {"seconds": round(float(seconds[1]), 1), "peak_gb": round(int(peak[1]) / 1e9, 2), "found": found[1]}


def kernels(samples: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """KID from memory maps, and torch-fidelity's from float32 tensors."""
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    ours, score = timed(lambda: kernel_distance(samples, reference))
    both = [torch.from_numpy(np.array(rows)) for rows in (samples, reference)]
    options = {"kid_subsets": 100, "kid_subset_size": 1000, "rng_seed": 2020, "verbose": False}
    theirs, wanted = timed(lambda: kid_features_to_metric(*both, **options))
    return {
        "ours, float64": {"seconds": ours["median"], "value": score.value},
        "torch-fidelity, float32": {
            "seconds": theirs["median"],
            "value": wanted["kernel_inception_distance_mean"],
        },
    }


def scores(samples: np.ndarray) -> dict[str, float]:
    """The Inception Score from pool features."""
    classifier = np.random.default_rng(1).standard_normal((CLASSES, WIDTH), np.float32) / 10
    return timed(lambda: inception_score(probabilities(chunk, classifier) for chunk in chunks(samples)))[0]


@click.command()
@click.option("--samples", "count", default=50_000, show_default=True)
@click.option("--reference", "references", default=10_000, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of what takes seconds.")
def main(count: int, references: int, rounds: int) -> None:
    """Measure and write the result."""
    from hastezoo.files import write_json

    before = os.getloadavg()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = write_features(folder / "samples.npy", count, 0)
        real = write_features(folder / "reference.npy", references, 1)
        speed = operations_per_second()
        running, ours = timed(lambda: moments(samples), rounds)
        reference = {width: moments(real, width) for width in (WIDTH, SPATIAL)}
        pairs = (count**2 + references**2) / 2 + count * references
        result = {
            **date_and_device(),
            "load_average_before": [round(one, 2) for one in before],
            "samples": count,
            "reference": references,
            "dimensions": WIDTH,
            "operations_per_second_of_a_product": {name: float(f"{one:.3g}") for name, one in speed.items()},
            "running_moments": {"seconds": running, "floor": floor(count * WIDTH**2, speed["float64"])},
            "frechet_distance": distances(ours, reference[WIDTH], rounds),
            "stage_seconds": {"fid": stage(samples, reference[WIDTH]), "sfid": stage(samples, reference[SPATIAL])},
            "inception_score_seconds": scores(samples),
            "precision_recall": {**neighbours(folder), "floor": floor(2 * 2 * pairs * WIDTH, speed["float32"])},
            "kid": {**kernels(samples, real), "floor": floor(100 * 4 * 1000**2 * WIDTH, speed["float64"])},
            "load_average_after": [round(one, 2) for one in os.getloadavg()],
            "rounds": rounds,
        }
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "metric_speed.json", result)
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
