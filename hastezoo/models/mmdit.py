"""MMDiT (Esser et al. 2024, Stable Diffusion 3), as REPA and HASTE train it on captions.

Image and context are two streams of tokens with weights of their own that meet in attention. Nothing comes of the
context after the last block, so that its side of that block has no more than what attention needs (`pre_only`).
Time and sign are ours: t = 0 is data, the velocity is noise - data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hastezoo.models.layers import (
    FinalLayer,
    Mlp,
    PatchEmbed,
    TimestepEmbedder,
    adaln,
    attend,
    initialize_as_dit,
    modulate,
    run_block,
    sincos_positions,
    split_heads,
    unpatchify,
)
from hastezoo.models.sizes import Sizes
from hastezoo.models.taps import Captured, Taps


@dataclass(frozen=True)
class MMDiTConfig(Sizes):
    """Everything that fixes an MMDiT's parameters and their meaning.

    Attributes:
        input_size: Side of the square input, or (height, width), that the table of positions is made for.
        patch_size: Side of a patch; divides the input.
        in_channels: Channels of the input and of the velocity.
        width, depth, heads: Of the transformer.
        context_width: Of a context token, 768 of CLIP ViT-L/14.
        context_length: Tokens that a context usually has, 77 of CLIP; no parameter depends on it.
        mlp_ratio: Hidden width of the MLPs over the width.
        qk_norm: RMSNorm on queries and keys, per head.
        adaln_zero: Begin as DiT does, each block the identity; otherwise as PyTorch does, which is the reference's way.
    """

    input_size: int | tuple[int, int] = 32
    patch_size: int = 2
    in_channels: int = 4
    width: int = 768
    depth: int = 24
    heads: int = 24
    context_width: int = 768
    context_length: int = 77
    mlp_ratio: float = 4.0
    qk_norm: bool = False
    adaln_zero: bool = False

    def __post_init__(self) -> None:
        counts = ("patch_size", "in_channels", "width", "depth", "heads", "context_width", "context_length")
        self.refuse_impossible(*counts)

    @property
    def tokens(self) -> int:
        """How many tokens a block sees of one sample, with a context of the usual length."""
        return super().tokens + self.context_length


class HeadNorm(nn.RMSNorm):
    """RMSNorm over each head (eps 1e-6, as in the reference), in the weights' dtype, which autocast leaves alone."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class StreamAttention(nn.Module):
    """One stream's way into attention and out of it; with `pre_only` there is no way out."""

    def __init__(self, width: int, heads: int, qk_norm: bool, pre_only: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.ln_q = HeadNorm(width // heads) if qk_norm else nn.Identity()
        self.ln_k = HeadNorm(width // heads) if qk_norm else nn.Identity()
        if not pre_only:
            self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> queries, keys and values, each (B, heads, N, d)."""
        queries, keys, values = split_heads(self.qkv(x), self.heads)
        return self.ln_q(queries), self.ln_k(keys), values


class Stream(nn.Module):
    """One side of a joint block: before attention and after it, each shifted, scaled and gated by the condition."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool, pre_only: bool) -> None:
        super().__init__()
        self.pre_only = pre_only
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = StreamAttention(width, heads, qk_norm, pre_only)
        self.adaLN_modulation = adaln(width, 2 if pre_only else 6)
        if not pre_only:
            self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
            self.mlp = Mlp(width, int(width * mlp_ratio))

    def enter(self, x: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Tokens (B, N, D), condition (B, D) -> queries, keys, values (B, heads, N, d); what `leave` modulates by."""
        shift, scale, *rest = self.adaLN_modulation(c).chunk(2 if self.pre_only else 6, dim=1)
        return self.attn(modulate(self.norm1(x), shift, scale)), tuple(rest)

    def leave(self, x: Tensor, mixed: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        """Tokens before the block and what attention made of them, each (B, N, D) -> tokens after the block."""
        gate_a, shift, scale, gate_m = modulation
        x = x + gate_a.unsqueeze(1) * self.attn.proj(mixed)
        return x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift, scale))


class JointBlock(nn.Module):
    """Two streams that attend to each other; the last block's context is only attended to."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, qk_norm: bool, last: bool) -> None:
        super().__init__()
        self.context_block = Stream(width, heads, mlp_ratio, qk_norm, pre_only=last)
        self.x_block = Stream(width, heads, mlp_ratio, qk_norm, pre_only=False)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of both streams.

        Args:
            context, x: (B, L, D) and (B, N, D).
            c: The condition (B, D).

        Returns:
            Context (as it came, in the last block), image tokens, and the image's queries and keys (B, heads, N, d):
            views of what attention used, so that they cost nothing.
        """
        length = context.shape[1]
        of_context, context_modulation = self.context_block.enter(context, c)
        of_image, image_modulation = self.x_block.enter(x, c)
        queries, keys, values = (torch.cat(pair, dim=2) for pair in zip(of_context, of_image, strict=True))
        mixed = attend(queries, keys, values).transpose(1, 2).flatten(2)
        if not self.context_block.pre_only:
            context = self.context_block.leave(context, mixed[:, :length], context_modulation)
        x = self.x_block.leave(x, mixed[:, length:], image_modulation)
        return context, x, queries[:, :, length:], keys[:, :, length:]


class MMDiT(nn.Module):
    """The velocity network `model(x, t, context)`.

    Attributes:
        recompute: As of `SiT`: blocks run again in the backward pass instead of keeping what they computed.

    Example:
        >>> model = MMDiT(MMDiTConfig(input_size=8, width=64, depth=2, heads=2, context_width=32))
        >>> model(torch.randn(3, 4, 8, 8), torch.rand(3), torch.randn(3, 77, 32)).shape
        torch.Size([3, 4, 8, 8])
    """

    pos_embed: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        width = config.width
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, width)
        self.t_embedder = TimestepEmbedder(width)
        self.context_embedder = nn.Linear(config.context_width, width)
        self.register_buffer("pos_embed", sincos_positions(width, *config.grid).unsqueeze(0))
        self.joint_blocks = nn.ModuleList(
            JointBlock(width, config.heads, config.mlp_ratio, config.qk_norm, last=index == config.depth - 1)
            for index in range(config.depth)
        )
        self.final_layer = FinalLayer(width, config.patch_size, config.in_channels)
        if config.adaln_zero:
            initialize_as_dit(self)

    @property
    def blocks(self) -> nn.ModuleList:
        """The joint blocks, by the name that blocks have in every family."""
        return self.joint_blocks

    def blank_condition(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A context (B, L, D) of zeros that means nothing, to measure with."""
        return torch.zeros(batch, self.config.context_length, self.config.context_width, device=device, dtype=dtype)

    @overload
    def forward(self, x: Tensor, t: Tensor, context: Tensor, taps: None = None) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, t: Tensor, context: Tensor, taps: Taps) -> tuple[Tensor, Captured]: ...
    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, taps: Taps | None = None
    ) -> Tensor | tuple[Tensor, Captured]:
        """Predict the velocity.

        Args:
            x: (B, C, H, W), the noisy input; of another size than the model's, see `positions`.
            t: (B,) in [0, 1]; 0 is data, 1 is noise.
            context: (B, L, D), L at least 1, of any floating dtype; it is cast to that of the weights.
            taps: What to return beside the velocity; None computes nothing extra. Features, queries and keys are those
                of image tokens.

        Returns:
            The velocity (B, C, H, W), or (velocity, Captured) with taps.

        Raises:
            ValueError: If a shape or a tapped layer does not fit the model.
        """
        rows, columns = self._check(x, context)
        if taps is not None:
            taps.check(self.config.depth)
        captured = Captured()
        tokens = self.x_embedder(x) + self.positions(rows, columns)
        states = self.context_embedder(context.to(self.context_embedder.weight.dtype))
        c = self.t_embedder(t)
        for index, block in enumerate(self.joint_blocks):
            again = self.recompute and self.training
            states, tokens, queries, keys = run_block(block, states, tokens, c, recompute=again)
            if taps is not None:
                captured.take(taps, index, tokens, queries, keys)
        velocity = unpatchify(self.final_layer(tokens, c), rows, columns, self.config.patch_size)
        return velocity if taps is None else (velocity, captured)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The table of positions (1, rows * columns, D) for an input of so many patches.

        Along an axis with fewer patches than the table it is the table's centre, as in the reference: neighbours stay
        as far apart as in training. Along one with more the table is stretched by bicubic resampling, as is usual for
        vision transformers: every position stays in the range of those that the weights have seen, and cubics follow
        the sinusoids more closely than straight lines do.
        """
        height, width = self.config.grid
        if (rows, columns) == (height, width):
            return self.pos_embed
        top, left = max(0, height - rows) // 2, max(0, width - columns) // 2
        table = self.pos_embed.unflatten(1, (height, width))[:, top : top + rows, left : left + columns]
        if rows > height or columns > width:
            maps = table.permute(0, 3, 1, 2).float()
            stretched = F.interpolate(maps, size=(rows, columns), mode="bicubic", align_corners=False)
            table = stretched.permute(0, 2, 3, 1).to(self.pos_embed.dtype)
        return table.flatten(1, 2)

    def _check(self, x: Tensor, context: Tensor) -> tuple[int, int]:
        """(rows, columns) of an input; ValueError where input and context are none of this model's."""
        config, patch = self.config, self.config.patch_size
        if x.ndim != 4 or x.shape[1] != config.in_channels or any(side < 1 or side % patch for side in x.shape[2:]):
            raise ValueError(
                f"input (B, C, H, W) = {tuple(x.shape)} is not (B, {config.in_channels}, H, W) with H and W multiples "
                f"of patch_size {patch}"
            )
        wanted = (x.shape[0], config.context_width)
        if context.ndim != 3 or (context.shape[0], context.shape[2]) != wanted or context.shape[1] < 1:
            raise ValueError(
                f"context (B, L, D) = {tuple(context.shape)} is not ({wanted[0]}, L, {wanted[1]}) with L at least 1, "
                f"for an input of {tuple(x.shape)}"
            )
        return x.shape[2] // patch, x.shape[3] // patch
