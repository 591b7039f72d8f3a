"""Conversion: golden parity, detection, architecture from shapes, every key accounted for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.errors import UserError
from hastezoo.models.layers import sincos_positions
from hastezoo.zoo.convert import FORMATS, convert
from tests.zoo.foreign import TINY, legacy, random_sit, repa_arguments, repa_state, state_of

HEADS = {"num_heads": TINY["heads"]}


def state_in(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("state."): value for key, value in golden.items() if key.startswith("state.")}


def test_golden_repa(golden: Any) -> None:
    reference = golden("sit_repa")
    converted = convert(state_in(reference), hints={"num_heads": 4})
    assert converted.origin == "repa" and not converted.config["reversed_time"]
    assert {key.split(".")[0] for key in converted.leftovers} == {"projectors"} and len(converted.leftovers) == 6
    with torch.no_grad():
        velocity = converted.build()(reference["x"], reference["t"], reference["y"])
    assert float((velocity - reference["velocity"]).abs().max()) <= 1e-5


def test_golden_original(golden: Any) -> None:
    """Our time runs the other way and our velocity has the other sign; both are absorbed by the conversion."""
    reference = golden("sit_original")
    converted = convert(state_in(reference), hints={"num_heads": 4})
    assert converted.origin == "sit" and converted.config["learn_sigma"] and converted.config["reversed_time"]
    assert converted.leftovers == {}
    with torch.no_grad():
        velocity = converted.build()(reference["x"], 1 - reference["t"], reference["y"])
    assert float((velocity + reference["velocity"]).abs().max()) <= 1e-5


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_original_sit_with_and_without_learn_sigma(qk_norm: bool, learn_sigma: bool) -> None:
    model = random_sit(learn_sigma=learn_sigma, reversed_time=True, qk_norm=qk_norm)
    hints = {} if learn_sigma else {"format": "sit"}
    converted = convert(state_of(model), {**hints, **({} if qk_norm else HEADS)})
    x, t, y = torch.randn(2, 1, 4, 4), torch.rand(2), torch.tensor([3, 10])
    with torch.no_grad():
        assert torch.equal(converted.build()(x, t, y), model(x, t, y))
    assert converted.config["heads"] == 2 and converted.config["learn_sigma"] == learn_sigma


def test_repa_and_haste_are_told_apart_by_their_arguments() -> None:
    model = random_sit()
    state = repa_state(model)
    assert convert(state, HEADS).origin == "repa"
    container = {"ema": state, "model": state, "args": repa_arguments(attn_coeff=0.5), "steps": 1}
    converted = convert(container, HEADS)
    assert converted.origin == "haste"
    x, t, y = torch.randn(2, 1, 4, 4), torch.rand(2), torch.tensor([3, 10])
    with torch.no_grad():
        assert torch.equal(converted.build()(x, t, y), model(x, t, y))


def test_older_repa_names() -> None:
    model = random_sit()
    state = legacy(repa_state(model), early=2)
    assert any(key.startswith("decoder_blocks.0.") for key in state)
    for hints in (HEADS, {**HEADS, "format": "repa"}):
        converted = convert(state, hints)
        assert converted.origin == "repa-legacy" and converted.config["depth"] == 3
        for key, value in state_of(model).items():
            assert torch.equal(converted.state_dict[key], value)
    with pytest.raises(UserError, match="has 2 early blocks, its arguments say encoder_depth 1"):
        convert(state, {**HEADS, "args": {"encoder_depth": 1}})


def test_what_cannot_be_decided_is_refused() -> None:
    """C channels and no projectors: the two families differ in nothing but the meaning of the numbers."""
    state = state_of(random_sit())
    with pytest.raises(UserError, match="nothing in them tells which: say format=sit, repa or haste"):
        convert(state, HEADS)
    assert convert(state, {**HEADS, "format": "sit"}).config["reversed_time"]
    assert not convert(state, {**HEADS, "format": "repa"}).config["reversed_time"]
    assert convert(state, {**HEADS, "args": {"enc_type": "dinov2-vit-b"}}).origin == "repa"


def test_what_contradicts_its_format_is_refused() -> None:
    with pytest.raises(UserError, match="an original SiT has no projectors"):
        convert(repa_state(random_sit()), {**HEADS, "format": "sit"})
    with pytest.raises(UserError, match="an original SiT, not REPA or HASTE"):
        convert(state_of(random_sit(learn_sigma=True)), {**HEADS, "format": "haste"})


@pytest.mark.parametrize(
    ("name", "width", "depth", "heads"),
    [("sit_s_2", 384, 12, 6), ("sit_b_2", 768, 12, 12), ("sit_l_4", 1024, 24, 16), ("sit_xl_8", 1152, 28, 16)],
)
def test_published_sizes_are_read_from_shapes(name: str, width: int, depth: int, heads: int) -> None:
    from hastezoo.models.registry import create_model

    with torch.device("meta"):
        model = create_model(name, learn_sigma=True)
    state = {key: value for key, value in model.state_dict().items() if key != "pos_embed"}
    converted = convert(state, {"input_size": 32})
    assert converted.architecture == name
    read = converted.config
    assert (read["width"], read["depth"], read["heads"], read["num_classes"]) == (width, depth, heads, 1000)


def test_a_width_that_no_model_has_is_refused() -> None:
    """Positions need a multiple of 4; such a file gets one line, as any that does not fit."""
    state = state_of(random_sit(learn_sigma=True))
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"][:6]
    for given in (state, {key: state[key] for key in state if key != "pos_embed"}):
        with pytest.raises(UserError, match=r"the shapes make no model: .* multiple of 4, not 6"):
            convert(given, {**HEADS, "input_size": 4})


def test_unknown_width_asks_for_heads() -> None:
    state = state_of(random_sit(learn_sigma=True))
    with pytest.raises(UserError, match=r"heads cannot be read from the shapes at width 16.*num_heads"):
        convert(state)
    assert convert(state, {"heads": 4}).config["heads"] == 4
    assert convert(state, HEADS).architecture == "sit"
    with pytest.raises(UserError, match="width 16 is not a multiple of heads 3"):
        convert(state, {"heads": 3})


def test_positions_are_compared_and_kept() -> None:
    model = random_sit(learn_sigma=True)
    state = state_of(model)
    assert convert(state, HEADS).notes == []
    state["pos_embed"] = state["pos_embed"] + 0.5
    converted = convert(state, HEADS)
    assert "differs from the sine-cosine table by up to 0.5" in converted.notes[0]
    assert torch.equal(converted.build().state_dict()["pos_embed"], state["pos_embed"])
    state.pop("pos_embed")
    with pytest.raises(UserError, match="give the hint input_size"):
        convert(state, HEADS)
    converted = convert(state, {**HEADS, "input_size": 4})
    assert torch.equal(converted.state_dict["pos_embed"][0], sincos_positions(16, 2, 2))


def test_positions_in_half_precision_are_not_remarked_upon() -> None:
    state = {key: value.to(torch.bfloat16) for key, value in state_of(random_sit(learn_sigma=True)).items()}
    assert convert(state, HEADS).notes == []


@pytest.mark.parametrize(
    "change", ["extra", "extra-block", "missing", "shape", "hole", "no-label", "final", "positions"]
)
def test_state_dicts_that_do_not_fit_are_refused_in_one_line(change: str) -> None:
    state = state_of(random_sit(learn_sigma=True))
    message = {
        "extra": r"1 keys that the model does not have: blocks\.1\.attn\.gate\.weight",
        "extra-block": r"lacks keys of the model \(\d+\): blocks\.3\.attn",
        "missing": r"lacks keys of the model \(1\): blocks\.2\.mlp\.fc2\.bias",
        "shape": r"blocks\.1\.mlp\.fc2\.weight has shape \(16, 63\), the model needs \(16, 64\)",
        "hole": r"lacks blocks\.1",
        "no-label": "no known format",
        "final": r"final_layer\.linear\.weight has 9 rows",
        "positions": "pos_embed has 5 positions, which is no square",
    }[change]
    if change == "extra":
        state["blocks.1.attn.gate.weight"] = torch.zeros(1)
    elif change == "extra-block":
        state["blocks.3.attn.qkv.weight"] = torch.zeros(48, 16)
    elif change == "missing":
        del state["blocks.2.mlp.fc2.bias"]
    elif change == "shape":
        state["blocks.1.mlp.fc2.weight"] = torch.zeros(16, 63)
    elif change == "hole":
        state = {key: value for key, value in state.items() if not key.startswith("blocks.1.")}
    elif change == "no-label":
        del state["y_embedder.embedding_table.weight"]
    elif change == "final":
        state["final_layer.linear.weight"] = torch.zeros(9, 16)
    else:
        state["pos_embed"] = torch.zeros(1, 5, 16)
    with pytest.raises(UserError, match=message) as caught:
        convert(state, HEADS)
    assert "\n" not in str(caught.value)


def test_a_label_table_without_null_label_is_refused() -> None:
    state = state_of(random_sit(learn_sigma=True))  # 11 rows
    with pytest.raises(UserError, match="11 rows for 11 classes: no null label"):
        convert(state, {**HEADS, "num_classes": 11})
    with pytest.raises(UserError, match="5 classes and the null label need 6"):
        convert(state, {**HEADS, "args": {"num_classes": 5}})


@pytest.mark.parametrize("value", ["256x256", None, True, -1, 3.5, [256], {}])
def test_arguments_that_are_no_numbers_are_passed_over(value: Any) -> None:
    """They come out of somebody's pickle."""
    state = repa_state(random_sit())
    arguments = dict.fromkeys(("resolution", "image_size", "num_classes", "encoder_depth"), value)
    assert convert(state, {**HEADS, "args": arguments}).config["num_classes"] == 10
    state.pop("pos_embed")
    with pytest.raises(UserError, match="hint input_size"):
        convert(state, {**HEADS, "args": arguments})


def test_names_of_wrappers_are_dropped() -> None:
    model = random_sit(learn_sigma=True)
    wrapped = {f"module._orig_mod.{key}": value for key, value in state_of(model).items()}
    assert convert(wrapped, HEADS).state_dict.keys() == state_of(model).keys()


def test_hints_and_formats_are_checked() -> None:
    state = state_of(random_sit(learn_sigma=True))
    with pytest.raises(UserError, match="unknown hint 'num_head'; nearest: num_heads"):
        convert(state, {"num_head": 2})
    with pytest.raises(UserError, match="unknown format 'hast'; nearest: haste"):
        convert(state, {"format": "hast"})
    assert set(FORMATS) == {"sit", "repa", "haste", "repa-legacy", "mmdit"}
