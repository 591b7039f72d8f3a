"""A small model of words with random weights as a checkpoint of the user's."""

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

WORDS = ["a", "red", "blue", "apple", "bus", "cat", "cherries", "two", "1", "woman", "hat", "pinata"]
LENGTH = 6
SMALL: dict[str, Any] = {
    "input_size": 8, "in_channels": 3, "patch_size": 4, "width": 64, "depth": 2, "heads": 2, "context_width": 16,
    "context_length": LENGTH, "words": WORDS,
}  # fmt: skip


def random_words(seed: int = 0, **changes: Any) -> Any:
    """A model of words in which every parameter shows in the output."""
    torch.manual_seed(seed)
    model = create_model("word_mmdit", **{**SMALL, **changes})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def write_word_checkpoint(home: Path, name: str = "tiny-words", **changes: Any) -> Card:
    """A card in the user's store, with its weights, for pixels; `changes` are of the model."""
    model = random_words(**changes)
    folder = home / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    save_model(weights, model, "word_mmdit", weights="ema", step=7)
    (folder / f"{name}.toml").write_text(to_toml(word_card(model, weights, name, **changes)))
    return find_card(name)


def word_card(model: Any, weights: Path, name: str, **changes: Any) -> dict[str, Any]:
    """What its card says."""
    return {
        "name": name,
        "title": "A tiny model of words",
        "architecture": "word_mmdit",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "method": "haste",
        "resolution": model.config.size[0],
        "protocol": "emoji",
        "status": "embedded",
        "steps": 7,
        "licence": "MIT",
        "redistribution": "allowed",
        "weights": {"file": weights.name, "sha256": sha256_of(weights), "bytes": weights.stat().st_size},
        "config": {**SMALL, **changes},
        "text": {"kind": "words", "length": model.config.context_length},
    }
