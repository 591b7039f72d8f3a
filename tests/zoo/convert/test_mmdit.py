"""Conversion of the text-to-image model: golden parity, its config from shapes, every key accounted for."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.alignment.projector import MlpProjector
from hastezoo.errors import UserError
from hastezoo.models.layers import sincos_positions
from hastezoo.models.taps import Taps
from hastezoo.zoo.convert import convert, expected_shapes
from hastezoo.zoo.convert.containers import read_checkpoint
from hastezoo.zoo.registry import find_card
from tests.text_models import SMALL, random_mmdit
from tests.zoo.foreign import mmdit_state, projectors, save_container, state_of


def run(model: Any) -> Tensor:
    """Its velocity for some input."""
    source = torch.Generator().manual_seed(3)
    x, t = torch.randn(2, 4, 4, 4, generator=source), torch.rand(2, generator=source)
    with torch.no_grad():
        return model(x, t, torch.randn(2, 7, SMALL["context_width"], generator=source))


def test_golden(golden: Any) -> None:
    """Velocity, logits between image tokens, and the features through the file's own projector."""
    reference = golden("mmdit")
    state = {key.removeprefix("state."): value for key, value in reference.items() if key.startswith("state.")}
    converted = convert(state)
    assert converted.origin == converted.architecture == "mmdit"
    assert converted.notes == [] and converted.assumed == ()
    assert set(converted.leftovers) == {key for key in state if key.startswith("projectors.")}
    assert set(converted.state_dict) == set(state) - set(converted.leftovers)
    model: Any = converted.build()
    projector = MlpProjector(64, 48, model.config.grid, (16, 16), hidden=64)
    projector.load_state_dict({key.removeprefix("projectors.0."): value for key, value in converted.leftovers.items()})
    with torch.no_grad():
        velocity, captured = model(reference["x"], reference["t"], reference["context"], Taps(2, (0, 1)))
        assert float((velocity - reference["velocity"]).abs().max()) <= 1e-5
        for index in (0, 1):
            logits = captured.queries[index] @ captured.keys[index].mT * 32**-0.5
            assert float((logits - reference[f"attention_logits.{index}"]).abs().max()) <= 1e-5
        assert float((projector(captured.features) - reference["projected.0"]).abs().max()) <= 1e-5


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"depth": 1, "width": 32, "heads": 1, "mlp_ratio": 3.0}])
def test_every_value_of_the_config_is_read_from_shapes(changes: dict[str, Any]) -> None:
    model = random_mmdit(**changes)
    converted = convert({**state_of(model), **projectors(model.config.width)})
    assert converted.config == asdict(model.config) and converted.architecture == "mmdit"
    assert len(converted.leftovers) == 6 and converted.assumed == () and converted.notes == []
    built = converted.build()
    assert not built.training
    assert torch.equal(run(built), run(model))


def test_the_papers_model_has_its_name() -> None:
    card = find_card("mmdit-coco")
    shapes = expected_shapes(card.architecture, card.config)
    with torch.device("meta"):
        converted = convert({key: torch.empty(shape) for key, shape in shapes.items()})
    assert converted.architecture == card.architecture == "mmdit_coco"
    assert {key: converted.config[key] for key in card.config} == card.config


def test_repas_container(tmp_path: Any) -> None:
    """The EMA is taken, or the raw weights; the projectors stay behind."""
    model = random_mmdit()
    state = {**state_of(model), **projectors(64)}
    args = argparse.Namespace(resolution=32, enc_type="dinov2-vit-b", encoder_depth=2, proj_coeff=0.5)
    save_container(tmp_path / "last.pt", state, args)
    loaded = torch.load(tmp_path / "last.pt", weights_only=False)
    converted = convert(loaded)
    assert all(torch.equal(value, state[key]) for key, value in converted.state_dict.items())
    assert converted.leftovers.keys() == projectors(64).keys()
    raw = convert(loaded, {"ema": False})
    assert all(torch.equal(value, state[key] + 1) for key, value in raw.state_dict.items())
    assert read_checkpoint(tmp_path / "last.pt").args["resolution"] == 32
    del state["pos_embed"]
    save_container(tmp_path / "bare.pt", state, args)
    assert convert(torch.load(tmp_path / "bare.pt", weights_only=False)).config["input_size"] == 4


def heads_of(state: dict[str, Tensor], **hints: Any) -> tuple[int, bool]:
    """How many, and whether they are only assumed."""
    converted = convert(state, hints)
    return converted.config["heads"], "num_heads" in converted.assumed


def test_where_heads_come_from() -> None:
    """QK norm's size, a hint, the arguments, the reference's rule width = 32 depth, the fallback; last, 32 wide."""
    fallback = {"num_heads": 8}
    normed = mmdit_state(qk_norm=True, heads=4)
    assert heads_of(normed, num_heads=2, fallback=fallback) == (4, False)
    by_rule, other = mmdit_state(), mmdit_state(depth=3)
    assert heads_of(by_rule, num_heads=16, args={"num_heads": 4}, fallback=fallback) == (16, False)
    assert heads_of(by_rule, args={"num_heads": 4}, fallback=fallback) == (4, False)
    assert heads_of(by_rule, fallback=fallback) == (2, False)
    assert heads_of(other, fallback=fallback) == (8, True)
    assert heads_of(other) == (2, False)
    assert convert(other).notes == ["heads are not stated: taken as 2, each 32 wide as in the reference"]
    assert convert(other, {"fallback": fallback}).notes == convert(by_rule).notes == []
    odd = mmdit_state(width=48)
    with pytest.raises(UserError, match=r"heads cannot be read from the shapes at width 48.*give the hint num_heads"):
        convert(odd)
    assert heads_of(odd, num_heads=4) == (4, False)
    with pytest.raises(UserError, match="the shapes do not make an MMDiT: width 64 is not a multiple of heads 3"):
        convert(by_rule, {"num_heads": 3})


def test_positions_are_compared_kept_and_made() -> None:
    state = mmdit_state()
    state["pos_embed"] = state["pos_embed"] + 0.5
    converted = convert(state)
    assert "differs from the sine-cosine table by up to 0.5" in converted.notes[0]
    assert torch.equal(converted.build().state_dict()["pos_embed"], state["pos_embed"])
    del state["pos_embed"]
    with pytest.raises(UserError, match="give the hint input_size"):
        convert(state)
    for hints, assumed in (({"input_size": 4}, ()), ({"fallback": {"input_size": 4}}, ("input_size",))):
        converted = convert(state, hints)
        assert torch.equal(converted.state_dict["pos_embed"][0], sincos_positions(64, 2, 2))
        assert converted.assumed == assumed
    oblong = convert(state, {"fallback": {"input_size": [4, 6]}})
    assert torch.equal(oblong.state_dict["pos_embed"][0], sincos_positions(64, 2, 3)) and oblong.notes == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "joint_blocks.1.context_block.mlp.fc1.weight",
            torch.zeros(256, 64),
            "keys that the model does not have: {key}",
        ),
        ("joint_blocks.0.x_block.attn.ln_q.bias", torch.zeros(32), "normalises queries and keys by LayerNorm"),
        ("joint_blocks.0.context_block.attn.proj.bias", None, r"lacks keys of the model \(1\): {key}"),
        ("joint_blocks.0.context_block.attn.proj.bias", torch.zeros(65), r"{key} has shape \(65,\), the model needs"),
        ("context_embedder.weight", None, "lacks {key}, from which the architecture is read"),
        ("joint_blocks.3.x_block.attn.qkv.weight", torch.zeros(192, 64), r"lacks joint_blocks\.2"),
        ("pos_embed", torch.zeros(1, 5, 64), "pos_embed has 5 positions, which is no square"),
    ],
)
def test_states_that_do_not_fit_are_refused_in_one_line(key: str, value: Tensor | None, message: str) -> None:
    state = mmdit_state()
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(UserError, match=message.format(key=key.replace(".", r"\."))) as caught:
        convert(state)
    assert "\n" not in str(caught.value)
