"""The teacher that ships beside the recipes, and how it is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hastezoo.alignment.teachers import create_teacher
from hastezoo.data.digits import Digits
from hastezoo.recipes import digits_teacher
from hastezoo.recipes.digits_teacher import MODEL, SHIPPED, accuracy, save, shifted


def test_the_shipped_teacher_is_as_good_as_it_says() -> None:
    import timm
    from safetensors.torch import load_file

    config = json.loads((SHIPPED / "config.json").read_text())
    assert config["model_args"] == MODEL
    model = timm.create_model(digits_teacher.ARCHITECTURE, **MODEL).eval()
    model.load_state_dict(load_file(SHIPPED / "model.safetensors"))
    for split in ("train", "test"):
        assert accuracy(model, split) == pytest.approx(config["accuracy"][split], abs=0.003)
    assert config["accuracy"]["test"] > 0.98


def test_it_teaches_what_the_students_see() -> None:
    """Its features of the digits, as the training loop hands them over, are those of its own forward pass."""
    import timm

    teacher = create_teacher(f"local-dir:{SHIPPED}", grid=(4, 4), attention_layers=(2, 3))
    model = timm.create_model(f"local-dir:{SHIPPED}", pretrained=True).eval()
    batch = Digits("test").__getitems__(range(20))
    assert batch.images is not None
    lesson = teacher(batch.images)
    with torch.no_grad():
        wanted = model.forward_features((batch.images - 0.5) / 0.5)[:, 1:]
    assert (lesson.features - wanted).abs().max() < 1e-5 and lesson.grid == (4, 4)
    assert {block: tuple(queries.shape) for block, queries in lesson.queries.items()} == {
        block: (20, 4, 16, 32) for block in (2, 3)
    }


def test_shifts_are_by_at_most_one_pixel_and_lose_nothing_else() -> None:
    images = torch.zeros(400, 1, 8, 8)
    images[:, :, 3, 4] = 1
    moved = shifted(images, torch.Generator().manual_seed(0))
    places = moved[:, 0].nonzero()
    assert len(places) == 400 and moved.sum() == 400
    offsets = (places[:, 1:] - torch.tensor([3, 4])).tolist()
    found = {tuple(offset) for offset in offsets}
    assert found == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    still = sum(offset == [0, 0] for offset in offsets) / 400
    assert still == pytest.approx(0.5 + 0.5 / 9, abs=0.08)


def test_training_is_a_function_of_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small one; what is written teaches."""
    monkeypatch.setitem(MODEL, "depth", 1)
    monkeypatch.setitem(MODEL, "embed_dim", 32)
    trained = [digits_teacher.train(seed, 1, quiet=True) for seed in (0, 0, 1)]
    states = [model.state_dict() for model, _ in trained]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["blocks.0.attn.qkv.weight"], states[2]["blocks.0.attn.qkv.weight"])
    model, numbers = trained[0]
    save(model, tmp_path / "teacher", numbers)
    assert create_teacher(f"local-dir:{tmp_path / 'teacher'}").width == 32
