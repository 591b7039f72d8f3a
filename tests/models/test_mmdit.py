"""MMDiT against a numpy re-derivation and the outputs of the reference implementation."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.models.layers import parameter_count
from hastezoo.models.mmdit import MMDiT, MMDiTConfig
from hastezoo.models.registry import architecture_of, config_of, create_model
from hastezoo.models.sit import SiTConfig
from hastezoo.models.taps import Taps
from tests.reference import mmdit as reference

COUNTED = tomllib.loads((Path(__file__).parents[1] / "reference" / "parameters.toml").read_text())["counted"]
TINY = MMDiTConfig(input_size=8, in_channels=3, width=24, depth=2, heads=3, context_width=10, context_length=5)
ALL = Taps(1, (0,))


def randomised(config: MMDiTConfig, seed: int = 0) -> MMDiT:
    """A model in float64 with every parameter random."""
    model = MMDiT(config).double()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64) * 0.3)
    return model


def inputs(config: MMDiTConfig, batch: int = 2, length: int = 5, size: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, *(size or config.size), generator=source, dtype=torch.float64)
    # The timestep's sinusoids are float32 by design, so times that float32 holds exactly are used.
    t = torch.rand(batch, generator=source).double()
    return x, t, torch.randn(batch, length, config.context_width, generator=source, dtype=torch.float64)


def assert_equals_the_derivation(config: MMDiTConfig, length: int = 5, size: Any = None) -> None:
    model = randomised(config)
    x, t, context = inputs(config, length=length, size=size)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    layers = tuple(range(config.depth))
    for sample in range(len(x)):
        wanted = reference.run(state, config, x[sample].numpy(), float(t[sample]), context[sample].numpy())
        for layer in layers:
            with torch.no_grad():
                velocity, captured = model(x, t, context, Taps(layer + 1, layers))
            pairs = [(velocity, wanted.velocity), (captured.features, wanted.features[layer])]
            pairs += [(captured.queries[layer], wanted.queries[layer]), (captured.keys[layer], wanted.keys[layer])]
            for got, expected in pairs:
                # Positions and the timestep's sinusoids are float32 in the model, by design.
                assert got is not None and got[sample].shape == expected.shape
                assert (got[sample] - torch.from_numpy(expected)).abs().max() < 2e-6 * abs(expected).max()


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, qk_norm=True),
        replace(TINY, depth=1),
        replace(TINY, depth=3, qk_norm=True, patch_size=4),
        replace(TINY, input_size=(4, 12), in_channels=1),
        replace(TINY, mlp_ratio=2.0, heads=1),
    ],
    ids=["plain", "qk_norm", "depth1", "depth3", "oblong", "narrow"],
)
def test_equals_the_numpy_derivation(config: MMDiTConfig) -> None:
    assert_equals_the_derivation(config)


@pytest.mark.parametrize("length", [1, 11])
def test_contexts_of_any_length(length: int) -> None:
    assert_equals_the_derivation(TINY, length=length)


@pytest.mark.parametrize(
    "size", [(4, 4), (6, 8), (2, 6), (8, 12), (4, 14)], ids=["half", "odd-cut", "bar", "wider", "cut-and-wider"]
)
def test_inputs_of_another_size(size: tuple[int, int]) -> None:
    """Fewer patches than the table take its centre; more of them a bicubic stretch."""
    assert_equals_the_derivation(replace(TINY, depth=1), size=size)


def test_positions_of_a_file_are_cut_and_stretched_too() -> None:
    """A table that is its own row index: the centre of 4 rows is rows 1 and 2; what is constant stays so."""
    model = MMDiT(TINY)
    rows = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1).expand(1, 16, 24)
    model.pos_embed.copy_(rows)
    assert torch.equal(model.positions(2, 4)[0, :, 0], torch.tensor([1.0, 1, 1, 1, 2, 2, 2, 2]))
    stretched = model.positions(8, 4).view(8, 4, 24)
    assert (stretched - stretched[:, :1, :1]).abs().max() < 1e-6 and (stretched[1:, 0, 0] > stretched[:-1, 0, 0]).all()
    assert model.positions(4, 4) is model.pos_embed
    assert model.bfloat16().positions(5, 5).dtype == torch.bfloat16


def test_context_is_cast_to_the_weights() -> None:
    model = randomised(TINY).float()
    x, t, context = (value.float() for value in inputs(TINY))
    half = context.half()
    with torch.no_grad():
        assert torch.equal(model(x, t, half), model(x, t, half.float()))
        assert torch.equal(model(x, t, half.double()), model(x, t, half.float()))
        assert model.double()(x.double(), t, half).dtype == torch.float64


def test_every_context_token_counts_and_their_order_does_not() -> None:
    """Attention sees the context as a set; nothing tells its tokens apart but what they hold."""
    model = randomised(TINY)
    x, t, context = inputs(TINY)
    with torch.no_grad():
        velocity = model(x, t, context)
        assert (model(x, t, context.flip(1)) - velocity).abs().max() < 1e-12
        for index in range(5):
            changed = context.clone()
            changed[:, index] += 1
            assert (model(x, t, changed) - velocity).abs().max() > 1e-4


def test_bfloat16_runs_and_is_near() -> None:
    model = randomised(replace(TINY, qk_norm=True)).float()
    x, t, context = (value.float() for value in inputs(TINY))
    with torch.no_grad():
        wanted = model(x, t, context)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model(x, t, context.half())
        whole = model.bfloat16()(x.bfloat16(), t, context.half())
    assert whole.dtype == torch.bfloat16
    for got in (cast, whole):
        assert (got.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.parametrize("name", COUNTED)
def test_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert parameter_count(create_model(name)) == COUNTED[name]


@pytest.mark.parametrize(("name", "depth"), [("mmdit_ti", 6), ("mmdit_coco", 24)])
def test_parameter_counts_in_closed_form(name: str, depth: int) -> None:
    """Four latent channels, contexts 768 wide, 256 sinusoids, MLP ratio 4; weights and biases, layer by layer."""
    width = 32 * depth
    linear = (width + 1) * width
    embedders = (4 * 4 + 1) * width + (256 + 1) * width + linear + (768 + 1) * width
    stream = 4 * linear + (width + 1) * 4 * width + (4 * width + 1) * width + 6 * linear
    pre_only = 3 * linear + 2 * linear
    final = (width + 1) * 4 * 4 + 2 * linear
    with torch.device("meta"):
        model = create_model(name)
    assert parameter_count(model) == embedders + (2 * depth - 1) * stream + pre_only + final


def test_the_context_side_of_the_last_block_has_no_more_than_attention_needs() -> None:
    names = set(MMDiT(replace(TINY, qk_norm=True)).joint_blocks[1].context_block.state_dict())
    parts = {"attn.qkv.weight", "attn.qkv.bias", "attn.ln_q.weight", "attn.ln_k.weight"}
    assert names == parts | {"adaLN_modulation.1.weight", "adaLN_modulation.1.bias"}
    assert MMDiT(TINY).joint_blocks[1].context_block.adaLN_modulation[1].weight.shape == (2 * 24, 24)


def test_pytorchs_initialisation_unless_told() -> None:
    """Linears are uniform within 1 / sqrt(inputs) then, and nothing is zero."""
    torch.manual_seed(0)
    model: Any = create_model("mmdit_ti", input_size=8, depth=1).requires_grad_(False)
    stream = model.joint_blocks[0].x_block
    linears = {
        stream.attn.qkv: 192,
        stream.mlp.fc2: 768,
        stream.adaLN_modulation[1]: 192,
        model.final_layer.linear: 192,
    }
    linears |= {model.context_embedder: 768, model.t_embedder.mlp[0]: 256}
    for linear, inputs in linears.items():
        for values in (linear.weight, linear.bias):
            assert values.any() and values.abs().max() <= inputs**-0.5
        assert float(linear.weight.std()) == pytest.approx((3 * inputs) ** -0.5, rel=0.03)


def test_adaln_zero_begins_as_dit_does() -> None:
    torch.manual_seed(0)
    model: Any = create_model("mmdit_ti", input_size=8, depth=2, adaln_zero=True).requires_grad_(False)
    zero = [name for name, value in model.named_parameters() if not value.any()]
    modulations = [name for name, _ in model.named_parameters() if "adaLN_modulation" in name]
    biases = [name for name, _ in model.named_parameters() if name.endswith("bias")]
    assert set(zero) == {*modulations, *biases, "final_layer.linear.weight"}
    stream = model.joint_blocks[0].context_block
    for weight, sides in ((stream.attn.qkv.weight, 4 * 192), (model.context_embedder.weight, 192 + 768)):
        assert weight.abs().max() == pytest.approx((6 / sides) ** 0.5, rel=0.01)
    assert model.x_embedder.proj.weight.abs().max() == pytest.approx((6 / (192 + 16)) ** 0.5, rel=0.01)
    for layer in (0, 2):
        assert model.t_embedder.mlp[layer].weight.std() == pytest.approx(0.02, rel=0.02)
    x, t, context = torch.randn(2, 4, 8, 8), torch.rand(2), torch.randn(2, 77, 768)
    velocity, captured = model(x, t, context, Taps(2))
    assert not velocity.any()
    assert torch.equal(captured.features, model.x_embedder(x) + model.pos_embed)  # every block is the identity


@pytest.mark.parametrize("qk_norm", [False, True])
def test_gradients_reach_every_parameter(qk_norm: bool) -> None:
    """But for what makes queries of the last context, which nobody waits for: their gradient is zero, not missing."""
    model = randomised(replace(TINY, qk_norm=qk_norm))
    model(*inputs(TINY)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() != (name == "joint_blocks.1.context_block.attn.ln_q.weight"), name
    rows = model.joint_blocks[1].context_block.attn.qkv.weight.grad.unflatten(0, (3, 24))
    assert [bool(part.any()) for part in rows] == [False, True, True]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_recomputation_gives_the_same_gradients(autocast: bool) -> None:
    plain = randomised(replace(TINY, depth=3, qk_norm=True)).float()
    again = copy.deepcopy(plain)
    again.recompute = True
    calls: list[None] = []
    again.joint_blocks[1].x_block.attn.qkv.register_forward_hook(lambda *_: calls.append(None))
    x, t, context = (value.float() for value in inputs(TINY))
    losses = []
    for model in (plain, again):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            velocity, captured = model(x, t, context, Taps(2, (0, 2)))
            assert captured.features is not None
            tapped = [captured.features, *captured.queries.values(), *captured.keys.values()]
            loss = velocity.square().mean() + sum(part.float().cos().mean() for part in tapped)
        loss.backward()
        losses.append(loss.detach())
    assert torch.equal(*losses) and len(calls) == 2
    repeated = dict(again.named_parameters())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, repeated[name].grad), name  # type: ignore[arg-type]
    again.eval()(x, t, context).sum().backward()
    assert len(calls) == 3


def test_without_taps_the_operators_are_the_same_as_with_them() -> None:
    model = MMDiT(TINY)
    x, t, context = (value.float() for value in inputs(TINY))

    def operators(taps: Taps | None) -> list[str]:
        with torch.profiler.profile() as profile:
            model(x, t, context, taps)
        return sorted(event.name for event in profile.events() if event.name.startswith("aten::"))

    model(x, t, context)
    assert operators(None) == operators(Taps(2, (0, 1)))


def test_tapped_queries_and_keys_hold_no_memory_of_their_own() -> None:
    """They are views of what attention used, which the backward pass needs in any case."""
    model = randomised(TINY)
    kept: set[int] = set()

    def pack(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, captured = model(*inputs(TINY), taps=Taps(None, (0, 1)))
    for part in (*captured.queries.values(), *captured.keys.values()):
        assert part.untyped_storage().data_ptr() in kept


def test_what_training_knows_of_every_family() -> None:
    model = MMDiT(TINY)
    assert model.blocks is model.joint_blocks and len(model.blocks) == 2
    blank = model.blank_condition(3)
    assert (
        blank.shape == (3, 5, 10)
        and not blank.any()
        and model.blank_condition(1, dtype=torch.bfloat16).is_floating_point()
    )
    assert model.blank_condition(1, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert model.blank_condition(1, device=torch.device("meta")).is_meta
    assert model(torch.zeros(3, 3, 8, 8), torch.zeros(3), blank).shape == (3, 3, 8, 8)
    labels = create_model("sit_ti_2", input_size=8).blank_condition(3)
    assert torch.equal(labels, torch.zeros(3, dtype=torch.int64))
    assert TINY.grid == (4, 4) and TINY.tokens == 16 + 5
    assert SiTConfig(input_size=(8, 4)).tokens == 8 and MMDiTConfig().tokens == 256 + 77


@pytest.mark.parametrize(
    ("x", "context", "message"),
    [
        ((2, 3, 8, 8), (2, 5, 9), r"context \(B, L, D\) = \(2, 5, 9\) is not \(2, L, 10\)"),
        ((2, 3, 8, 8), (3, 5, 10), r"\(3, 5, 10\) is not \(2, L, 10\).*for an input of \(2, 3, 8, 8\)"),
        ((2, 3, 8, 8), (2, 0, 10), r"\(2, 0, 10\) is not .* with L at least 1"),
        ((2, 3, 8, 8), (2, 10), r"context \(B, L, D\) = \(2, 10\)"),
        ((2, 4, 8, 8), (2, 5, 10), r"input \(B, C, H, W\) = \(2, 4, 8, 8\) is not \(B, 3, H, W\)"),
        ((2, 3, 8, 7), (2, 5, 10), r"\(2, 3, 8, 7\) is not .* multiples of patch_size 2"),
        ((2, 3, 0, 8), (2, 5, 10), r"\(2, 3, 0, 8\) is not"),
        ((3, 8, 8), (2, 5, 10), r"\(3, 8, 8\) is not"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x: tuple[int, ...], context: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        MMDiT(TINY)(torch.zeros(x), torch.zeros(2), torch.zeros(context))
    assert "\n" not in str(caught.value)


def test_taps_and_configurations_that_cannot_be() -> None:
    x, t, context = inputs(TINY)
    for taps in (Taps(0), Taps(3), Taps(None, (2,))):
        with pytest.raises(ValueError, match="not in"):
            MMDiT(TINY).double()(x, t, context, taps)
    changes: dict[str, Any]
    for changes, message in (
        ({"input_size": 7}, "not a multiple of patch_size"),
        ({"heads": 5}, "width 24 is not a multiple of heads 5"),
        ({"context_width": 0}, "context_width must be at least 1"),
        ({"context_length": 0}, "context_length must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(TINY, **changes)


def test_architectures_by_name() -> None:
    config = config_of("mmdit_ti", input_size=8)
    assert isinstance(config, MMDiTConfig)
    assert (config.size, config.width, config.depth, config.heads, config.context_width) == ((8, 8), 192, 6, 6, 768)
    assert config_of("mmdit_coco") == config_of("mmdit") == MMDiTConfig()
    assert isinstance(config_of("sit_b_4"), SiTConfig)
    for name in ("mmdit_ti", "mmdit_coco"):
        assert architecture_of(vars(config_of(name, in_channels=1)), "mmdit") == name
    assert architecture_of(vars(TINY), "mmdit") == "mmdit"
    assert isinstance(create_model("mmdit_ti", input_size=8, depth=1), MMDiT)
    with pytest.raises(ValueError, match="mmdit_coco"):
        create_model("mmdit_koko")
    with pytest.raises(
        ValueError, match=r"has no setting 'context_widht'; nearest: context_width\. It has: .*adaln_zero"
    ):
        config_of("mmdit", context_widht=3)
    with pytest.raises(ValueError, match="mmdit_ti has no setting 'num_classes'"):
        create_model("mmdit_ti", num_classes=3)
