"""hastezoo: pretrained diffusion transformers, trained plain, with REPA and with HASTE, behind one sampler.

Names are loaded when they are first used, so `import hastezoo` costs nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hastezoo.models.registry import create_model, list_architectures
    from hastezoo.pipeline import Pipeline
    from hastezoo.zoo.card import Card

__version__ = "0.1.0"

_LAZY = {
    "Pipeline": "hastezoo.pipeline",
    "create_model": "hastezoo.models.registry",
    "list_architectures": "hastezoo.models.registry",
}
__all__ = ["Pipeline", "checkpoint_card", "create_model", "list_architectures", "list_checkpoints"]

# `recipes/` lies at the top of the repository and is the package `hastezoo.recipes`. An installed copy finds it by the
# mapping in pyproject.toml; run from a checkout that is not installed, it is found through this path.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "recipes" / "__init__.py").is_file():
    __path__.append(str(_checkout))


def list_checkpoints() -> list[str]:
    """Names of the checkpoints that `Pipeline.from_pretrained` and the CLI know."""
    from hastezoo.zoo.registry import list_cards

    return [card.name for card in list_cards()]


def checkpoint_card(name: str) -> Card:
    """The card of a checkpoint.

    Raises:
        UserError: If there is none of that name.
    """
    from hastezoo.zoo.registry import find_card

    return find_card(name)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'hastezoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
