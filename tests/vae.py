"""Autoencoders of the SD VAE's structure, 1/8 and 4 channels, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save_vae(folder: Path, widths: tuple[int, ...], **settings: Any) -> Path:
    """Write one in diffusers' format; `widths` are the channels of its four levels."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        latent_channels=4,
        **settings,
    ).save_pretrained(folder)
    return folder
