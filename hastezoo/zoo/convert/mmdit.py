"""The text-to-image model of REPA and HASTE (SD3's joint blocks): which keys a file must have, and their shapes.

The names are kept. The last block's context side is `pre_only`: it has qkv and two adaLN chunks, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.zoo.convert.converted import (
    Converted,
    Hints,
    check_shapes,
    compare_positions,
    depth_of,
    need,
    side_of,
    split,
)

if TYPE_CHECKING:
    from torch import Tensor

FREQUENCIES = 256  # sinusoids of the timestep
HEAD = 32  # the reference's head size: width 32 x depth, heads = depth
COCO = {"width": 768, "depth": 24, "heads": 24, "patch_size": 2}


def looks_like_it(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of an MMDiT."""
    return any(key.startswith("joint_blocks.") for key in state)


def from_mmdit(state: Mapping[str, Tensor], hints: Hints) -> Converted:
    """MMDiT of REPA and HASTE: the projectors become leftovers."""
    kept, projectors = split(state, ("projectors.",))
    config = _config(kept, hints)
    check_shapes(kept, expected_shapes(config))
    notes = compare_positions(kept, config["width"], config["input_size"] // config["patch_size"])
    architecture = "mmdit_coco" if all(config[key] == value for key, value in COCO.items()) else "mmdit"
    return Converted("mmdit", architecture, config, kept, projectors, notes)


def _config(state: Mapping[str, Tensor], hints: Hints) -> dict[str, Any]:
    width, channels, patch, _ = need(state, "x_embedder.proj.weight", 4)
    _, context_width = need(state, "context_embedder.weight", 2)
    hidden, _ = need(state, "joint_blocks.0.x_block.mlp.fc1.weight", 2)
    positions = need(state, "pos_embed", 3)[1]
    norm = "joint_blocks.0.x_block.attn.ln_q.weight"
    if norm.replace("weight", "bias") in state:
        raise UserError("this MMDiT normalises queries and keys by LayerNorm; only the RMS form is known")
    qk_norm = norm in state
    head = need(state, norm, 1)[0] if qk_norm else (width // hints.num_heads if hints.num_heads else HEAD)
    if width % head:
        raise UserError(f"width {width} is not a multiple of the head size {head}: give the hint num_heads")
    return {
        "input_size": side_of(positions, patch),
        "patch_size": patch,
        "in_channels": channels,
        "width": width,
        "depth": depth_of(state, "joint_blocks"),
        "heads": width // head,
        "context_width": context_width,
        "mlp_ratio": hidden / width,
        "qk_norm": qk_norm,
    }


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every key of an MMDiT and its shape."""
    width, patch, channels = config["width"], config["patch_size"], config["in_channels"]
    grid = config["input_size"] // patch
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, grid * grid, width),
        "x_embedder.proj.weight": (width, channels, patch, patch),
        "x_embedder.proj.bias": (width,),
        **_linear("t_embedder.mlp.0", FREQUENCIES, width),
        **_linear("t_embedder.mlp.2", width, width),
        **_linear("context_embedder", config["context_width"], width),
        **_linear("final_layer.linear", width, patch * patch * channels),
        **_linear("final_layer.adaLN_modulation.1", width, 2 * width),
    }
    for index in range(config["depth"]):
        shapes |= _stream(f"joint_blocks.{index}.x_block", config, pre_only=False)
        shapes |= _stream(f"joint_blocks.{index}.context_block", config, pre_only=index == config["depth"] - 1)
    return shapes


def _stream(prefix: str, config: Mapping[str, Any], *, pre_only: bool) -> dict[str, tuple[int, ...]]:
    """One side of a joint block."""
    width, hidden = config["width"], int(config["width"] * config["mlp_ratio"])
    shapes = {
        **_linear(f"{prefix}.adaLN_modulation.1", width, (2 if pre_only else 6) * width),
        **_linear(f"{prefix}.attn.qkv", width, 3 * width),
    }
    if config["qk_norm"]:
        head = width // config["heads"]
        shapes |= {f"{prefix}.attn.ln_q.weight": (head,), f"{prefix}.attn.ln_k.weight": (head,)}
    if not pre_only:
        shapes |= _linear(f"{prefix}.attn.proj", width, width)
        shapes |= _linear(f"{prefix}.mlp.fc1", width, hidden) | _linear(f"{prefix}.mlp.fc2", hidden, width)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
