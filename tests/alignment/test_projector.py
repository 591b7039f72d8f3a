"""Projectors: REPA's MLP by its parameters' names, iREPA's convolution against sums written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hastezoo.alignment.grids import resize_tokens
from hastezoo.alignment.projector import create_projector, spatially_normalised


def test_the_mlp_is_repas() -> None:
    torch.manual_seed(0)
    projector = create_projector("mlp", 8, 6, (4, 4), (4, 4), hidden=10).double()
    state = projector.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "0.weight": (10, 8), "0.bias": (10,), "2.weight": (10, 10),
        "2.bias": (10,), "4.weight": (6, 10), "4.bias": (6,),
    }  # fmt: skip
    tokens = torch.randn(2, 16, 8, dtype=torch.float64)
    x = tokens
    for layer in (0, 2, 4):
        x = x @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
        x = x / (1 + (-x).exp()) if layer < 4 else x
    assert (projector(tokens) - x).abs().max() < 1e-12
    assert torch.equal(projector.prepare(tokens), tokens)


def test_the_default_is_as_wide_as_released_ones() -> None:
    assert tuple(create_projector("mlp", 12, 7, (2, 2), (2, 2)).state_dict()["2.weight"].shape) == (2048, 2048)


def test_the_convolution_sees_the_neighbours_on_the_grid() -> None:
    torch.manual_seed(0)
    projector = create_projector("conv", 5, 3, (3, 4), (3, 4)).double()
    tokens = torch.randn(2, 12, 5, dtype=torch.float64)
    weight, bias = projector.state_dict()["conv.weight"], projector.state_dict()["conv.bias"]
    found = projector(tokens)
    for row in range(3):
        for column in range(4):
            wanted = bias.expand(2, 3).clone()
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    r, c = row + down, column + right
                    if 0 <= r < 3 and 0 <= c < 4:
                        wanted += tokens[:, r * 4 + c] @ weight[:, :, down + 1, right + 1].T
            assert (found[:, row * 4 + column] - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_another_grid_resizes_the_students_tokens_first(kind: str) -> None:
    torch.manual_seed(0)
    projector = create_projector(kind, 8, 6, (16, 16), (14, 14), hidden=10)  # type: ignore[arg-type]
    same = create_projector(kind, 8, 6, (14, 14), (14, 14), hidden=10)  # type: ignore[arg-type]
    same.load_state_dict(projector.state_dict())
    tokens = torch.randn(1, 256, 8)
    assert projector(tokens).shape == (1, 196, 6)
    assert torch.equal(projector(tokens), same(resize_tokens(tokens, (16, 16), (14, 14))))


def test_spatial_normalisation() -> None:
    features = 3 + 2 * torch.randn(2, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = spatially_normalised(features)
    for image in range(2):
        for channel in range(4):
            column = features[image, :, channel]
            mean = column.sum() / 9
            std = ((column - mean) ** 2).sum().div(8).sqrt()
            assert (found[image, :, channel] - (column - 0.6 * mean) / (std + 1e-6)).abs().max() < 1e-12
    flat = torch.full((1, 4, 2), 5.0).half()
    assert torch.isfinite(spatially_normalised(flat)).all(), "tokens that are all equal"
    projector = create_projector("conv", 8, 4, (3, 3), (3, 3))
    assert torch.equal(projector.prepare(features), found)
    assert not F.cosine_similarity(found, features, dim=-1).gt(0.999).all()
