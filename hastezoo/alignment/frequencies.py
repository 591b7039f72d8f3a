"""An experiment on what a teacher can teach at which noise: its input without high frequencies."""

from __future__ import annotations

import torch
from torch import Tensor


def low_pass(images: Tensor, cutoff: float) -> Tensor:
    """Images without frequencies above `cutoff`, in a disc of the Fourier plane.

    Args:
        images: (B, C, H, W) floats; uint8 is refused.
        cutoff: Share of the highest frequency along an axis that is kept, in (0, 1].

    Returns:
        (B, C, H, W); values may leave the input's range a little, as ringing does.

    Raises:
        ValueError: If the images are not floats.
    """
    if not images.is_floating_point():
        raise ValueError(f"low_pass needs floating point images, not {images.dtype}")
    height, width = images.shape[-2:]
    rows = torch.fft.fftfreq(height, device=images.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=images.device)
    kept = (rows.square() + columns.square()).sqrt() <= 0.5 * cutoff
    spectrum = torch.fft.rfft2(images.float()) * kept
    return torch.fft.irfft2(spectrum, s=(height, width)).to(images.dtype)
