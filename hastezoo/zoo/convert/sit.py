"""SiT in the two conventions it is released in, and the older file names of REPA.

Original SiT: t = 0 is noise, the velocity is data - noise, usually 2C output channels of which the second half is
dropped (`learn_sigma`), no projectors. REPA and HASTE: t = 0 is data, noise - data, C channels, `projectors.*` beside
the model. The names of parameters are the same, so the difference becomes a flag of the config (`reversed_time`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from hastezoo.errors import UserError
from hastezoo.models.registry import SIT_SIZES, architecture_of
from hastezoo.zoo.convert.converted import Converted, Hints, depth_of, fit, input_size, need, size_is_told, split

if TYPE_CHECKING:
    from torch import Tensor

    from hastezoo.models.sit import SiTConfig

PROJECTORS = "projectors."
LATE = "decoder_blocks."
HEADS = {values["width"]: values["heads"] for values in SIT_SIZES.values()}


def looks_like_it(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a SiT, of whatever convention."""
    return {"x_embedder.proj.weight", "y_embedder.embedding_table.weight", "final_layer.linear.weight"} <= set(state)


def is_legacy(state: Mapping[str, Tensor]) -> bool:
    """Whether late blocks have REPA's older name."""
    return any(key.startswith(LATE) for key in state)


def detect(state: Mapping[str, Tensor], hints: Hints) -> str | None:
    """Which format a SiT's state dict is of, from evidence; None where there is none."""
    if is_legacy(state):
        return "repa-legacy"
    if "attn_coeff" in (hints.args or {}):
        return "haste"
    if any(key.startswith(PROJECTORS) for key in state) or {"proj_coeff", "enc_type"} & set(hints.args or {}):
        return "repa"
    return "sit" if _outputs(state) == 2 else None


def from_sit(state: Mapping[str, Tensor], hints: Hints) -> Converted:
    """The original SiT, with or without `learn_sigma`; also what diffusers-style folders of it hold."""
    if any(key.startswith(PROJECTORS) for key in state):
        raise UserError("an original SiT has no projectors, this state dict has: it is of REPA or HASTE")
    return _converted(state, {}, hints, "sit", learn_sigma=_outputs(state) == 2, reversed_time=True)


def from_repa(state: Mapping[str, Tensor], hints: Hints) -> Converted:
    """REPA: the projectors become leftovers."""
    if _outputs(state) == 2:
        raise UserError("the final layer puts out 2C channels (learn_sigma): an original SiT, not REPA or HASTE")
    kept, projectors = split(state, (PROJECTORS,))
    return _converted(kept, projectors, hints, "repa", learn_sigma=False, reversed_time=False)


def from_haste(state: Mapping[str, Tensor], hints: Hints) -> Converted:
    """HASTE: the same file as REPA's, from another training."""
    converted = from_repa(state, hints)
    converted.origin = "haste"
    return converted


def from_legacy_repa(state: Mapping[str, Tensor], hints: Hints) -> Converted:
    """REPA's older files: `decoder_blocks.i` is block i + encoder_depth."""
    early = depth_of({key: value for key, value in state.items() if key.startswith("blocks.")}, "blocks")
    stated = hints.number("encoder_depth")
    if stated is not None and stated != early:
        raise UserError(f"the file has {early} early blocks, its arguments say encoder_depth {stated}")
    pattern = re.compile(rf"{re.escape(LATE)}(\d+)\.")
    renamed = {pattern.sub(lambda found: f"blocks.{int(found[1]) + early}.", key): state[key] for key in state}
    converted = from_repa(renamed, hints)
    converted.origin = "repa-legacy"
    return converted


def _outputs(state: Mapping[str, Tensor]) -> int:
    """Output channels over input channels: 1, or 2 with learn_sigma."""
    _, channels, patch, _ = need(state, "x_embedder.proj.weight", 4)
    rows, _ = need(state, "final_layer.linear.weight", 2)
    if rows not in (patch * patch * channels, 2 * patch * patch * channels):
        raise UserError(
            f"final_layer.linear.weight has {rows} rows; {channels} channels in patches of {patch} make "
            f"{patch * patch * channels}, or twice that with learn_sigma"
        )
    return rows // (patch * patch * channels)


def _converted(
    state: dict[str, Tensor] | Mapping[str, Tensor],
    leftovers: dict[str, Tensor],
    hints: Hints,
    origin: str,
    **convention: bool,
) -> Converted:
    config = _config(state, hints, **convention)
    complete, notes = fit(state, "sit", config)
    values = asdict(config)
    return Converted(origin, architecture_of(values), values, complete, leftovers, notes, _assumed(state, hints))


def _config(state: Mapping[str, Tensor], hints: Hints, **convention: bool) -> SiTConfig:
    from hastezoo.models.sit import SiTConfig

    width, channels, patch, _ = need(state, "x_embedder.proj.weight", 4)
    labels, _ = need(state, "y_embedder.embedding_table.weight", 2)
    hidden, _ = need(state, "blocks.0.mlp.fc1.weight", 2)
    qk_norm = "blocks.0.attn.q_norm.weight" in state
    try:
        return SiTConfig(
            input_size=input_size(state, hints, patch),
            patch_size=patch,
            in_channels=channels,
            width=width,
            depth=depth_of(state, "blocks"),
            heads=_heads(state, hints, width, qk_norm),
            num_classes=_classes(hints, labels),
            mlp_ratio=hidden / width,
            qk_norm=qk_norm,
            **convention,
        )
    except ValueError as error:
        raise UserError(f"the shapes do not make a SiT: {error}") from None


def _assumed(state: Mapping[str, Tensor], hints: Hints) -> tuple[str, ...]:
    """What neither the shapes nor a hint told, so that it came from the fallback."""
    heads = hints.num_heads or HEADS.get(state["x_embedder.proj.weight"].shape[0])
    heads_seen = heads is not None or "blocks.0.attn.q_norm.weight" in state
    return (() if heads_seen else ("num_heads",)) + (() if size_is_told(state, hints) else ("input_size",))


def _heads(state: Mapping[str, Tensor], hints: Hints, width: int, qk_norm: bool) -> int:
    """From QK norm's size, a hint, or the published sizes; a head count leaves no other trace in the shapes."""
    if qk_norm:
        return width // need(state, "blocks.0.attn.q_norm.weight", 1)[0]
    heads = hints.num_heads or HEADS.get(width) or hints.fallback.get("num_heads")
    if heads is None:
        known = ", ".join(map(str, HEADS))
        raise UserError(
            f"heads cannot be read from the shapes at width {width} (known: {known}): give the hint num_heads"
        )
    return heads


def _classes(hints: Hints, rows: int) -> int:
    """The table's last row is the null label, unless the model was trained without label dropout."""
    stated = hints.num_classes or hints.number("num_classes")
    if stated is not None and stated == rows:
        raise UserError(f"the label table has {rows} rows for {stated} classes: no null label, which our SiT needs")
    if stated is not None and stated != rows - 1:
        raise UserError(f"the label table has {rows} rows; {stated} classes and the null label need {stated + 1}")
    return rows - 1
