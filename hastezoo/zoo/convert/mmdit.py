"""The text-to-image model of REPA and HASTE (SD3's joint blocks). Names, time and sign are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from hastezoo.errors import UserError
from hastezoo.models.registry import architecture_of
from hastezoo.zoo.convert.converted import Converted, Hints, depth_of, fit, input_size, need, size_is_told, split

if TYPE_CHECKING:
    from torch import Tensor

    from hastezoo.models.mmdit import MMDiTConfig

HEAD = 32  # the reference's head size: width 32 x depth, heads = depth
NORM = "joint_blocks.0.x_block.attn.ln_q"


def looks_like_it(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of an MMDiT."""
    return any(key.startswith("joint_blocks.") for key in state)


def from_mmdit(state: Mapping[str, Tensor], hints: Hints) -> Converted:
    """MMDiT of REPA and HASTE: the projectors become leftovers."""
    kept, projectors = split(state, ("projectors.",))
    config = _config(kept, hints)
    complete, notes = fit(kept, "mmdit", config)
    told = _told_heads(kept, hints) or hints.fallback.get("num_heads")
    if told is None:
        notes.append(f"heads are not stated: taken as {config.heads}, each {HEAD} wide as in the reference")
    values = asdict(config)
    return Converted(
        "mmdit", architecture_of(values, "mmdit"), values, complete, projectors, notes, _assumed(kept, hints)
    )


def _config(state: Mapping[str, Tensor], hints: Hints) -> MMDiTConfig:
    from hastezoo.models.mmdit import MMDiTConfig

    width, channels, patch, _ = need(state, "x_embedder.proj.weight", 4)
    _, context_width = need(state, "context_embedder.weight", 2)
    hidden, _ = need(state, "joint_blocks.0.x_block.mlp.fc1.weight", 2)
    if f"{NORM}.bias" in state:
        raise UserError("this MMDiT normalises queries and keys by LayerNorm; only the RMS form is known")
    try:
        return MMDiTConfig(
            input_size=input_size(state, hints, patch),
            patch_size=patch,
            in_channels=channels,
            width=width,
            depth=depth_of(state, "joint_blocks"),
            heads=_heads(state, hints, width),
            context_width=context_width,
            mlp_ratio=hidden / width,
            qk_norm=f"{NORM}.weight" in state,
        )
    except ValueError as error:
        raise UserError(f"the shapes do not make an MMDiT: {error}") from None


def _assumed(state: Mapping[str, Tensor], hints: Hints) -> tuple[str, ...]:
    """What neither the shapes nor a hint told, so that it came from the fallback."""
    heads_assumed = _told_heads(state, hints) is None and hints.fallback.get("num_heads") is not None
    return (("num_heads",) if heads_assumed else ()) + (() if size_is_told(state, hints) else ("input_size",))


def _told_heads(state: Mapping[str, Tensor], hints: Hints) -> int | None:
    """From QK norm's size, a hint, the training arguments, or a width and depth that are by the reference's rule."""
    width = need(state, "x_embedder.proj.weight", 4)[0]
    if f"{NORM}.weight" in state:
        return width // need(state, f"{NORM}.weight", 1)[0]
    depth = depth_of(state, "joint_blocks")
    return hints.num_heads or hints.number("num_heads") or (depth if width == HEAD * depth else None)


def _heads(state: Mapping[str, Tensor], hints: Hints, width: int) -> int:
    heads = _told_heads(state, hints) or hints.fallback.get("num_heads")
    if heads is not None:
        return heads
    if width % HEAD:
        raise UserError(
            f"heads cannot be read from the shapes at width {width}, no multiple of {HEAD}: give the hint num_heads"
        )
    return width // HEAD
