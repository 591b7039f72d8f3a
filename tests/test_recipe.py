"""The recipe from nothing to the shipped quality: minutes, so `pytest -m slow`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hastezoo.zoo.modelfile import load_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.weights import resolve


@pytest.mark.slow
def test_the_recipe_makes_the_shipped_checkpoint(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promised quality anywhere; on one kind of machine the very tensors."""
    from hastezoo.pipeline import Pipeline
    from hastezoo.recipes.digits import DigitsConfig, run

    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import digits_quality

    assert run("sit-ti-digits", DigitsConfig(), tmp_path / "run", device="cpu", quiet=True)
    weights = tmp_path / "run" / "sit-ti-digits.safetensors"
    numbers, _ = digits_quality.measure(Pipeline.from_pretrained(weights=weights))
    assert numbers["recognised"] >= 0.97
    assert numbers["frechet"] <= 2 * numbers["frechet_train_to_test"]
    near = numbers["nearest_training_digit"]
    assert near["unguided"]["median"] > 0.9 * near["real_test"]["median"], "it memorises"
    made, shipped = (
        load_model(weights)[0].state_dict(),
        load_model(resolve(find_card("sit-ti-digits")).path)[0].state_dict(),
    )
    apart = max(float((made[name] - shipped[name]).abs().max()) for name in shipped)
    scale = max(float(torch.linalg.vector_norm(value, float("inf"))) for value in shipped.values())
    assert apart < 0.5 * scale, "another model altogether"
