"""A small text-to-image model with random weights as a checkpoint of the user's, and captioned data for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hastezoo.digests import sha256_of
from hastezoo.models.registry import create_model
from hastezoo.zoo.card import Card
from hastezoo.zoo.modelfile import save_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.toml import to_toml

SMALL: dict[str, Any] = {
    "input_size": 4, "in_channels": 4, "width": 64, "depth": 2, "heads": 2, "context_width": 32,
}  # fmt: skip


def random_mmdit(seed: int = 0, **changes: Any) -> Any:
    """An MMDiT in which every parameter shows in the output."""
    torch.manual_seed(seed)
    model = create_model("mmdit", **{**SMALL, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_text_checkpoint(home: Path, clip: Path, vae: Path, name: str = "tiny-text", **changes: Any) -> Card:
    """A card in the user's store, with its weights, for images of 32 px; `changes` are of the model."""
    model = random_mmdit(**changes)
    folder = home / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / f"{name}.safetensors", model, "mmdit", weights="ema", step=7)
    weights = folder / f"{name}.safetensors"
    values: dict[str, Any] = {
        "name": name,
        "title": "A tiny model of text",
        "architecture": "mmdit",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "method": "haste",
        "resolution": 8 * model.config.size[0],
        "protocol": "coco",
        "status": "embedded",
        "steps": 7,
        "licence": "MIT",
        "redistribution": "allowed",
        "weights": {"file": weights.name, "sha256": sha256_of(weights), "bytes": weights.stat().st_size},
        "config": {**SMALL, **changes},
        "autoencoder": {"kind": "kl", "repo": str(vae), "scale": 0.18215, "bias": 0.0, "downsampling": 8},
        "text": {"kind": "clip", "repo": str(clip), "length": 77},
    }
    (folder / f"{name}.toml").write_text(to_toml(values))
    return find_card(name)
