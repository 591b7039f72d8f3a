"""Pixels <-> what the model sees, and pixels -> bytes with a named rounding.

Pixels are floats in [-1, 1], (B, C, H, W). Bytes are uint8, (B, H, W, C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Rounding = Literal["truncate", "nearest"]


class Autoencoder(Protocol):
    """What the pipeline and the recipes need of an autoencoder."""

    def encode(self, pixels: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class Identity:
    """For models of pixels."""

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def decode(self, latents: Tensor) -> Tensor:
        return latents


def create_autoencoder(kind: str) -> Autoencoder:
    """The autoencoder a card names.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind != "identity":
        raise ValueError(f"unknown autoencoder {kind!r}: one of identity")
    return Identity()


def to_bytes(pixels: Tensor, rounding: Rounding = "truncate") -> Tensor:
    """Pixels (B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C).

    Args:
        pixels: Values beyond [-1, 1] are clamped.
        rounding: "truncate" is floor(255 (x + 1) / 2), as in REPA and HASTE; "nearest" is floor(127.5 x + 128), as in
            the original SiT. They differ by half a grey level on average.

    Raises:
        ValueError: If the rounding is unknown.
    """
    import torch

    offsets = {"truncate": 127.5, "nearest": 128.0}
    if rounding not in offsets:
        raise ValueError(f"unknown rounding {rounding!r}: one of {', '.join(offsets)}")
    scaled = (127.5 * pixels + offsets[rounding]).clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
