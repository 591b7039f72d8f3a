"""How good, and how original, are the digits that a checkpoint draws?

    python benchmarks/digits_quality.py                                # the embedded default
    python benchmarks/digits_quality.py --weights runs/x/sit-ti-digits.safetensors

Nothing learned judges but a support-vector classifier fitted on the 1437 training digits; distances are on the 64 raw
pixels (0..16). Writes benchmarks/results/digits_quality_MODEL.json and a picture beside it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from dated import RESULTS, date_and_device

GUIDED = 1000
UNGUIDED = 1797
BOOTSTRAPS = 50


def nearest(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distance of each image (N, 64) to its nearest among `others`, and which that is."""
    squared = np.square(images).sum(1)[:, None] - 2 * images @ others.T + np.square(others).sum(1)
    index = squared.argmin(1)
    return np.linalg.norm(images - others[index], axis=1), index


def bootstrap_floor(real: np.ndarray, count: int, seed: int = 0) -> tuple[float, float]:
    """Mean and deviation of the distance between the digits and `count` of them drawn with replacement.

    It is what a perfect generator would get at this count.
    """
    from hastezoo.evaluation.metrics import frechet_distance
    from hastezoo.evaluation.statistics import Moments

    random, whole = np.random.default_rng(seed), Moments.of(real)
    distances = [
        frechet_distance(Moments.of(real[random.integers(len(real), size=count)]), whole) for _ in range(BOOTSTRAPS)
    ]
    return float(np.mean(distances)), float(np.std(distances))


def measure(pipeline: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All numbers, and the images behind the picture."""
    from sklearn.svm import SVC

    from hastezoo.data import digits
    from hastezoo.evaluation.metrics import frechet_distance
    from hastezoo.evaluation.statistics import Moments

    (train, train_labels), (test, test_labels), (real, _) = (digits.load(split) for split in ("train", "test", "all"))
    judge = SVC(gamma=0.001).fit(train, train_labels)

    began = time.perf_counter()
    asked = np.arange(GUIDED) % 10
    guided = digits.from_bytes(pipeline(classes=asked.tolist(), seeds=range(GUIDED)).pixels)
    plain = pipeline(seeds=range(UNGUIDED), protocol="digits-nocfg")
    seconds = time.perf_counter() - began
    unguided = digits.from_bytes(plain.pixels)

    floor, spread = bootstrap_floor(real, UNGUIDED)
    from_samples, _ = nearest(unguided, train)
    from_guided, _ = nearest(guided, train)
    from_test, _ = nearest(test, train)
    close = np.quantile(from_test, 0.01)
    numbers = {
        "recognised": float((judge.predict(guided) == asked).mean()),
        "recognised_unguided": float((judge.predict(unguided) == np.array(plain.labels)).mean()),
        "recognised_real_test": float(judge.score(test, test_labels)),
        "frechet": frechet_distance(Moments.of(unguided), Moments.of(real)),
        "frechet_floor": floor,
        "frechet_floor_std": spread,
        "frechet_train_to_test": frechet_distance(Moments.of(train), Moments.of(test)),
        "nearest_training_digit": {
            "unguided": _quantiles(from_samples),
            "guided": _quantiles(from_guided),
            "real_test": _quantiles(from_test),
            "closer_than_1_percent_of_real_test": float((from_samples < close).mean()),
            "guided_closer_than_1_percent_of_real_test": float((from_guided < close).mean()),
        },
        "counts": {"guided": GUIDED, "unguided": UNGUIDED},
        "sampling_seconds": round(seconds, 1),
    }
    arrays = {"unguided": unguided, "train": train, "from_samples": from_samples, "from_test": from_test}
    return numbers, arrays


def _quantiles(distances: np.ndarray) -> dict[str, float]:
    return {
        name: round(float(np.quantile(distances, q)), 3) for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
    }


def draw(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Samples above their nearest training digit, and the distances beside those of real test digits."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown, columns = arrays["unguided"][:12], 12
    _, index = nearest(shown, arrays["train"])
    figure = plt.figure(figsize=(9, 4.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.7])
    cells = top.subplots(2, columns)
    for row, images in enumerate((shown, arrays["train"][index])):
        for cell, image in zip(cells[row], images, strict=True):
            cell.imshow(image.reshape(8, 8), cmap="gray", vmin=0, vmax=16)
            cell.set_xticks([])
            cell.set_yticks([])
    cells[0][0].set_ylabel("drawn", fontsize=8)
    cells[1][0].set_ylabel("nearest\ntraining", fontsize=8)
    axis = bottom.subplots()
    bins = np.linspace(0, max(arrays["from_samples"].max(), arrays["from_test"].max()), 40)
    axis.hist(arrays["from_test"], bins, density=True, alpha=0.6, label="360 real test digits")
    axis.hist(arrays["from_samples"], bins, density=True, alpha=0.6, label=f"{UNGUIDED} samples without guidance")
    axis.set_xlabel("distance to the nearest training digit (64 pixels, 0..16)")
    axis.set_ylabel("density")
    axis.legend()
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--model", default="sit-ti-digits", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(model: str, weights: Path | None, out: Path) -> None:
    """Measure a checkpoint of digits."""
    from hastezoo.files import write_json
    from hastezoo.pipeline import Pipeline

    pipeline = Pipeline.from_pretrained(model, weights=weights)
    numbers, arrays = measure(pipeline)
    result = {"model": model, "weights_sha256": pipeline.weights_sha256, **date_and_device(), **numbers}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"digits_quality_{model}.json", result)
    draw(arrays, out / f"digits_quality_{model}.png")
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
