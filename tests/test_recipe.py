"""The recipe from nothing to the shipped quality: minutes, so `pytest -m slow`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hastezoo.recipes.digits import ARMS, CHECKPOINTS, DigitsConfig, run
from hastezoo.zoo.modelfile import load_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.weights import resolve


def band(root: Path) -> float:
    """How far two runs may be apart: four deviations over the study's seeds, of the arm where they are largest."""
    curves = json.loads((root / "benchmarks" / "results" / "digits_study.json").read_text())["curves"]
    return 4 * max(float(np.std([row[-1] for row in curve["frechet"]], ddof=1)) for curve in curves.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_recipe_makes_the_shipped_checkpoint(
    name: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promised quality anywhere, within the study's band; on one kind of machine almost the very tensors."""
    from hastezoo.pipeline import Pipeline

    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import digits_quality

    config = DigitsConfig(alignment=ARMS[CHECKPOINTS[name]])
    run(name, config, tmp_path / "run", device="cpu", quiet=True)
    weights = tmp_path / "run" / f"{name}.safetensors"
    numbers, _ = digits_quality.measure(Pipeline.from_pretrained(name, weights=weights))
    card = find_card(name)
    assert abs(numbers["frechet"] - card.results[0].value) <= band(root)
    assert numbers["recognised"] >= 0.97
    assert numbers["frechet"] <= 2 * numbers["frechet_train_to_test"]
    near = numbers["nearest_training_digit"]
    assert near["unguided"]["median"] > 0.9 * near["real_test"]["median"], "it memorises"
    made, shipped = (
        load_model(weights)[0].state_dict(),
        load_model(resolve(card).path)[0].state_dict(),
    )
    apart = max(float((made[name] - shipped[name]).abs().max()) for name in shipped)
    scale = max(float(torch.linalg.vector_norm(value, float("inf"))) for value in shipped.values())
    assert apart < 0.5 * scale, "another model altogether"
