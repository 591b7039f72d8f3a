"""CLIP's states of prompts, against the transformer of its paper redone in float64 from the files' weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hastezoo.conditioning import clip
from hastezoo.conditioning.clip import ClipText
from hastezoo.conditioning.text import StoredText
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from tests.clip import END, START, byte_symbols

PROMPTS = ("a cat", "the red bus", "", "dogs")


@pytest.fixture
def calls(encoder: ClipText) -> Iterator[list[int]]:
    """How many prompts each call of the network has seen, from an empty memory on."""
    seen: list[int] = []
    encoder._remembered.clear()
    hook = encoder.network.register_forward_pre_hook(
        lambda _, args, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    yield seen
    hook.remove()
    encoder._remembered.clear()


def ids_of(folder: Path, *tokens: str, length: int = 77) -> list[int]:
    """The numbers of tokens between start and end, padded with the end."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    found = [vocabulary[one] for one in (START, *tokens, END)]
    return found + [vocabulary[END]] * (length - len(found))


def bytes_of(word: str) -> list[str]:
    """A word that no merge joins, as tokens."""
    symbols = [byte_symbols()[byte] for byte in word.encode()]
    return [*symbols[:-1], f"{symbols[-1]}</w>"]


def plain_states(folder: Path, ids: list[int], heads: int) -> Tensor:
    """(L, D) float64: a pre-norm transformer with causal attention, quick GELU and a last norm."""
    stored = load_file(folder / "model.safetensors")
    weights = {name.removeprefix("text_model."): value.double() for name, value in stored.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(x: Tensor, name: str) -> Tensor:
        q, k, v = (linear(x, f"{name}.{one}_proj").unflatten(-1, (heads, -1)).transpose(0, 1) for one in "qkv")
        logits = q @ k.mT / q.shape[-1] ** 0.5
        later = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        return linear(
            (logits.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(0, 1).flatten(1), f"{name}.out_proj"
        )

    x = weights["embeddings.token_embedding.weight"][ids] + weights["embeddings.position_embedding.weight"][: len(ids)]
    layer = 0
    while f"encoder.layers.{layer}.layer_norm1.weight" in weights:
        name = f"encoder.layers.{layer}"
        x = x + attention(norm(x, f"{name}.layer_norm1"), f"{name}.self_attn")
        inner = linear(norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        x = x + linear(inner * torch.sigmoid(1.702 * inner), f"{name}.mlp.fc2")
        layer += 1
    assert layer > 1
    return norm(x, "final_layer_norm")


def near(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding to float16."""
    return found.dtype == torch.float16 and torch.allclose(found.double(), expected.double(), rtol=6e-4, atol=2e-5)


@pytest.mark.parametrize(("prompt", "tokens"), [
    ("the red bus", ["the</w>", "red</w>", "bus</w>"]),
    ("The RED cat", ["the</w>", "red</w>", "cat</w>"]),
    ("", []),
    ("a cat's 12", ["a</w>", "cat</w>", "'", "s</w>", "1</w>", "2</w>"]),
    ("قطة", bytes_of("قطة")),
    ("ne\u0301", bytes_of("n\u00e9")),
    ("猫 😀", [*bytes_of("猫"), *bytes_of("😀")]),
    ("\u202ecat", [*bytes_of("\u202e"), "cat</w>"]),
    ("bus " * 75, ["bus</w>"] * 75),
    ("bus " * 70 + "the red cat of the bus", ["bus</w>"] * 70 + ["the</w>", "red</w>", "cat</w>", "of</w>", "the</w>"]),
    ("x" * 10_000, ["x"] * 75),
])  # fmt: skip
def test_states_are_those_of_the_plain_transformer(
    encoder: ClipText, tiny_clip: Path, prompt: str, tokens: list[str]
) -> None:
    """Split as CLIP does, padded with the end token to 77, cut so that the end token stays."""
    ids = ids_of(tiny_clip, *tokens)
    assert len(ids) == 77
    found = encoder.states([prompt])
    assert found.shape == (1, 77, 32) and found.device.type == "cpu"
    assert near(found[0], plain_states(tiny_clip, ids, heads=2))


def test_other_sizes_and_a_clip_with_its_image_half(whole: Path) -> None:
    states = load_file(whole / "model.safetensors")
    assert any(name.startswith("vision_model.") for name in states) and "logit_scale" in states
    found = ClipText.from_pretrained(whole, length=9)
    assert (found.length, found.width) == (9, 24)
    expected = plain_states(whole, ids_of(whole, "red</w>", "cat</w>", length=9), heads=3)
    assert near(found.states(["red cat"])[0], expected)
    long = plain_states(whole, ids_of(whole, *["cat</w>"] * 7, length=9), heads=3)
    assert near(found.states(["cat " * 8])[0], long)


def test_a_text_half_as_older_files_name_it(copy: Path, encoder: ClipText) -> None:
    """With a prefix, in float16, and with the numbers of the positions among the weights."""
    stored = load_file(copy / "model.safetensors")
    older = {f"text_model.{name.removeprefix('text_model.')}": value.half() for name, value in stored.items()}
    older["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(older, copy / "model.safetensors", {"format": "pt"})
    found = ClipText.from_pretrained(copy)
    assert next(found.network.parameters()).dtype == torch.float32
    assert near(found.states(["a cat"])[0], plain_states(copy, ids_of(copy, "a</w>", "cat</w>"), heads=2))


def test_prompts_are_cleaned_first(encoder: ClipText, calls: list[int]) -> None:
    a, b = encoder.states(["cafe\u0301  bus\n", "caf\u00e9 bus"])
    assert torch.equal(a, b) and calls == [1]
    with pytest.raises(UserError, match=r"U\+0000"):
        encoder.states(["a\x00b"])


def test_a_prompt_is_computed_once(encoder: ClipText, calls: list[int]) -> None:
    first = encoder.states(["a cat", "", "a cat"])
    assert calls == [1, 1] and torch.equal(first[0], first[2]) and not torch.equal(first[0], first[1])
    kept = first.clone()
    first.zero_()  # what is handed out is the caller's own
    assert torch.equal(encoder.states(["a cat", "", "a cat"]), kept) and calls == [1, 1]
    encoder.states(["a bus", "a cat"])
    assert calls == [1, 1, 1]


def test_the_memory_is_bounded_and_keeps_what_was_asked_for_last(
    encoder: ClipText, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip, "REMEMBERED", 3)
    prompts = ["a", "b", "c", "d", "e"]
    together = encoder.states(prompts)  # more than are kept
    assert len(calls) == 5 and list(encoder._remembered) == ["c", "d", "e"]
    encoder.states(["c"])
    encoder.states(["f"])
    assert list(encoder._remembered) == ["e", "c", "f"] and len(calls) == 6
    assert torch.equal(encoder.states(prompts), together) and len(calls) == 9


def test_calls_are_of_one_size_and_neighbours_do_not_matter(
    encoder: ClipText, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"{word} {number}" for number in range(3) for word in PROMPTS[:3]]
    alone = torch.cat([encoder.states([prompt]) for prompt in prompts])
    encoder._remembered.clear()
    calls.clear()
    monkeypatch.setattr(clip, "AT_ONCE", {})
    monkeypatch.setattr(clip, "AT_ONCE_ELSEWHERE", 4)
    together = encoder.states(prompts)
    assert calls == [4, 4, 4]
    assert torch.allclose(together.float(), alone.float(), rtol=2e-3, atol=1e-4)
    sizes = {states.untyped_storage().nbytes() for states in encoder._remembered.values()}
    assert sizes == {2 * 77 * 32}, "none keeps the memory of a whole call alive"
    encoder._remembered.clear()
    assert torch.equal(encoder.states(prompts[8:])[0], together[8]), "in a call of that size, to the last bit"


def test_no_prompts(encoder: ClipText) -> None:
    assert encoder.states([]).shape == (0, 77, 32)


def test_states_serve_inside_and_outside_of_inference_mode(encoder: ClipText, calls: list[int]) -> None:
    with torch.inference_mode():
        encoder.states(["a cat"])
    states = encoder.states(["a cat"]).float()
    weight = torch.ones(32, requires_grad=True)
    (states * weight).sum().backward()
    assert weight.grad is not None and torch.allclose(weight.grad, states.sum((0, 1)))


def test_what_is_said_of_a_long_prompt(encoder: ClipText) -> None:
    assert encoder.notes("cat " * 75) == []
    assert encoder.notes("cat " * 76) == ['the prompt has 76 tokens and 75 are read: up to "cat cat cat cat cat"']
    said = "bus " * 70 + "the red cat of the bus beside a house"
    assert encoder.notes(said)[0].endswith('and 75 are read: up to "the red cat of the"')
    assert encoder.notes("x" * 10_000) == [f'the prompt has 10,000 tokens and 75 are read: up to "{"x" * 60}"']
    count, arabic = len("قطة".encode()), encoder.notes("قطة " * 40)
    assert len(arabic) == 2 and arabic[1].startswith(f"the prompt has {40 * count} tokens and 75 are read")
    assert encoder.notes("") == StoredText({}, length=1, width=1, source="", sha256="").notes("") != []


def test_long_prompts_are_read_in_silence(encoder: ClipText, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No progress bar, no report of the unused image half, no warning of the tokenizer; settings are as they were."""
    from transformers.utils import logging as theirs

    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    before = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_info()
    theirs.enable_progress_bar()
    logging.getLogger("transformers").addHandler(handler)
    try:
        ClipText.from_pretrained(whole).notes("bus " * 200)
        assert theirs.get_verbosity() == logging.INFO and theirs.is_progress_bar_enabled()
    finally:
        logging.getLogger("transformers").removeHandler(handler)
        theirs.set_verbosity(before[0])
        if not before[1]:
            theirs.disable_progress_bar()
    assert [record.getMessage() for record in records] == [] and capsys.readouterr() == ("", "")


def test_where_it_is_from(encoder: ClipText, tiny_clip: Path) -> None:
    assert (encoder.source, encoder.revision) == (str(tiny_clip), "")
    assert encoder.sha256 == sha256_of(tiny_clip / "model.safetensors")
    assert (encoder.length, encoder.width) == (77, 32)


def test_more_tokens_than_it_has_positions_for(tiny_clip: Path) -> None:
    with pytest.raises(UserError, match=f"the text encoder {tiny_clip} reads 77 tokens, fewer than the 78 asked for"):
        ClipText.from_pretrained(tiny_clip, length=78)


@pytest.mark.gpu
def test_on_cuda_it_computes_in_float16(tiny_clip: Path, encoder: ClipText) -> None:
    found = ClipText.from_pretrained(tiny_clip, device="cuda")
    assert next(found.network.parameters()).dtype == torch.float16
    states = found.states(PROMPTS)
    assert states.device.type == "cpu" and states.dtype == torch.float16
    assert (states.float() - encoder.states(PROMPTS).float()).abs().max() < 0.05
    found._remembered.clear()
    assert torch.equal(found.states([PROMPTS[1]])[0], states[1])
