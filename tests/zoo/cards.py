"""Cards of tiny models for a user's store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import find_card
from tests.zoo.foreign import TINY


def write_card(home: Path, name: str = "tiny", *, origins: str = "", latent: bool = False, **changes: Any) -> Card:
    """A card in the user's store for `foreign.random_sit`, or with `latent` for one of 4 channels on a VAE at 1/8."""
    config = {**TINY, "patch_size": 2, **({"in_channels": 4} if latent else {}), **changes.pop("config", {})}
    fields: dict[str, Any] = {
        "name": name,
        "title": "A tiny model",
        "architecture": "sit",
        "parameters": 1,
        "method": "haste",
        "resolution": 32 if latent else 4,
        "classes": "digits",
        "protocol": "digits",
        "status": "upstream" if origins else "recipe-only",
        "licence": "MIT",
        "redistribution": "allowed",
        **changes,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
    lines += ["[config]", *(f"{key} = {_toml(value)}" for key, value in config.items())]
    if latent:
        lines += ["[autoencoder]", 'kind = "kl"', 'repo = "someone/vae"', "scale = 0.18215", "downsampling = 8"]
    folder = home / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n" + origins)
    return find_card(name)


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def origin(**fields: Any) -> str:
    """An entry of a card's origins."""
    return "\n".join(["[[origins]]", *(f"{key} = {_toml(value)}" for key, value in fields.items()), ""])
