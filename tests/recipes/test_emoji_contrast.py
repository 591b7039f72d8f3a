"""The contrastive network of pictures and names: its loss, and the folder that it is saved in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hastezoo.alignment.teachers import create_teacher
from hastezoo.errors import UserError
from hastezoo.recipes.emoji_contrast import NAME_SIDE, VISION, Contrast

pytestmark = pytest.mark.usefixtures("alone", "small_vision")
WORDS = ("apple", "car", "green", "heart", "red", "sun")
SHIPPED_SIZE = dict(VISION)


def contrast(**vision: Any) -> Contrast:
    torch.manual_seed(0)
    return Contrast(WORDS, **vision).eval()


def some_images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def linear(rows: np.ndarray, layer: Any) -> np.ndarray:
    return rows @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


@pytest.mark.parametrize("sharpness", [14.3, 500.0])
def test_the_loss_is_both_cross_entropies(sharpness: float) -> None:
    """Put together in numpy, in float64: the mean of a name's known words, projections, lengths of 1, both ways."""
    model, images = contrast(), some_images(4)
    model.sharpness.data = torch.tensor(sharpness).log()
    numbers = model.reader.states(["red heart", "green", "red green apple car", "sun"])
    with torch.no_grad():
        seen = model.vision(2 * images - 1).double().numpy()
        states = model.names["words"](numbers).double().numpy()
        found = float(model.loss(images, numbers))
    said = np.stack([states[row, :count].mean(0) for row, count in enumerate((2, 1, 4, 1))])
    pictures, names = unit(linear(seen, model.names["picture"])), unit(linear(said, model.names["shared"]))
    logits = min(sharpness, 100.0) * pictures @ names.T
    ways = [np.log(np.exp(table - table.max()).sum(1)) + table.max() - np.diag(table) for table in (logits, logits.T)]
    assert abs(ways[0].mean() - ways[1].mean()) > 1e-4, "or one way alone would do"
    assert found == pytest.approx(np.mean(ways), rel=1e-4)
    with torch.no_grad():
        assert np.abs(model.of_pictures(images).numpy() - pictures).max() < 1e-5
        assert np.abs(model.of_numbers(numbers).numpy() - names).max() < 1e-5


def test_both_sides_and_the_sharpness_learn() -> None:
    model = contrast()
    model.loss(some_images(3), model.reader.states(["red", "sun", "car"])).backward()
    for name in ("sharpness", "names.words.embedding_table.weight", "vision.patch_embed.proj.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None and gradient.abs().max() > 0, name


def test_names_without_a_known_word_are_refused() -> None:
    with pytest.raises(UserError, match='no word of the prompt "blue boat" is known'):
        contrast().of_names(["red car", "blue boat"])
    with torch.no_grad():
        assert torch.equal(contrast().of_names(["Red heart!"]), contrast().of_names(["red heart"]))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    contrast().save(tmp_path / "judge", {"split": "judge", "epochs": 3})
    return tmp_path / "judge"


def test_a_judge_that_was_saved_judges_alike(saved: Path) -> None:
    """Within the rounding of float16, whatever the sizes that are usual."""
    model, again = contrast(), Contrast.load(saved)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors", NAME_SIDE]
    names = ["red heart", "green apple", "sun"]
    with torch.no_grad():
        for found, wanted in (
            (again.of_pictures(some_images()), model.of_pictures(some_images())),
            (again.of_names(names), model.of_names(names)),
        ):
            assert 0 < (found - wanted).abs().max() < 2e-3
            assert (torch.linalg.vector_norm(found, dim=1) - 1).abs().max() < 1e-5
    assert tuple(again.reader.numbers) == WORDS
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())
    config = json.loads((saved / "config.json").read_text())
    assert (config["split"], config["epochs"], config["model_args"]) == ("judge", 3, dict(VISION))
    for name in ("model.safetensors", NAME_SIDE):
        assert {tensor.dtype for tensor in load_file(saved / name).values()} == {torch.float16}


def test_what_is_saved_is_read_with_its_own_sizes(tmp_path: Path) -> None:
    contrast(depth=2, embed_dim=48, num_heads=3).save(tmp_path, {})
    assert Contrast.load(tmp_path).settings["embed_dim"] == 48


def test_the_folder_teaches_what_its_vit_sees(tmp_path: Path) -> None:
    """At the size that is trained by the recipe: 64 patches, six blocks, four heads of 32."""
    contrast(**SHIPPED_SIZE).save(tmp_path / "vit", {})
    vision = Contrast.load(tmp_path / "vit").vision
    teacher = create_teacher(f"local-dir:{tmp_path / 'vit'}", grid=(8, 8), attention_layers=(4, 5))
    images = some_images()
    lesson = teacher(images)
    with torch.no_grad():
        wanted = vision.forward_features(2 * images - 1)[:, vision.num_prefix_tokens :]
    assert lesson.grid == (8, 8) and lesson.features.shape == wanted.shape == (5, 64, 128)
    assert (lesson.features - wanted).abs().max() < 1e-5
    assert {block: tuple(queries.shape) for block, queries in lesson.queries.items()} == {
        block: (5, 4, 64, 32) for block in (4, 5)
    }


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        Contrast.load(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and len(message) < 600
    return message


def test_a_folder_that_is_no_judge_is_one_line(saved: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path, saved / "config.json"):
        assert "is no judge: it has no names.safetensors; train one with hastezoo.recipes.emoji_teacher" in refused(
            folder
        )


def damaged(saved: Path, kind: str) -> None:
    config, names, vision = (saved / name for name in ("config.json", NAME_SIDE, "model.safetensors"))
    if kind == "no config":
        config.unlink()
    elif kind == "config of something else":
        config.write_text("[]")
    elif kind == "config cut off":
        config.write_text(config.read_text()[:50])
    elif kind == "another size":
        config.write_text(config.read_text().replace('"embed_dim": 32', '"embed_dim": 64'))
    elif kind == "no vocabulary":
        save_file(load_file(names), names)
    elif kind == "another vocabulary":
        save_file(load_file(names), names, {"words": '["red"]'})
    elif kind == "names cut off":
        names.write_bytes(names.read_bytes()[:-9])
    elif kind == "pictures cut off":
        vision.write_bytes(vision.read_bytes()[:-9])
    elif kind == "no pictures":
        vision.unlink()


@pytest.mark.parametrize(
    "kind",
    [
        "no config", "config of something else", "config cut off", "another size", "no vocabulary",
        "another vocabulary", "names cut off", "pictures cut off", "no pictures",
    ],
)  # fmt: skip
def test_a_damaged_judge_is_one_line(kind: str, saved: Path) -> None:
    damaged(saved, kind)
    refused(saved)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*: Not a directory; give another --out"):
        contrast().save(tmp_path / "file" / "judge", {})
