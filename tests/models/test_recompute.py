"""Blocks that run a second time in the backward pass: the same loss and gradients, bit by bit, and less memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.models.sit import SiT, SiTConfig
from hastezoo.models.taps import Taps

CONFIG = SiTConfig(input_size=8, in_channels=3, width=48, depth=4, heads=3, num_classes=5, qk_norm=True)
TAPS = Taps(feature_layer=2, attention_layers=(1, 3))


@pytest.fixture
def models() -> tuple[SiT, SiT]:
    """A model with every parameter random, as it is and with recomputation."""
    source = torch.Generator().manual_seed(0)
    model = SiT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * 0.1)
    other = copy.deepcopy(model)
    other.recompute = True
    return model, other


def loss_of(model: SiT, taps: Taps | None) -> Tensor:
    """A loss that depends on the velocity, and on all that is tapped."""
    source = torch.Generator().manual_seed(1)
    x, t = torch.randn(6, 3, 8, 8, generator=source), torch.rand(6, generator=source)
    labels = torch.arange(6)
    if taps is None:
        return model(x, t, labels).square().mean()
    velocity, captured = model(x, t, labels, taps)
    assert captured.features is not None and set(captured.queries) == set(captured.keys) == {1, 3}
    maps = [torch.matmul(captured.queries[i], captured.keys[i].mT).softmax(-1).square().sum() for i in (1, 3)]
    return velocity.square().mean() + captured.features.cos().mean() + sum(maps)


def saved_bytes(model: SiT, taps: Taps | None) -> int:
    """Bytes of the storages that a forward pass keeps for the backward pass, each once."""
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_of(model, taps)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("taps", [None, TAPS], ids=["plain", "tapped"])
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_same_loss_and_gradients(models: tuple[SiT, SiT], taps: Taps | None, autocast: bool) -> None:
    losses = []
    for model in models:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = loss_of(model, taps)
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses)
    plain, again = (dict(model.named_parameters()) for model in models)
    for name, parameter in plain.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        repeated = again[name].grad
        assert repeated is not None and torch.equal(parameter.grad, repeated), name


@pytest.mark.parametrize("taps", [None, TAPS], ids=["plain", "tapped"])
def test_less_is_kept(models: tuple[SiT, SiT], taps: Taps | None) -> None:
    plain, again = (saved_bytes(model, taps) for model in models)
    assert again < plain / 2


def test_a_block_runs_twice_in_training_and_once_elsewhere(models: tuple[SiT, SiT]) -> None:
    _, model = models
    calls: list[None] = []
    block: Any = model.blocks[2]  # not its own hook: it is left as soon as all is there that was not kept
    block.attn.register_forward_hook(lambda *_: calls.append(None))
    loss_of(model, TAPS).backward()
    assert len(calls) == 2
    loss_of(model.eval(), TAPS).backward()
    assert len(calls) == 3
    with torch.no_grad():
        loss_of(model.train(), TAPS)
    assert len(calls) == 4


def test_it_is_no_part_of_the_state(models: tuple[SiT, SiT]) -> None:
    plain, again = models
    assert list(plain.state_dict()) == list(again.state_dict())
    assert plain.config == again.config
