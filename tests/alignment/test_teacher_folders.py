"""Teachers from a folder of one's own, as the digits' recipe writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from hastezoo.alignment.teachers import create_teacher
from hastezoo.errors import UserError
from tests.alignment.vits import Evil, one_line, random_images, stirred
from tests.local_hub import LocalHub

DIGITS: dict[str, Any] = {
    "img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10,
    "embed_dim": 32, "depth": 2, "num_heads": 2, "global_pool": "avg", "fc_norm": False,
}  # fmt: skip


def folder(path: Path, file: str = "model.safetensors", **changes: Any) -> tuple[str, VisionTransformer]:
    """The teacher of the digits, as its recipe writes it, but smaller."""
    torch.manual_seed(5)
    model = stirred(timm.create_model("vit_tiny_patch16_224", **DIGITS)).eval()
    assert isinstance(model, VisionTransformer)
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 10,
        "model_args": DIGITS,
        "pretrained_cfg": {"input_size": [1, 8, 8], "mean": [0.4], "std": [0.5], "fixed_input_size": True},
        **changes,
    }
    (path / "config.json").write_text(json.dumps(config))
    state = model.state_dict()
    save_file(state, path / file) if file.endswith(".safetensors") else torch.save(state, path / file)
    return f"local-dir:{path}", model


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_rules_everything(file: str, tmp_path: Path, local_hub: LocalHub) -> None:
    name, model = folder(tmp_path, file)
    teacher = create_teacher(name, grid=(16, 16), attention_layers=(1,))
    assert (teacher.size, teacher.grid, teacher.width, teacher.depth) == ((8, 8), (4, 4), 32, 2)
    images = random_images(2, 1, 8, 8)
    lesson = teacher(images)
    with torch.no_grad():
        expected = model.forward_features((images - 0.4) / 0.5)[:, 1:]
    torch.testing.assert_close(lesson.features, expected, rtol=0, atol=0)
    assert lesson.queries[1].shape == (2, 2, 16, 16)
    assert not local_hub.requests
    with pytest.raises(UserError, match=r"sees images \(B, 1, H, W\)"):
        teacher(random_images(2, 3, 8, 8))


def test_a_folder_with_random_weights(tmp_path: Path) -> None:
    name, _ = folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert create_teacher(name, pretrained=False).grid == (4, 4)
    with pytest.raises(UserError, match=r"holds no weights; put them there as model\.safetensors"):
        create_teacher(name)


def test_a_folder_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    name, _ = folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": Evil(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="it was not run"):
        create_teacher(name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architecture": "vit_nothing"}, "cannot build local-dir:.*vit_nothing"),
        ({"model_args": {**DIGITS, "no_such": 3}}, "cannot build local-dir:.*no_such"),
        ({"model_args": {**DIGITS, "depth": 3}}, "does not fit local-dir:.*Missing key"),
        ({"pretrained_cfg": {"input_size": [1, 8, 8]}}, "sees 1 channels, but 3 values of mean or std"),
    ],
)
def test_folders_that_do_not_fit(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    name, _ = folder(tmp_path, **changes)
    with pytest.raises(UserError, match=reason) as caught:
        create_teacher(name)
    one_line(caught)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot build local-dir:.*not found"):
        create_teacher(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot build local-dir:") as caught:
        create_teacher(f"local-dir:{tmp_path}")
    one_line(caught)


def test_a_folder_takes_no_other_weights(tmp_path: Path) -> None:
    name, _ = folder(tmp_path)
    with pytest.raises(UserError, match=r"has weights of its own; leave .*w\.pth out"):
        create_teacher(name, weights=tmp_path / "w.pth")
