"""MMDiT in numpy, sample by sample, query by query over the joint sequence of context and image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.reference.sit import Array, gelu, linear, norm, silu, time_embedding

State = dict[str, Array]


@dataclass
class Trace:
    """The velocity (C, H, W); after each block the image's tokens (N, D), in it its queries and keys (heads, N, d)."""

    velocity: Array
    features: list[Array] = field(default_factory=list)
    queries: list[Array] = field(default_factory=list)
    keys: list[Array] = field(default_factory=list)


def place(width: int, row: float, column: float) -> Array:
    """The sine-cosine code of one patch."""
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    return np.concatenate([f(at * frequencies) for at in (column, row) for f in (np.sin, np.cos)])


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def along(have: int, want: int) -> Array:
    """(want, have): how each of the wanted places is made of those of the table; a cut, or a stretch."""
    weights = np.zeros((want, have))
    for index in range(want):
        if want <= have:
            weights[index, (have - want) // 2 + index] = 1
            continue
        centre = (index + 0.5) * have / want - 0.5
        for near in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[index, min(max(near, 0), have - 1)] += cubic(centre - near)
    return weights


def positions(width: int, table: tuple[int, int], rows: int, columns: int) -> Array:
    grid = np.array([[place(width, row, column) for column in range(table[1])] for row in range(table[0])])
    moved = np.einsum("ry,cx,yxd->rcd", along(table[0], rows), along(table[1], columns), grid)
    return moved.reshape(rows * columns, width)


def rms(x: Array, weight: Array) -> Array:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def heads_of(state: State, name: str, x: Array, config: Any) -> tuple[Array, Array, Array]:
    """Tokens of one stream -> queries, keys and values (heads, N, d)."""
    size = config.width // config.heads
    weight = state[f"{name}.qkv.weight"].reshape(3, config.heads, size, -1)
    bias = state[f"{name}.qkv.bias"].reshape(3, config.heads, 1, size)
    queries, keys, values = np.einsum("phdi,ni->phnd", weight, x) + bias
    if config.qk_norm:
        queries, keys = rms(queries, state[f"{name}.ln_q.weight"]), rms(keys, state[f"{name}.ln_k.weight"])
    return queries, keys, values


def attend(queries: Array, keys: Array, values: Array) -> Array:
    """(heads, M, d) -> (M, heads * d), one query at a time."""
    mixed = np.zeros_like(queries)
    for head in range(len(queries)):
        for index, query in enumerate(queries[head]):
            weights = np.exp([query @ key / math.sqrt(len(query)) for key in keys[head]])
            mixed[head, index] = sum(w * value for w, value in zip(weights / weights.sum(), values[head], strict=True))
    return mixed.transpose(1, 0, 2).reshape(queries.shape[1], -1)


def patches_of(x: Array, patch: int) -> Array:
    """(C, H, W) -> (N, C * patch * patch)."""
    channels, height, width = x.shape
    pieces = x.reshape(channels, height // patch, patch, width // patch, patch)
    return np.einsum("crpsq->rscpq", pieces).reshape(-1, channels * patch * patch)


def joint_block(state: State, index: int, streams: dict[str, Array], c: Array, config: Any, trace: Trace) -> None:
    """One block, in place; the context of the last is only attended to."""
    parts, names = {}, ("context_block", "x_block")
    for stream in names:
        name = f"joint_blocks.{index}.{stream}"
        chunks = 2 if stream == "context_block" and index == config.depth - 1 else 6
        parts[stream] = np.split(linear(state, f"{name}.adaLN_modulation.1", silu(c)), chunks)
    qkv = {
        stream: heads_of(
            state,
            f"joint_blocks.{index}.{stream}.attn",
            norm(streams[stream], 1e-6) * (1 + parts[stream][1]) + parts[stream][0],
            config,
        )
        for stream in names
    }
    queries, keys, values = (np.concatenate([qkv[stream][part] for stream in names], axis=1) for part in range(3))
    mixed = attend(queries, keys, values)
    length = len(streams["context_block"])
    trace.queries.append(qkv["x_block"][0])
    trace.keys.append(qkv["x_block"][1])
    for stream, rows in (("context_block", mixed[:length]), ("x_block", mixed[length:])):
        name = f"joint_blocks.{index}.{stream}"
        if len(parts[stream]) == 2:
            continue
        _, _, gate_a, shift, scale, gate_m = parts[stream]
        x = streams[stream] + gate_a * linear(state, f"{name}.attn.proj", rows)
        inner = norm(x, 1e-6) * (1 + scale) + shift
        streams[stream] = x + gate_m * linear(state, f"{name}.mlp.fc2", gelu(linear(state, f"{name}.mlp.fc1", inner)))
    trace.features.append(streams["x_block"])


def run(state: State, config: Any, x: Array, t: float, context: Array) -> Trace:
    """One sample (C, H, W) with a context (L, D)."""
    patch = config.patch_size
    rows, columns = x.shape[1] // patch, x.shape[2] // patch
    kernel = state["x_embedder.proj.weight"].reshape(config.width, -1)
    tokens = patches_of(x, patch) @ kernel.T + state["x_embedder.proj.bias"]
    table = (config.size[0] // patch, config.size[1] // patch)
    streams = {
        "context_block": linear(state, "context_embedder", context),
        "x_block": tokens + positions(config.width, table, rows, columns),
    }
    c = time_embedding(state, t)
    trace = Trace(x)
    for index in range(config.depth):
        joint_block(state, index, streams, c, config, trace)
    shift, scale = np.split(linear(state, "final_layer.adaLN_modulation.1", silu(c)), 2)
    out = linear(state, "final_layer.linear", norm(streams["x_block"], 1e-6) * (1 + scale) + shift)
    pieces = out.reshape(rows, columns, patch, patch, -1)
    trace.velocity = np.einsum("rspqc->crpsq", pieces).reshape(-1, rows * patch, columns * patch)
    return trace
