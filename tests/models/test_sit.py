"""SiT against a numpy re-derivation, the published sizes and the outputs of the reference implementations."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.models.layers import parameter_count
from hastezoo.models.registry import ARCHITECTURES, create_model
from hastezoo.models.sit import SiT, SiTConfig
from hastezoo.models.taps import Taps
from tests.reference import sit as reference

PUBLISHED = tomllib.loads((Path(__file__).parents[1] / "reference" / "parameters.toml").read_text())["published"]
TINY = SiTConfig(input_size=8, in_channels=3, width=24, depth=2, heads=3, num_classes=5)


def randomised(config: SiTConfig, seed: int = 0) -> SiT:
    """A model in float64 with every parameter random, so that zero-initialised layers count too."""
    model = SiT(config).double()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64) * 0.2)
    return model


def inputs(config: SiTConfig, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, *config.size, generator=source, dtype=torch.float64)
    return x, torch.rand(batch, generator=source, dtype=torch.float64), torch.arange(batch) % (config.num_classes + 1)


@pytest.mark.parametrize("learn_sigma", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str, learn_sigma: bool) -> None:
    with torch.device("meta"):
        model = create_model(name, learn_sigma=learn_sigma)
    assert round(parameter_count(model) / 1e6) == PUBLISHED[name]


@pytest.mark.parametrize("learn_sigma", [False, True])
@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize(
    ("size", "depth", "width"), [("s", 12, 384), ("b", 12, 768), ("l", 24, 1024), ("xl", 28, 1152)]
)
def test_parameter_counts_in_closed_form(size: str, depth: int, width: int, patch: int, learn_sigma: bool) -> None:
    """Four latent channels, 1000 classes, 256 sinusoids, MLP ratio 4; weights and biases, layer by layer."""
    out = patch**2 * 4 * (2 if learn_sigma else 1)
    embedders = (4 * patch**2 + 1) * width + (256 + 1) * width + (width + 1) * width + 1001 * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    mlp = (width + 1) * 4 * width + (4 * width + 1) * width
    block = attention + mlp + (width + 1) * 6 * width
    final = (width + 1) * out + (width + 1) * 2 * width
    with torch.device("meta"):
        model = create_model(f"sit_{size}_{patch}", learn_sigma=learn_sigma)
    assert parameter_count(model) == embedders + depth * block + final


def test_every_size_and_patch_is_registered() -> None:
    wanted = {f"sit_{size}_{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4, 8)}
    assert wanted <= set(ARCHITECTURES)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, qk_norm=True),
        replace(TINY, patch_size=4),
        replace(TINY, input_size=(4, 12)),
        replace(TINY, in_channels=1, num_classes=1),
        replace(TINY, mlp_ratio=2.0, heads=1),
    ],
    ids=["plain", "qk_norm", "patch4", "oblong", "grey", "narrow"],
)
def test_equals_the_numpy_derivation(config: SiTConfig) -> None:
    model = randomised(config)
    x, t, labels = inputs(config)
    # The timestep's sinusoids are float32 by design, so times that float32 holds exactly are used.
    t = t.float().double()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    got = model(x, t, labels).detach()
    for index in range(len(x)):
        wanted = reference.velocity(state, config, x[index].numpy(), float(t[index]), int(labels[index]))
        assert (got[index] - torch.from_numpy(wanted)).abs().max() < 1e-5


def test_original_sit_runs_backwards_and_drops_its_second_half() -> None:
    config = replace(TINY, learn_sigma=True, reversed_time=True)
    model = randomised(config)
    x, t, labels = inputs(config, 1)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    wanted = -reference.velocity(state, config, x[0].numpy(), float(1 - t[0]), int(labels[0]))[:3]
    assert (model(x, t, labels)[0] - torch.from_numpy(wanted)).abs().max() < 1e-5


def load_golden(tensors: dict[str, Any], **overrides: Any) -> SiT:
    model = create_model("sit_s_2", depth=3, width=48, heads=4, num_classes=10, input_size=8, **overrides)
    model.load_state_dict(
        {name[6:]: value for name, value in tensors.items() if name.startswith("state.") and "projectors" not in name}
    )
    assert isinstance(model, SiT)
    return model


def test_golden_repa(golden: Any) -> None:
    tensors = golden("sit_repa")
    model = load_golden(tensors)
    velocity, captured = model(tensors["x"], tensors["t"], tensors["y"], taps=Taps(2, (0, 1)))
    assert (velocity - tensors["velocity"]).abs().max() <= 1e-5
    for index in (0, 1):
        logits = captured.queries[index] @ captured.keys[index].mT * (48 // 4) ** -0.5
        assert (logits - tensors[f"attention_logits.{index}"]).abs().max() <= 1e-5
    projected = captured.features
    for layer in (0, 2, 4):
        weight, bias = (tensors[f"state.projectors.0.{layer}.{part}"] for part in ("weight", "bias"))
        projected = torch.nn.functional.linear(projected, weight, bias)
        projected = torch.nn.functional.silu(projected) if layer < 4 else projected
    assert (projected - tensors["projected.0"]).abs().max() <= 1e-5


def test_golden_original(golden: Any) -> None:
    tensors = golden("sit_original")
    model = load_golden(tensors, learn_sigma=True)
    assert (model(tensors["x"], tensors["t"], tensors["y"]) - tensors["velocity"]).abs().max() <= 1e-5
    ours = load_golden(tensors, learn_sigma=True, reversed_time=True)
    turned = ours(tensors["x"], 1 - tensors["t"], tensors["y"])
    assert (turned + tensors["velocity"]).abs().max() <= 1e-5


def test_fresh_model_is_zero_whatever_the_input() -> None:
    model = SiT(TINY)
    x, t, labels = inputs(TINY)
    assert not model(x.float(), t.float(), labels).any()


def test_initialisation_has_dits_scales() -> None:
    torch.manual_seed(0)
    model = create_model("sit_s_2", depth=1, input_size=8).requires_grad_(False)
    assert isinstance(model, SiT)
    block = model.blocks[0]
    bound = (6 / (384 + 3 * 384)) ** 0.5
    assert block.attn.qkv.weight.abs().max() == pytest.approx(bound, rel=0.01)
    assert model.y_embedder.embedding_table.weight.std() == pytest.approx(0.02, rel=0.02)
    assert model.t_embedder.mlp[0].weight.std() == pytest.approx(0.02, rel=0.02)
    patch_bound = (6 / (384 + 16)) ** 0.5
    assert model.x_embedder.proj.weight.abs().max() == pytest.approx(patch_bound, rel=0.01)
    assert not block.adaLN_modulation[1].weight.any() and not model.final_layer.linear.weight.any()


def test_taps_return_what_the_blocks_saw_and_change_nothing() -> None:
    model = randomised(replace(TINY, depth=3))
    x, t, labels = inputs(TINY)
    seen = {}
    model.blocks[1].register_forward_hook(lambda module, args, out: seen.update(after=out[0]))
    velocity, captured = model(x, t, labels, taps=Taps(feature_layer=2, attention_layers=(0, 2)))
    assert torch.equal(velocity, model(x, t, labels))
    assert captured.features is not None and torch.equal(captured.features, seen["after"])
    assert set(captured.queries) == set(captured.keys) == {0, 2}
    assert captured.queries[0].shape == (3, 3, 16, 8)


def test_without_taps_the_operators_are_the_same_as_with_empty_taps() -> None:
    model = SiT(TINY)
    x, t, labels = (value.float() if value.is_floating_point() else value for value in inputs(TINY))

    def operators(taps: Taps | None) -> list[str]:
        with torch.profiler.profile() as profile:
            model(x, t, labels, taps=taps)
        return sorted(event.name for event in profile.events() if event.name.startswith("aten::"))

    model(x, t, labels)
    assert operators(None) == operators(Taps(1, (0, 1)))


@pytest.mark.parametrize("taps", [Taps(0), Taps(3), Taps(None, (2,)), Taps(None, (-1,))])
def test_taps_outside_the_model_are_refused(taps: Taps) -> None:
    x, t, labels = inputs(TINY)
    with pytest.raises(ValueError, match="not in"):
        SiT(TINY).double()(x, t, labels, taps=taps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 7}, "not a multiple of patch_size"),
        ({"width": 25}, "not a multiple of heads"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"width": 6}, "multiple of 4"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SiT(replace(TINY, **changes))


def test_wrong_input_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="input"):
        SiT(TINY)(torch.zeros(1, 3, 8, 10), torch.zeros(1), torch.zeros(1, dtype=torch.int64))


def test_unknown_architecture_and_setting_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="sit_xl_2"):
        create_model("sit_xl_3")
    with pytest.raises(ValueError, match="nearest: num_classes"):
        create_model("sit_s_2", num_class=3)


def test_bfloat16_keeps_its_sense_of_time() -> None:
    """t = 0.996 and t = 1 are one number in bfloat16; the embedding must still tell them apart."""
    embedder = SiT(TINY).bfloat16().t_embedder
    near = embedder.sinusoids(torch.tensor([0.999, 1.0]))
    assert near.dtype == torch.float32 and not torch.equal(near[0], near[1])
