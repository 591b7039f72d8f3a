"""The MMDiT that reads words by itself, against a numpy re-derivation; what it reads, learns and refuses."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.models.layers import parameter_count
from hastezoo.models.mmdit import MMDiT
from hastezoo.models.registry import architecture_of, config_of, create_model
from hastezoo.models.taps import Taps
from hastezoo.models.words import WordMMDiT, WordMMDiTConfig
from hastezoo.zoo.registry import find_card
from tests.reference import words as reference

NAMES = ("red", "blue", "apple", "bus", "cat", "hat", "two")
TINY = WordMMDiTConfig(
    input_size=8, in_channels=3, width=24, depth=2, heads=3, context_width=12, context_length=5, words=NAMES,
    word_heads=3,
)  # fmt: skip
NUMBERS = torch.tensor([[3, 1, 7, 0, 0], [2, 2, 0, 5, 4]])  # never 6


def randomised(config: WordMMDiTConfig, seed: int = 0) -> WordMMDiT:
    """A model in float64 with every parameter random."""
    model = WordMMDiT(config).double()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64) * 0.3)
    return model


def inputs(config: WordMMDiTConfig = TINY, batch: int = 2) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, *config.size, generator=source, dtype=torch.float64)
    # The timestep's sinusoids are float32 by design, so times that float32 holds exactly are used.
    return x, torch.rand(batch, generator=source).double()


def distances(prompts: list[list[int]], wanted: list[int]) -> list[float]:
    """How far the velocities of some prompts are from that of one, on the same noise and at the same time."""
    model, (x, t) = randomised(TINY), inputs(batch=1)
    with torch.no_grad():
        other = model(x, t, torch.tensor([wanted]))
        return [float((model(x, t, torch.tensor([prompt])) - other).abs().max()) for prompt in prompts]


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, word_depth=2),
        replace(TINY, word_depth=2, word_heads=1, qk_norm=True),
        replace(TINY, word_heads=4, depth=1, patch_size=4),
        replace(TINY, input_size=(4, 12), in_channels=1, mlp_ratio=2.0),
    ],
    ids=["one block", "two blocks", "two blocks and qk_norm", "four heads", "oblong"],
)
def test_equals_the_numpy_derivation(config: WordMMDiTConfig) -> None:
    model, (x, t) = randomised(config), inputs(config)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    layers = tuple(range(config.depth))
    for sample in range(len(x)):
        wanted = reference.run(state, config, x[sample].numpy(), float(t[sample]), NUMBERS[sample].numpy())
        for layer in layers:
            with torch.no_grad():
                velocity, captured = model(x, t, NUMBERS, Taps(layer + 1, layers))
                assert torch.equal(model(x, t, NUMBERS), velocity), "taps change nothing"
            pairs = [(velocity, wanted.velocity), (captured.features, wanted.features[layer])]
            pairs += [(captured.queries[layer], wanted.queries[layer]), (captured.keys[layer], wanted.keys[layer])]
            for got, expected in pairs:
                # Positions and the timestep's sinusoids are float32 in the model, by design.
                assert got is not None and got[sample].shape == expected.shape
                assert (got[sample] - torch.from_numpy(expected)).abs().max() < 2e-6 * abs(expected).max()


@pytest.mark.parametrize("depth", [1, 2])
def test_the_encoder_alone_equals_the_numpy_derivation(depth: int) -> None:
    config = replace(TINY, word_depth=depth)
    model = randomised(config)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        context = model.words(NUMBERS)
    assert context.shape == (2, 5, 12)
    for sample in range(2):
        wanted = torch.from_numpy(reference.encode(state, config, NUMBERS[sample].numpy()))
        assert (context[sample] - wanted).abs().max() < 1e-12


def test_it_is_an_mmdit_on_the_context_that_its_encoder_makes() -> None:
    """With the MMDiT's names of parameters, and the encoder's under `words.`."""
    model, (x, t) = randomised(TINY), inputs()
    shared = {key: value for key, value in vars(TINY).items() if not key.startswith("word")}
    plain = create_model("mmdit", **shared).double()
    rest = {name: value for name, value in model.state_dict().items() if not name.startswith("words.")}
    plain.load_state_dict(rest)
    assert type(plain) is MMDiT and len(rest) < len(model.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(x, t, model.words(NUMBERS)), model(x, t, NUMBERS))


def test_every_word_counts_wherever_it_stands() -> None:
    wanted = [3, 1, 7, 2, 4]
    others = [[6 if place == index else number for place, number in enumerate(wanted)] for index in range(5)]
    assert min(distances(others, wanted)) > 1e-4


def test_the_order_of_words_and_the_place_of_what_fills_up_matter() -> None:
    wanted = [3, 1, 0, 0, 0]
    others = [[1, 3, 0, 0, 0], [0, 3, 1, 0, 0], [3, 0, 1, 0, 0], [0, 0, 0, 3, 1], [3, 1, 1, 0, 0], [3, 0, 0, 0, 0]]
    assert min(distances(others, wanted)) > 1e-4
    assert distances([wanted], wanted) == [0]


def test_an_earlier_word_sees_a_later_one() -> None:
    """The encoder looks in both directions: a change of the last word reaches the first place of the context."""
    model = randomised(TINY)
    with torch.no_grad():
        one, other = model.words(torch.tensor([[3, 1, 7, 2, 4], [3, 1, 7, 2, 5]]))
    assert (one - other).abs().amax(1).min() > 1e-3


def test_a_prompt_is_read_alike_alone_and_in_a_batch() -> None:
    model, (x, t) = randomised(TINY), inputs()
    with torch.no_grad():
        together = model(x, t, NUMBERS)
        for index in range(2):
            part = slice(index, index + 1)
            assert (model(x[part], t[part], NUMBERS[part]) - together[part]).abs().max() < 1e-12


def test_gradients_reach_the_words_that_are_read_and_no_others() -> None:
    model, (x, t) = randomised(TINY), inputs()
    model(x, t, NUMBERS).square().mean().backward()
    gradient = model.words.embedding_table.weight.grad
    assert gradient is not None and gradient.shape == (len(NAMES) + 1, 12)
    assert gradient.any(1).tolist() == [True, True, True, True, True, True, False, True]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    places = model.words.positions.grad
    assert places is not None and places.any(1).all()


def test_recomputation_gives_the_same_gradients() -> None:
    plain, (x, t) = randomised(TINY), inputs()
    again = copy.deepcopy(plain)
    again.recompute = True
    for model in (plain, again):
        model(x, t, NUMBERS).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name  # type: ignore[arg-type]


def test_bfloat16_runs_and_is_near() -> None:
    model = randomised(TINY).float()
    x, t = (value.float() for value in inputs())
    with torch.no_grad():
        wanted = model(x, t, NUMBERS)
        with torch.autocast("cpu", torch.bfloat16):
            cast = model(x, t, NUMBERS)
        whole = model.bfloat16()(x.bfloat16(), t, NUMBERS)
    assert whole.dtype == torch.bfloat16
    for got in (cast, whole):
        assert 0 < (got.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.parametrize("adaln_zero", [False, True])
def test_the_encoder_begins_small_and_open_whatever_the_rest_begins_with(adaln_zero: bool) -> None:
    torch.manual_seed(0)
    words = tuple(f"word{number}" for number in range(2000))
    model: Any = create_model("word_mmdit_ti", words=words, input_size=8, adaln_zero=adaln_zero)
    encoder = model.words.requires_grad_(False)
    assert encoder.embedding_table.weight.std() == pytest.approx(0.02, rel=0.02)
    assert encoder.positions.std() == pytest.approx(0.02, rel=0.1)
    for layer, inputs in ((encoder.blocks[0].attn.qkv, 64), (encoder.blocks[0].mlp.fc2, 256)):
        for values in (layer.weight, layer.bias):
            assert values.any() and values.abs().max() <= inputs**-0.5
    assert encoder.norm.weight.eq(1).all() and not encoder.norm.bias.any()
    assert model.joint_blocks[0].x_block.adaLN_modulation[1].weight.any() != adaln_zero


def test_the_blank_condition_is_that_of_empty_prompts() -> None:
    model = WordMMDiT(TINY)
    for dtype in (None, torch.bfloat16):
        blank = model.blank_condition(3, dtype=dtype)
        assert blank.dtype == torch.int64 and blank.shape == (3, 5) and not blank.any()
    assert model.blank_condition(1, device=torch.device("meta")).is_meta
    assert model(torch.zeros(3, 3, 8, 8), torch.zeros(3), blank).shape == (3, 3, 8, 8)
    assert model.blocks is model.joint_blocks and TINY.tokens == 16 + 5


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (torch.zeros(2, 4, dtype=torch.int64), r"\(B, L\) = \(2, 5\) in int64, not \(2, 4\) in torch.int64"),
        (torch.zeros(2, 6, dtype=torch.int64), r"not \(2, 6\) in"),
        (torch.zeros(3, 5, dtype=torch.int64), r"\(B, L\) = \(2, 5\) in int64, not \(3, 5\) in"),
        (torch.zeros(5, dtype=torch.int64), r"not \(5,\) in"),
        (torch.zeros(2, 5, 12, dtype=torch.int64), r"not \(2, 5, 12\) in"),
        (torch.zeros(2, 5), r"not \(2, 5\) in torch.float32"),
        (torch.zeros(2, 5, dtype=torch.int32), r"not \(2, 5\) in torch.int32"),
        (torch.zeros(2, 5, dtype=torch.bool), r"not \(2, 5\) in torch.bool"),
    ],
    ids=["short", "long", "another batch", "one prompt", "states", "floats", "int32", "bool"],
)
def test_what_is_no_numbers_of_words_is_refused_in_one_line(numbers: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        WordMMDiT(TINY)(torch.zeros(2, 3, 8, 8), torch.zeros(2), numbers)
    assert "\n" not in str(caught.value) and "numbers of words" in str(caught.value)


def test_inputs_and_taps_are_refused_as_by_an_mmdit() -> None:
    model = WordMMDiT(TINY)
    with pytest.raises(ValueError, match=r"\(2, 4, 8, 8\) is not \(B, 3, H, W\)"):
        model(torch.zeros(2, 4, 8, 8), torch.zeros(2), NUMBERS)
    with pytest.raises(ValueError, match="not in"):
        model(torch.zeros(2, 3, 8, 8), torch.zeros(2), NUMBERS, Taps(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": ()}, "a model of words needs words"),
        ({"words": ("red", "apple", "red")}, "the vocabulary names a word twice"),
        ({"word_heads": 5}, "context_width 12 is not a multiple of word_heads 5"),
        ({"word_heads": 0}, "word_heads must be at least 1, not 0"),
        ({"word_depth": 0}, "word_depth must be at least 1, not 0"),
        ({"context_length": 0}, "context_length must be at least 1"),
        ({"heads": 5}, "width 24 is not a multiple of heads 5"),
        ({"input_size": 7}, "not a multiple of patch_size"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_architectures_by_name() -> None:
    config = config_of("word_mmdit_ti", words=["red", "apple"], input_size=8)
    assert isinstance(config, WordMMDiTConfig)
    assert (config.width, config.depth, config.heads, config.patch_size) == (192, 6, 6, 4)
    assert (config.context_width, config.context_length, config.word_depth, config.word_heads) == (64, 16, 1, 2)
    assert architecture_of(vars(config), "word_mmdit") == "word_mmdit_ti"
    assert architecture_of(vars(TINY), "word_mmdit") == "word_mmdit"
    assert isinstance(create_model("word_mmdit", **vars(TINY)), WordMMDiT)
    for name in ("word_mmdit_ti", "word_mmdit"):
        with pytest.raises(ValueError, match="name its vocabulary"):
            create_model(name)
    with pytest.raises(ValueError, match="has no setting 'wrods'; nearest: words"):
        config_of("word_mmdit_ti", wrods=["red"])


def test_the_model_of_emoji_has_eight_million_parameters_at_most() -> None:
    words = [f"word{number}" for number in range(1650)]
    wanted = {"input_size": 32, "in_channels": 3, "qk_norm": True, "adaln_zero": True}
    with torch.device("meta"):
        model: Any = create_model("word_mmdit_ti", words=words, **wanted)
        plain = create_model("mmdit_ti", patch_size=4, context_width=64, **wanted)
    assert 7_000_000 < parameter_count(model) <= 8_000_000
    block = 4 * 64 + (64 + 1) * 3 * 64 + (64 + 1) * 64 + (64 + 1) * 256 + (256 + 1) * 64
    assert parameter_count(model.words) == 1651 * 64 + 16 * 64 + block + 2 * 64
    assert parameter_count(model) == parameter_count(plain) + parameter_count(model.words)


def test_the_published_model_has_as_many_parameters_as_its_card_says() -> None:
    card = find_card("mmdit-ti-emoji-haste")
    with torch.device("meta"):
        model = create_model(card.architecture, **card.config)
    assert parameter_count(model) == card.parameters
    assert card.text is not None and card.text.length == model.config.context_length  # type: ignore[union-attr]
