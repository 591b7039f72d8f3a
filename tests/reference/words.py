"""A model of words in numpy, prompt by prompt: the encoder, and the MMDiT on what comes of it."""

from __future__ import annotations

from typing import Any

from tests.reference import mmdit
from tests.reference.sit import Array, attention, gelu, linear, norm


def affine(state: mmdit.State, name: str, x: Array) -> Array:
    """LayerNorm with its weight and bias."""
    return norm(x, 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def encode(state: mmdit.State, config: Any, numbers: Array) -> Array:
    """Numbers of words (L,) -> context (L, D). Every place sees every other, and what fills a prompt up is a word."""
    table = state["words.embedding_table.weight"]
    x = state["words.positions"] + [table[number] for number in numbers]
    for index in range(config.word_depth):
        name = f"words.blocks.{index}"
        x = x + attention(state, f"{name}.attn", affine(state, f"{name}.norm1", x), config.word_heads, False)
        hidden = gelu(linear(state, f"{name}.mlp.fc1", affine(state, f"{name}.norm2", x)))
        x = x + linear(state, f"{name}.mlp.fc2", hidden)
    return affine(state, "words.norm", x)


def run(state: mmdit.State, config: Any, x: Array, t: float, numbers: Array) -> mmdit.Trace:
    """One sample (C, H, W) with the numbers of its words (L,)."""
    return mmdit.run(state, config, x, t, encode(state, config, numbers))
