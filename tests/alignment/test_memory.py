"""The attention loss stores no map of N x N: what it allocates, forward and backward, counted by torch's profiler."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.allocations import allocations
from hastezoo.alignment.config import HeadPairing
from hastezoo.alignment.losses import attention_alignment

STUDENT, TEACHER = (16, 72), (12, 64)  # heads and their size, in SiT-XL/2 and DINOv2-B
PAIRED = 12
PAIRINGS: tuple[HeadPairing, ...] = ("index", "mean")


def naive(qs: Tensor, ks: Tensor, qt: Tensor, kt: Tensor, *, heads: HeadPairing) -> Tensor:
    """The loss as it is written down, with its maps."""
    sides = (qs, ks, qt, kt) if heads == "mean" else tuple(side[:, :PAIRED] for side in (qs, ks, qt, kt))
    ours, target = (sides[i] @ sides[i + 1].mT * sides[i].shape[-1] ** -0.5 for i in (0, 2))
    if heads == "mean":
        log_rows = ours.log_softmax(-1).logsumexp(1) - math.log(ours.shape[1])
        return -(target.softmax(-1).mean(1) * log_rows).sum(-1).mean()
    return -(target.softmax(-1) * ours.log_softmax(-1)).sum(-1).mean()


def step(loss: Callable[..., Tensor], heads: HeadPairing, tokens: int, batch: int = 1) -> Callable[[], list[Tensor]]:
    """A call that takes the loss and its gradients in the student's queries and keys."""
    torch.manual_seed(0)
    qs, ks, qt, kt = (torch.randn(batch, count, tokens, size) for count, size in (STUDENT, STUDENT, TEACHER, TEACHER))
    student = qs.requires_grad_(), ks.requires_grad_()

    def call() -> list[Tensor]:
        value = loss(*student, qt, kt, heads=heads)
        return [value.detach(), *torch.autograd.grad(value, student)]

    return call


@pytest.mark.parametrize("heads", PAIRINGS)
def test_what_is_counted_is_the_same_loss(heads: HeadPairing) -> None:
    for ours, obvious in zip(step(attention_alignment, heads, 128)(), step(naive, heads, 128)(), strict=True):
        torch.testing.assert_close(ours, obvious)


@pytest.mark.parametrize("heads", PAIRINGS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("tokens", [256, 512])
def test_no_allocation_is_as_large_as_the_maps_of_an_image(tokens: int, batch: int, heads: HeadPairing) -> None:
    """heads x N^2 floats, however large the batch; and the count does see maps where they are formed."""
    maps = 4 * PAIRED * tokens**2
    assert allocations(step(attention_alignment, heads, tokens, batch)).largest < maps
    assert allocations(step(naive, heads, tokens, batch)).largest >= batch * maps


@pytest.mark.parametrize("heads", PAIRINGS)
def test_memory_grows_as_the_tokens_do(heads: HeadPairing) -> None:
    """Twice the tokens take about twice the memory, where maps take four times as much."""
    ours = {tokens: allocations(step(attention_alignment, heads, tokens)).peak for tokens in (512, 1024)}
    obvious = {tokens: allocations(step(naive, heads, tokens)).peak for tokens in (256, 512)}
    assert 1.5 < ours[1024] / ours[512] < 2.5
    assert obvious[512] / obvious[256] > 3.5
    assert ours[1024] < obvious[512] / 2, "an eighth of what maps take, which at 1024 tokens is four times as much"
