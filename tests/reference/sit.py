"""SiT in numpy, sample by sample and head by head."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray


def linear(state: dict[str, Array], name: str, x: Array) -> Array:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x: Array, eps: float) -> Array:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def positions(width: int, rows: int, columns: int) -> Array:
    table = np.zeros((rows * columns, width))
    quarter = width // 4
    for row in range(rows):
        for column in range(columns):
            for k in range(quarter):
                frequency = 10000 ** (-k / quarter)
                place = table[row * columns + column]
                place[k], place[quarter + k] = math.sin(column * frequency), math.cos(column * frequency)
                place[2 * quarter + k] = math.sin(row * frequency)
                place[3 * quarter + k] = math.cos(row * frequency)
    return table


def time_embedding(state: dict[str, Array], t: float) -> Array:
    angles = np.array([t * 10000 ** (-k / 128) for k in range(128)])
    sinusoids = np.concatenate([np.cos(angles), np.sin(angles)])
    return linear(state, "t_embedder.mlp.2", silu(linear(state, "t_embedder.mlp.0", sinusoids)))


def attention(state: dict[str, Array], name: str, x: Array, heads: int, qk_norm: bool) -> Array:
    width = x.shape[1]
    size = width // heads
    qkv = linear(state, f"{name}.qkv", x)
    mixed = np.zeros_like(x)
    for head in range(heads):
        q, k, v = (qkv[:, part * width + head * size : part * width + (head + 1) * size] for part in range(3))
        if qk_norm:
            q = norm(q, 1e-5) * state[f"{name}.q_norm.weight"] + state[f"{name}.q_norm.bias"]
            k = norm(k, 1e-5) * state[f"{name}.k_norm.weight"] + state[f"{name}.k_norm.bias"]
        mixed[:, head * size : (head + 1) * size] = softmax(q @ k.T / math.sqrt(size)) @ v
    return linear(state, f"{name}.proj", mixed)


def velocity(state: dict[str, Array], config: Any, x: Array, t: float, label: int) -> Array:
    """One sample (C, H, W) -> all channels that the network puts out, time and sign as in the weights."""
    patch, width = config.patch_size, config.width
    _, height, breadth = x.shape
    rows, columns = height // patch, breadth // patch
    tokens = np.zeros((rows * columns, width))
    for row in range(rows):
        for column in range(columns):
            piece = x[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            kernel = state["x_embedder.proj.weight"].reshape(width, -1)
            tokens[row * columns + column] = kernel @ piece.reshape(-1) + state["x_embedder.proj.bias"]
    tokens = tokens + positions(width, rows, columns)
    c = time_embedding(state, t) + state["y_embedder.embedding_table.weight"][label]
    for index in range(config.depth):
        name = f"blocks.{index}"
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = np.split(
            linear(state, f"{name}.adaLN_modulation.1", silu(c)), 6
        )
        inner = norm(tokens, 1e-6) * (1 + scale_a) + shift_a
        tokens = tokens + gate_a * attention(state, f"{name}.attn", inner, config.heads, config.qk_norm)
        inner = norm(tokens, 1e-6) * (1 + scale_m) + shift_m
        tokens = tokens + gate_m * linear(state, f"{name}.mlp.fc2", gelu(linear(state, f"{name}.mlp.fc1", inner)))
    shift, scale = np.split(linear(state, "final_layer.adaLN_modulation.1", silu(c)), 2)
    patches = linear(state, "final_layer.linear", norm(tokens, 1e-6) * (1 + scale) + shift)
    out = np.zeros((patches.shape[1] // patch**2, height, breadth))
    for row in range(rows):
        for column in range(columns):
            piece = patches[row * columns + column].reshape(patch, patch, -1).transpose(2, 0, 1)
            out[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = piece
    return out
