"""Architectures by name. Importing this loads no torch: a name is data until it is built."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

# Depth, width, heads of SiT; "ti" is ours, for 8x8 images on two CPU cores.
SIT_SIZES = {
    "ti": {"depth": 6, "width": 128, "heads": 4},
    "s": {"depth": 12, "width": 384, "heads": 6},
    "b": {"depth": 12, "width": 768, "heads": 12},
    "l": {"depth": 24, "width": 1024, "heads": 16},
    "xl": {"depth": 28, "width": 1152, "heads": 16},
}
SIT_PATCHES = (2, 4, 8)


@dataclass(frozen=True)
class Architecture:
    """A named set of configuration values.

    Attributes:
        name: Such as `sit_xl_2`.
        family: The class that builds it: `sit`.
        config: The values the name stands for; everything else keeps the family's default.
    """

    name: str
    family: str
    config: dict[str, Any] = field(default_factory=dict)


ARCHITECTURES = {
    f"sit_{size}_{patch}": Architecture(f"sit_{size}_{patch}", "sit", {**values, "patch_size": patch})
    for size, values in SIT_SIZES.items()
    for patch in SIT_PATCHES
}
ARCHITECTURES["sit"] = Architecture("sit", "sit")  # a SiT of any other size, with every value in its config


def architecture_of(config: dict[str, Any], family: str = "sit") -> str:
    """The name that stands for a config's width, depth, heads and patch, or the family's where none does."""
    for architecture in ARCHITECTURES.values():
        values = architecture.config
        if architecture.family == family and values and all(config.get(key) == value for key, value in values.items()):
            return architecture.name
    return family


def list_architectures() -> list[str]:
    """Names that `create_model` builds."""
    return list(ARCHITECTURES)


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ValueError: If there is none; the message names the nearest.
    """
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, n=3, cutoff=0.4) or list_architectures()
        raise ValueError(f"unknown architecture {name!r}; near it: {', '.join(near)}")
    return ARCHITECTURES[name]


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Build a model with random weights.

    Args:
        name: Architecture, such as `sit_xl_2`.
        **overrides: Values of the family's configuration (`SiTConfig`), such as `num_classes=1000`.

    Raises:
        ValueError: If the name or a value is not known.
    """
    from hastezoo.models.sit import SiT, SiTConfig

    architecture = find_architecture(name)
    known = SiTConfig.__dataclass_fields__
    for key in overrides:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; nearest: {near[0]}" if near else ""
            raise ValueError(f"{name} has no setting {key!r}{hint}. It has: {', '.join(known)}")
    return SiT(SiTConfig(**{**architecture.config, **overrides}))
