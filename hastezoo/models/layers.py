"""The parts that diffusion transformers share. Parameter names follow DiT, SiT and REPA, so their weights load."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def sincos_positions(width: int, rows: int, columns: int) -> Tensor:
    """Fixed 2-D sine-cosine positions.

    The first half of the width encodes the column, the second half the row; each half is sines, then cosines
    (DiT, `get_2d_sincos_pos_embed`).

    Args:
        width: Embedding width, a multiple of 4.
        rows: Patches per column of the image.
        columns: Patches per row of the image.

    Returns:
        (rows * columns, width) float32, computed in float64.

    Raises:
        ValueError: If the width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width that is a multiple of 4, not {width}")
    # The device is named, because a default device of "meta" would leave no values to keep.
    steps = torch.arange(width // 4, dtype=torch.float64, device="cpu")
    frequencies = 10000.0 ** (-steps / (width // 4))

    def encode(places: Tensor) -> Tensor:
        angles = torch.outer(places, frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    row = torch.arange(rows, dtype=torch.float64, device="cpu").repeat_interleave(columns)
    column = torch.arange(columns, dtype=torch.float64, device="cpu").repeat(rows)
    return torch.cat([encode(column), encode(row)], dim=1).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale tokens (B, N, D) by per-sample vectors (B, D), as adaLN does."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class PatchEmbed(nn.Module):
    """Image (B, C, H, W) -> tokens (B, N, D), row by row."""

    def __init__(self, patch_size: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """Time (B,) in [0, 1] -> (B, D): sinusoids (cosines first), then Linear, SiLU, Linear.

    The sinusoids are computed in float32 whatever the weights are, since bfloat16 cannot tell t = 0.996 from 1.
    """

    def __init__(self, width: int, frequencies: int = 256, max_period: float = 10000.0) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.frequencies = frequencies
        self.max_period = max_period

    def sinusoids(self, t: Tensor) -> Tensor:
        half = self.frequencies // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device)
        angles = t[:, None].float() * torch.exp(-math.log(self.max_period) * steps / half)
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.sinusoids(t).to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """Labels (B,) -> (B, D). The table's last row, index `num_classes`, is the null label."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 D) -> queries, keys and values, each (B, heads, N, D / heads)."""
    batch, tokens, width = qkv.shape
    queries, keys, values = qkv.view(batch, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return queries, keys, values


# Kinds of devices whose attention in bfloat16 is slower than in float32; an estimate for a GPU empties it.
SLOW_IN_BFLOAT16 = {"cpu"}


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Fused attention: queries, keys and values (B, heads, N, d) -> what they mix to, of the values' dtype.

    On a CPU it is computed in float32 at least: the backward pass of torch's kernel for bfloat16 takes several times as
    long there, which is more than bfloat16 gains in all matrix products of a step.
    """
    kind = values.device.type
    slow = kind in SLOW_IN_BFLOAT16
    if not slow or not (torch.is_autocast_enabled(kind) or values.dtype in (torch.bfloat16, torch.float16)):
        return F.scaled_dot_product_attention(queries, keys, values)
    with torch.autocast(kind, enabled=False):
        return F.scaled_dot_product_attention(queries.float(), keys.float(), values.float()).to(values.dtype)


class Attention(nn.Module):
    """Multi-head self-attention, fused; it hands back the queries and keys it used.

    QK norm is a LayerNorm over each head (affine, eps 1e-5), as in REPA.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> tokens (B, N, D), queries and keys, each (B, heads, N, d)."""
        batch, tokens, width = x.shape
        queries, keys, values = split_heads(self.qkv(x), self.heads)
        queries, keys = self.q_norm(queries), self.k_norm(keys)
        mixed = attend(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width)), queries, keys


class Mlp(nn.Module):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def adaln(width: int, chunks: int) -> nn.Sequential:
    """The condition (B, D) -> `chunks` shifts, scales and gates, concatenated."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, chunks * width))


class FinalLayer(nn.Module):
    """Tokens (B, N, D) -> patches (B, N, patch * patch * channels)."""

    def __init__(self, width: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, patch_size * patch_size * out_channels)
        self.adaLN_modulation = adaln(width, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def unpatchify(patches: Tensor, rows: int, columns: int, patch_size: int) -> Tensor:
    """(B, rows * columns, patch * patch * C) -> (B, C, rows * patch, columns * patch)."""
    batch = patches.shape[0]
    x = patches.view(batch, rows, columns, patch_size, patch_size, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * patch_size, columns * patch_size)


def run_block(block: nn.Module, *inputs: Tensor, recompute: bool) -> Any:
    """What a block puts out; with `recompute` only its inputs are kept, and it runs again in the backward pass."""
    if not (recompute and torch.is_grad_enabled()):
        return block(*inputs)
    # Blocks draw no random numbers, so that no generator's state has to be kept for the second time.
    return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)


def initialize_as_dit(model: nn.Module) -> None:
    """DiT's initialisation: Xavier for linears, zero biases, a small timestep MLP, blocks the identity (adaLN-Zero).

    Args:
        model: With the names that all families share: `x_embedder`, `t_embedder`, `adaLN_modulation`, `final_layer`.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            if "adaLN_modulation" in name or name == "final_layer.linear":
                nn.init.zeros_(module.weight)
            elif name.startswith("t_embedder"):
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    patches: Any = model.x_embedder
    # It is a linear layer in the shape of a convolution.
    nn.init.xavier_uniform_(patches.proj.weight.view(len(patches.proj.weight), -1))
    nn.init.zeros_(patches.proj.bias)


def parameter_count(model: nn.Module) -> int:
    """Number of trained parameters; fixed positions are not among them."""
    return sum(parameter.numel() for parameter in model.parameters())
