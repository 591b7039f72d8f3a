"""Fifty thousand images from end to end, in the dimensions of Inception, within two gigabytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.memory import run_measured

GIGABYTE = 1 << 30
CODE = """
import json, sys
from pathlib import Path
import numpy as np
from hastezoo.evaluation.references import reference_of
from hastezoo.evaluation.run import Plan, check, evaluate

class Synthetic:
    '''Images of 64 px: a blurred grey level an image, and noise.'''
    def __init__(self, count, seed):
        self.count, self.seed, self.shape, self.lossy, self.labels = count, seed, (64, 64, 3), False, None
        self.description, self.identity = "synthetic", {"images": f"synthetic {seed}"}
    def read(self, start, stop):
        random = np.random.default_rng((self.seed, start))
        grey = random.integers(0, 200, (stop - start, 1, 1, 1), np.uint8)
        return grey + random.integers(0, 56, (stop - start, *self.shape), np.uint8)

class Cheap:
    '''Every sixth byte, in the dimensions of Inception.'''
    def __init__(self):
        self.name, self.identity, self.channels = "inception", {"features": "cheap"}, 3
        self.classifier = np.random.default_rng(0).normal(size=(1008, 2048)).astype(np.float32)
    def widths(self, shape):
        return {"pool": 2048, "spatial": 2023}
    def __call__(self, images):
        flat = images.reshape(len(images), -1)
        return {"pool": flat[:, ::6].astype(np.float32) / 255, "spatial": flat[:, 1:12139:6].astype(np.float32) / 255}

cheap = Cheap()
plan = Plan(Synthetic(50_000, 0), cheap, 50_000, Path(sys.argv[1]), batch_size=100)
reference = reference_of(Synthetic(10_000, 1), cheap)
check(plan, reference)
outcome = evaluate(plan, reference)
print(json.dumps({key: value.value for key, value in outcome.measured.metrics.items()}))
print(json.dumps(outcome.settings["seconds"]))
"""


@pytest.mark.slow
def test_fifty_thousand_images_within_two_gigabytes(tmp_path: Path) -> None:
    output, peak = run_measured(CODE, tmp_path / "out", HASTEZOO_HOME=str(tmp_path / "home"))
    metrics = json.loads(output.splitlines()[0])
    assert all(value is not None for value in metrics.values()) and len(metrics) == 8
    assert peak < 2 * GIGABYTE, f"{peak / GIGABYTE:.2f} GB"
