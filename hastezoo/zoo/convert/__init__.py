"""Foreign checkpoints -> our models. One pure function per format; nothing is renamed within a family.

convert(state_dict) detects the format, infers the architecture from shapes, and accounts for every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError, nearest
from hastezoo.zoo.convert import mmdit, sit
from hastezoo.zoo.convert.converted import Converted, Hints, expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMATS", "Converted", "convert", "expected_shapes"]

FORMATS = {
    "sit": sit.from_sit,
    "repa": sit.from_repa,
    "haste": sit.from_haste,
    "repa-legacy": sit.from_legacy_repa,
    "mmdit": mmdit.from_mmdit,
}


def convert(state_dict: Mapping[str, Any], hints: Mapping[str, Any] | None = None) -> Converted:
    """Convert the state dict of a foreign checkpoint, or a whole container ({"ema", "model", "args", ...}).

    Args:
        state_dict: Parameter names -> tensors, or a container of such; of a container the EMA is taken.
        hints: What shapes do not tell: `num_heads`, `input_size`, `num_classes`, `format` (one of `FORMATS`),
            `args` (the training arguments as a dict), and `ema=False` to take a container's raw weights.

    Returns:
        The converted weights; `.build()` makes the model of them, in our convention of time and sign.

    Raises:
        UserError: If the format is not known or not decidable, or a key or shape does not fit.
    """
    from hastezoo.zoo.convert.containers import unwrap

    given = Hints.of(hints or {})
    checkpoint = unwrap(state_dict)
    state, _ = checkpoint.select(ema=given.ema)
    if given.args is None:
        given = given.with_args(checkpoint.args)
    name = detect(state, given)
    if name is not None:
        return FORMATS[name](state, given)
    if "format" not in given.fallback:
        raise UserError(
            "these weights may be an original SiT without learn_sigma (t = 0 is noise) or a REPA or HASTE model "
            "without its projectors (t = 0 is data), and nothing in them tells which: say format=sit, repa or haste"
        )
    converted = FORMATS[given.fallback["format"]](state, given)
    converted.assumed += ("format",)
    return converted


def detect(state: Mapping[str, Tensor], hints: Hints) -> str | None:
    """The name of the format, or None where it cannot be decided.

    The two families of SiT share their parameter names and run time in opposite directions, so what cannot be told
    apart is not guessed: plain SiT weights without `learn_sigma` and without projectors.

    Raises:
        UserError: If it is none that we know.
    """
    if hints.format is not None:
        if hints.format not in FORMATS:
            near = nearest(hints.format, FORMATS, 1) or list(FORMATS)
            raise UserError(f"unknown format {hints.format!r}; nearest: {', '.join(near)}")
        legacy = hints.format in ("repa", "haste") and sit.is_legacy(state)
        return "repa-legacy" if legacy else hints.format
    if mmdit.looks_like_it(state):
        return "mmdit"
    if not sit.looks_like_it(state):
        shown = ", ".join(list(state)[:3]) or "none"
        raise UserError(f"no known format: {len(state)} keys, the first: {shown}; known: {', '.join(FORMATS)}")
    return sit.detect(state, hints)
