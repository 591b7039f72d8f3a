"""What a conversion takes and gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from hastezoo.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hastezoo.models.mmdit import MMDiTConfig
    from hastezoo.models.sit import SiTConfig

SHOWN = 3  # offending keys named in an error


@dataclass(frozen=True)
class Hints:
    """What shapes alone do not tell.

    Attributes:
        format: Which family the weights are of.
        num_heads: Attention heads, where the width is not one of the published sizes.
        input_size: Side of the input, where the file has no positions.
        num_classes: Where the label table has no null row.
        ema: Whether to take a container's EMA; None takes it where there is one.
        args: Training arguments that came with the weights.
        fallback: `format`, `num_heads` and `input_size` to take where neither the file nor a hint tells, such as what a
            card says. What is taken from it is named in `Converted.assumed`.
    """

    format: str | None = None
    num_heads: int | None = None
    input_size: int | None = None
    num_classes: int | None = None
    ema: bool | None = None
    args: dict[str, Any] | None = None
    fallback: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read them from a dict; `heads` is taken for `num_heads`.

        Raises:
            UserError: If a key is not known; it names the nearest.
        """
        values = {"num_heads" if key == "heads" else key: value for key, value in values.items()}
        known = cls.__dataclass_fields__
        for key in values:
            if key not in known:
                near = nearest(key, known, 1)
                raise UserError(f"unknown hint {key!r}" + (f"; nearest: {near[0]}" if near else ""))
        return cls(**values)

    def with_args(self, args: dict[str, Any]) -> Self:
        """The same with the training arguments of the container."""
        return replace(self, args=args)

    def number(self, name: str) -> int | None:
        """A training argument that is a whole number above 0; anything else is as good as not there."""
        value = (self.args or {}).get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


@dataclass
class Converted:
    """Weights in our names and convention.

    Attributes:
        origin: The format they came from, one of `convert.FORMATS`.
        architecture: Registered name: `sit_xl_2`, or `sit` or `mmdit` for an unnamed size.
        config: Every value of the family's configuration.
        state_dict: Exactly the keys of our module.
        leftovers: What belongs to training and not to the model: the projectors, by their names in the file.
        notes: What a user should know, such as positions that are not the usual table.
        assumed: Which of the format, the heads and the input size were taken from `Hints.fallback`.
    """

    origin: str
    architecture: str
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    leftovers: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    assumed: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """The model with these weights, in evaluation mode, in our convention of time and sign."""
        import torch

        from hastezoo.models.registry import create_model

        with torch.device("meta"):
            model = create_model(self.architecture, **self.config)
        model.load_state_dict(self.state_dict, assign=True)
        return model.eval()


def split(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state without the keys under some prefixes, and those keys."""
    kept = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    return kept, {key: value for key, value in state.items() if key.startswith(prefixes)}


def expected_shapes(architecture: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every key of a model and its shape, from the module itself; no memory is used.

    Args:
        architecture: Registered name.
        config: Values of its configuration.

    Raises:
        TypeError, ValueError: If the config is none of that architecture.
    """
    import torch

    from hastezoo.models.registry import create_model

    with torch.device("meta"):
        model = create_model(architecture, **config)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def check_shapes(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Hold a state dict against the shapes it must have, in both directions.

    Raises:
        UserError: If a key is missing, is too many, or has another shape.
    """
    extra = [key for key in state if key not in expected]
    missing = [key for key in expected if key not in state]
    for what, keys in (("keys that the model does not have", extra), ("lacks keys of the model", missing)):
        if keys:
            shown = ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
            text = f"the state dict has {len(keys)} {what}" if keys is extra else f"the state dict {what} ({len(keys)})"
            raise UserError(f"{text}: {shown}")
    for key, shape in expected.items():
        if tuple(state[key].shape) != tuple(shape):
            raise UserError(f"{key} has shape {tuple(state[key].shape)}, the model needs {tuple(shape)}")


def depth_of(state: Mapping[str, Tensor], prefix: str) -> int:
    """The number of blocks named `prefix.0`, `prefix.1`, ...

    Raises:
        UserError: If one is missing between others.
    """
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    found = {int(match[1]) for key in state if (match := pattern.match(key))}
    absent = sorted(set(range(max(found, default=-1) + 1)) - found)
    if absent or not found:
        which = f"{prefix}.{absent[0]}" if absent else f"{prefix}.*"
        raise UserError(f"the state dict lacks {which}: the file is not whole, or of another format")
    return len(found)


def need(state: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that the architecture is read from.

    Raises:
        UserError: If it is missing or has another number of dimensions.
    """
    if key not in state:
        raise UserError(f"the state dict lacks {key}, from which the architecture is read")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or not all(shape):
        raise UserError(f"{key} has shape {shape}; {dimensions} dimensions are needed to read the architecture from it")
    return shape


def fit(
    state: Mapping[str, Tensor], family: str, config: SiTConfig | MMDiTConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """The state with the usual positions if it has none, every key accounted for; and notes on its own positions.

    Raises:
        UserError: If a key or a shape does not fit the config.
    """
    from hastezoo.models.layers import sincos_positions

    rows, columns = config.grid
    complete = dict(state)
    try:
        if "pos_embed" not in complete:
            complete["pos_embed"] = sincos_positions(config.width, rows, columns).unsqueeze(0)
        expected = expected_shapes(family, asdict(config))
    except ValueError as error:
        raise UserError(f"the shapes make no model: {error}") from None
    check_shapes(complete, expected)
    return complete, compare_positions(complete, config.width, rows, columns)


def input_size(state: Mapping[str, Tensor], hints: Hints, patch: int) -> int:
    """The side of the input, from the positions, a hint, the training arguments or the fallback.

    Raises:
        UserError: If none of them tells.
    """
    if "pos_embed" in state:
        return side_of(need(state, "pos_embed", 3)[1], patch)
    size = hints.input_size or _latent_side(hints) or hints.fallback.get("input_size")
    if size is None:
        raise UserError(
            "the file has no pos_embed, so its input size is unknown: give the hint input_size (32 at 256 px)"
        )
    return size


def size_is_told(state: Mapping[str, Tensor], hints: Hints) -> bool:
    """Whether `input_size` needs no fallback."""
    return "pos_embed" in state or bool(hints.input_size or _latent_side(hints))


def _latent_side(hints: Hints) -> int | None:
    """From the resolution in the training arguments; the released models are all of latents at 1/8."""
    resolution = hints.number("resolution") or hints.number("image_size")
    return resolution // 8 if resolution else None


def side_of(patches: int, patch_size: int) -> int:
    """The side of a square input from its number of patches.

    Raises:
        UserError: If it is not square.
    """
    side = round(patches**0.5)
    if side * side != patches:
        raise UserError(f"pos_embed has {patches} positions, which is no square; only square inputs can be read")
    return side * patch_size


def compare_positions(state: Mapping[str, Tensor], width: int, rows: int, columns: int) -> list[str]:
    """A note where the file's positions are not the sine-cosine table; they are kept all the same."""
    from hastezoo.models.layers import sincos_positions

    table = state["pos_embed"]
    if table.is_meta:
        return []
    difference = float((table[0].float() - sincos_positions(width, rows, columns)).abs().max())
    if difference <= 1e-3 * (1 if table.element_size() >= 4 else 10):  # half precision rounds the table
        return []
    return [f"pos_embed differs from the sine-cosine table by up to {difference:.2g}; the file's values are kept"]
