"""How many images fit at a time, for every family of models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hastezoo import devices
from hastezoo.models.registry import config_of, create_model

SMALL = {"input_size": 8, "width": 32, "depth": 2, "heads": 2}


@pytest.mark.parametrize(
    ("name", "settings", "tokens", "fitting"),
    [
        ("sit", {"num_classes": 10}, 16, 128),
        ("mmdit", {"context_length": 48}, 16 + 48, 32),
        ("mmdit", {"context_length": 49}, 16 + 49, 16),
        ("sit", {"input_size": 32, "width": 128}, 256, 2),
        ("mmdit", {"input_size": 32, "width": 128, "context_length": 256}, 256 + 256, 1),
        ("sit", {"input_size": 2}, 1, 256),
    ],
)
def test_on_a_cpu_a_batch_is_what_its_cache_holds(name: str, settings: Any, tokens: int, fitting: int) -> None:
    """Of a guided call, two rows an image, the MLP's hidden layer of 4 widths in float32 stays within 2 MiB."""
    config = config_of(name, **{**SMALL, **settings})
    assert devices.fitting_batch_size(None, config, torch.device("cpu"), torch.float32) == fitting
    hidden = 2 * tokens * 4 * config.width * 4
    assert fitting * hidden <= 2 << 20 < 2 * fitting * hidden or fitting == devices.AUTO_LIMIT


@pytest.mark.parametrize("name", ["sit", "mmdit"])
def test_where_it_is_measured_the_model_gets_a_condition_of_its_kind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The counters of CUDA say 1000 bytes before the call on two rows, and 5000 at its peak."""
    model: Any = create_model(name, **SMALL).eval()
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5000)
    found = devices._measured_bytes_per_row(model, model.config, torch.device("cpu"), torch.float32)
    assert found == 2000
    assert [tuple(given.shape) for given in seen] == [(2,) if name == "sit" else (2, 77, 768)]
