"""Files of weights: round trip, verification, and everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hastezoo.errors import UserError
from hastezoo.models.registry import create_model
from hastezoo.zoo.modelfile import load_model, save_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.weights import resolve

TINY = {"input_size": (4, 8), "in_channels": 1, "num_classes": 3, "width": 16, "depth": 1, "heads": 2}


def saved(path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    model = create_model("sit_ti_2", **TINY)
    save_model(path, model, "sit_ti_2", weights="ema", step=7)
    return model


def test_round_trip(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.safetensors")
    loaded, metadata = load_model(tmp_path / "m.safetensors")
    assert loaded.config == model.config and metadata["step"] == "7"
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["m.safetensors"]


def test_corrupted_embedded_file_is_refused(tmp_path: Path) -> None:
    card = find_card("sit-ti-digits").model_copy()
    data = bytearray(resolve(card).path.read_bytes())
    data[-1] ^= 1
    card._folder = tmp_path
    (tmp_path / "sit-ti-digits.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"corrupted \(sha256"):
        resolve(card)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    card = find_card("sit-ti-digits").model_copy()
    card._folder = tmp_path
    with pytest.raises(UserError, match="missing"):
        resolve(card)


def test_card_without_weights_says_how_to_train_them() -> None:
    card = find_card("sit-ti-digits").model_copy(update={"weights": None, "status": "recipe-only", "name": "mine"})
    with pytest.raises(UserError, match=r"python -m hastezoo\.recipes\.digits"):
        resolve(card)


def test_unusable_files_are_refused_in_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    saved(good)
    data = good.read_bytes()
    files = {
        "truncated": data[:-100],
        "empty": b"",
        "text": b"not weights at all",
        "lying": (2**40).to_bytes(8, "little") + data[8:],
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable safetensors file") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no file"):
        load_model(tmp_path / "absent")


def test_foreign_and_unfitting_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not written by hastezoo"):
        load_model(path)
    model = create_model("sit_ti_2", **TINY)
    for config, tensors in (
        ({**TINY, "width": 32}, model.state_dict()),
        (TINY, {**model.state_dict(), "blocks.1.extra": torch.zeros(1)}),
        ({**TINY, "naem": 1}, model.state_dict()),
    ):
        metadata = {"format": "hastezoo-1", "architecture": "sit_ti_2", "config": json.dumps(config)}
        save_file(tensors, path, metadata)
        with pytest.raises(UserError, match="do not fit their own config") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
