"""Checkpoints as other projects write them, with random weights, at sizes of a few kilobytes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hastezoo.models.registry import create_model
from hastezoo.models.sit import SiT
from tests.text_models import random_mmdit

TINY: dict[str, Any] = {"input_size": 4, "in_channels": 1, "num_classes": 10, "width": 16, "depth": 3, "heads": 2}


def random_sit(seed: int = 0, **overrides: Any) -> SiT:
    """A SiT in which no parameter is zero, so that every one of them shows in the output."""
    torch.manual_seed(seed)
    model = create_model("sit_ti_2", **{**TINY, **overrides})
    assert isinstance(model, SiT)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def projectors(width: int, inner: int = 8, out: int = 6) -> dict[str, Tensor]:
    """REPA's alignment head, Linear-SiLU-Linear-SiLU-Linear."""
    sizes = [(inner, width), (inner, inner), (out, inner)]
    named = {}
    for index, (rows, columns) in enumerate(sizes):
        named[f"projectors.0.{2 * index}.weight"] = torch.randn(rows, columns)
        named[f"projectors.0.{2 * index}.bias"] = torch.randn(rows)
    return named


def repa_state(model: SiT) -> dict[str, Tensor]:
    return {**state_of(model), **projectors(model.config.width)}


def legacy(state: dict[str, Tensor], early: int) -> dict[str, Tensor]:
    """With REPA's older names of late blocks."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "blocks" and int(parts[1]) >= early:
            key = ".".join(["decoder_blocks", str(int(parts[1]) - early), *parts[2:]])
        renamed[key] = value
    return renamed


def repa_arguments(**changes: Any) -> argparse.Namespace:
    values = {"model": "SiT-Ti/2", "num_classes": 10, "encoder_depth": 2, "enc_type": "dinov2-vit-b", "proj_coeff": 0.5}
    return argparse.Namespace(**{**values, "path_type": "linear", "qk_norm": False, **changes})


def save_repa(path: Path, model: SiT, steps: int = 1234, **arguments: Any) -> dict[str, Tensor]:
    """REPA's container; the raw weights differ from the EMA by 1."""
    state = repa_state(model)
    save_container(path, state, repa_arguments(num_classes=model.config.num_classes, **arguments), steps)
    return state


def save_container(path: Path, state: dict[str, Tensor], args: argparse.Namespace, steps: int = 1234) -> None:
    raw = {key: value + 1 for key, value in state.items()}
    torch.save({"model": raw, "ema": state, "opt": {"state": {}}, "args": args, "steps": steps}, path)


def mmdit_state(**config: Any) -> dict[str, Tensor]:
    """Of an MMDiT with those settings, every parameter random, with a projector."""
    model = random_mmdit(**config)
    return {**state_of(model), **projectors(model.config.width)}
