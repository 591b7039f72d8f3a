"""Attention in low precision: computed in float32 on a CPU, from what was rounded, and handed on rounded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hastezoo.models.layers import attend

SHAPE = (2, 3, 5, 4)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(SHAPE, generator=source).to(dtype) for _ in range(3))
    return queries, keys, values


def by_hand(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt d) v in float64."""
    queries, keys, values = (part.detach().double() for part in (queries, keys, values))
    return (queries @ keys.mT / SHAPE[-1] ** 0.5).softmax(-1) @ values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_it_is_softmax_attention_rounded_once(dtype: torch.dtype) -> None:
    """The exact result of the inputs as they are, rounded to their dtype; float32 and float64 add up in their own."""
    parts = inputs(dtype)
    mixed = attend(*parts)
    assert mixed.dtype == dtype
    wanted = by_hand(*parts)
    if dtype in (torch.bfloat16, torch.float16):
        assert torch.equal(mixed, wanted.to(dtype))
    else:
        assert (mixed - wanted).abs().max() < 8 * torch.finfo(dtype).eps


def test_under_autocast_nothing_is_rounded_on_the_way_in() -> None:
    """Queries and keys in float32, as QK norm leaves them, stay so; the result has the dtype of the values."""
    queries, keys, values = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attend(queries, keys, values).dtype == torch.float32
        mixed = attend(queries, keys, values.bfloat16())
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, by_hand(queries, keys, values.bfloat16()).bfloat16())
    assert (attend(queries, keys, values) - by_hand(queries, keys, values)).abs().max() < 1e-6


def test_gradients_have_the_dtypes_of_what_they_are_of() -> None:
    queries, keys, values = (part.requires_grad_() for part in inputs(torch.bfloat16))
    attend(queries, keys, values).float().square().sum().backward()
    exact = [part.detach().double().requires_grad_() for part in (queries, keys, values)]
    ((exact[0] @ exact[1].mT / 2).softmax(-1) @ exact[2]).square().sum().backward()
    for got, wanted in zip((queries, keys, values), exact, strict=True):
        assert got.grad is not None and got.grad.dtype == torch.bfloat16 and wanted.grad is not None
        assert (got.grad.double() - wanted.grad).abs().max() < 0.02 * wanted.grad.abs().max()
