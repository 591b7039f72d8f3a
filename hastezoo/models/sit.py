"""SiT, the scalable interpolant transformer (Ma et al. 2024): DiT blocks with adaLN-Zero that predict a velocity.

One class runs both families of released weights. REPA and HASTE keep our convention (t = 0 is data, the velocity is
noise - data). The original SiT runs the other way; with `reversed_time` its weights are evaluated at 1 - t and the
output is negated, so that a caller never sees the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from hastezoo.models.layers import (
    Attention,
    FinalLayer,
    LabelEmbedder,
    Mlp,
    PatchEmbed,
    TimestepEmbedder,
    adaln,
    initialize_as_dit,
    modulate,
    run_block,
    sincos_positions,
    unpatchify,
)
from hastezoo.models.sizes import Sizes
from hastezoo.models.taps import Captured, Taps


@dataclass(frozen=True)
class SiTConfig(Sizes):
    """Everything that fixes a SiT's parameters and their meaning.

    Attributes:
        input_size: Side of the square input, or (height, width).
        patch_size: Side of a patch; divides the input.
        in_channels: Channels of the input and of the velocity.
        width, depth, heads: Of the transformer.
        num_classes: The null label is `num_classes`.
        mlp_ratio: Hidden width of the MLP over the width.
        qk_norm: LayerNorm on queries and keys, per head.
        learn_sigma: The network puts out 2C channels, of which the second half is dropped (original SiT).
        reversed_time: The weights were trained with t = 0 as noise and data - noise as velocity (original SiT).
    """

    input_size: int | tuple[int, int] = 32
    patch_size: int = 2
    in_channels: int = 4
    width: int = 1152
    depth: int = 28
    heads: int = 16
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    qk_norm: bool = False
    learn_sigma: bool = False
    reversed_time: bool = False

    def __post_init__(self) -> None:
        self.refuse_impossible("patch_size", "in_channels", "width", "depth", "heads", "num_classes")


class SiTBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads, qk_norm)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = adaln(width, 6)

    def forward(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D), condition (B, D) -> tokens, and the queries and keys (B, heads, N, d) it used.

        Handing these two back computes nothing, and unless a caller holds them they are freed as before.
        """
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        attended, queries, keys = self.attn(modulate(self.norm1(x), shift_a, scale_a))
        x = x + gate_a.unsqueeze(1) * attended
        x = x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_m, scale_m))
        return x, queries, keys


class SiT(nn.Module):
    """The velocity network `model(x, t, labels)`.

    Attributes:
        recompute: In training, keep the input of each block alone and run the block again in the backward pass: the
            same gradients with a fraction of the memory, for a second forward pass of the blocks.

    Example:
        >>> model = SiT(SiTConfig(input_size=8, in_channels=1, width=64, depth=2, heads=2, num_classes=10))
        >>> model(torch.randn(4, 1, 8, 8), torch.rand(4), torch.arange(4)).shape
        torch.Size([4, 1, 8, 8])
    """

    pos_embed: Tensor

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, config.width)
        self.t_embedder = TimestepEmbedder(config.width)
        self.y_embedder = LabelEmbedder(config.num_classes, config.width)
        self.register_buffer("pos_embed", sincos_positions(config.width, *config.grid).unsqueeze(0))
        self.blocks = nn.ModuleList(
            SiTBlock(config.width, config.heads, config.mlp_ratio, config.qk_norm) for _ in range(config.depth)
        )
        out_channels = config.in_channels * (2 if config.learn_sigma else 1)
        self.final_layer = FinalLayer(config.width, config.patch_size, out_channels)
        self.initialize()

    @property
    def null_label(self) -> int:
        """The label that means "no class"."""
        return self.config.num_classes

    def blank_condition(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Labels (B,) that mean nothing, to measure with: int64, whatever `dtype` says."""
        return torch.zeros(batch, dtype=torch.int64, device=device)

    def initialize(self) -> None:
        """DiT's, with a small table of labels."""
        initialize_as_dit(self)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)

    @overload
    def forward(self, x: Tensor, t: Tensor, condition: Tensor, taps: None = None) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, t: Tensor, condition: Tensor, taps: Taps) -> tuple[Tensor, Captured]: ...
    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor, taps: Taps | None = None
    ) -> Tensor | tuple[Tensor, Captured]:
        """Predict the velocity.

        Args:
            x: (B, C, H, W), the noisy input.
            t: (B,) in [0, 1]; 0 is data, 1 is noise.
            condition: (B,) int64 labels; `null_label` for none.
            taps: What to return beside the velocity; None computes nothing extra.

        Returns:
            The velocity (B, C, H, W), or (velocity, Captured) with taps.

        Raises:
            ValueError: If the input's shape or a tapped layer does not fit the model.
        """
        config = self.config
        if tuple(x.shape[1:]) != (config.in_channels, *config.size):
            raise ValueError(f"input (B, C, H, W) = {tuple(x.shape)} is not (B, {config.in_channels}, *{config.size})")
        if taps is not None:
            taps.check(config.depth)
        captured = Captured()
        tokens = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(1 - t if config.reversed_time else t) + self.y_embedder(condition)
        for index, block in enumerate(self.blocks):
            tokens, queries, keys = run_block(block, tokens, c, recompute=self.recompute and self.training)
            if taps is not None:
                captured.take(taps, index, tokens, queries, keys)
        velocity = unpatchify(self.final_layer(tokens, c), *config.grid, config.patch_size)
        velocity = velocity[:, : config.in_channels] if config.learn_sigma else velocity
        velocity = -velocity if config.reversed_time else velocity
        return velocity if taps is None else (velocity, captured)
