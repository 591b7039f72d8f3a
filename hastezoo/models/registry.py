"""Architectures by name. Importing this loads no torch: a name is data until it is built."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from importlib import import_module
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
# Depth, width, heads of MMDiT by the reference's rule: width 32 x depth, heads = depth. "ti" is ours, for a CPU; its
# contexts are as wide as the papers' (CLIP ViT-L/14, 768) unless `context_width` says otherwise.
MMDIT_SIZES = {
    "ti": {"depth": 6, "width": 192, "heads": 6},
    "coco": {"depth": 24, "width": 768, "heads": 24},
}


@dataclass(frozen=True)
class Family:
    """Where the classes of a family are: a module, the model's name in it and its configuration's."""

    module: str
    model: str
    config: str

    def load(self) -> tuple[Any, Any]:
        """(class of the model, class of its configuration)."""
        module = import_module(self.module)
        return getattr(module, self.model), getattr(module, self.config)


FAMILIES = {
    "sit": Family("hastezoo.models.sit", "SiT", "SiTConfig"),
    "mmdit": Family("hastezoo.models.mmdit", "MMDiT", "MMDiTConfig"),
    "word_mmdit": Family("hastezoo.models.words", "WordMMDiT", "WordMMDiTConfig"),
}


@dataclass(frozen=True)
class Architecture:
    """A named set of configuration values.

    Attributes:
        name: Such as `sit_xl_2`.
        family: What builds it, one of `FAMILIES`.
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
ARCHITECTURES |= {
    f"mmdit_{size}": Architecture(f"mmdit_{size}", "mmdit", {**values, "patch_size": 2})
    for size, values in MMDIT_SIZES.items()
}
# For pixels, of which a patch of 2 would make four times the tokens; it has to be told its `words`.
ARCHITECTURES["word_mmdit_ti"] = Architecture("word_mmdit_ti", "word_mmdit", {**MMDIT_SIZES["ti"], "patch_size": 4})
# A model of any other size, with every value in its config.
ARCHITECTURES |= {family: Architecture(family, family) for family in FAMILIES}


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


def config_of(name: str, **overrides: Any) -> Any:
    """The whole configuration of an architecture (`SiTConfig`, `MMDiTConfig`); no model is built.

    Args:
        name: Architecture, such as `sit_xl_2`.
        **overrides: Values of the family's configuration, such as `num_classes=1000`.

    Raises:
        ValueError: If the name or a value is not known.
    """
    architecture = find_architecture(name)
    _, config = FAMILIES[architecture.family].load()
    known = config.__dataclass_fields__
    for key in overrides:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            hint = f"; nearest: {near[0]}" if near else ""
            raise ValueError(f"{name} has no setting {key!r}{hint}. It has: {', '.join(known)}")
    return config(**{**architecture.config, **overrides})


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Build a model with random weights; arguments and errors are those of `config_of`."""
    config = config_of(name, **overrides)
    model, _ = FAMILIES[find_architecture(name).family].load()
    return model(config)
