"""What extractors with a network share: images become tensors, and the numbers depend on nothing but the image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHANNELS = 3
# Images a call of the network. Libraries of convolutions and matrix products choose their algorithm by the shape, and
# another one rounds differently; so the shape is always the same, whatever batches the caller has. On two CPU cores,
# Inception is quickest with 2 or 4 images at a time.
BATCH = {"cpu": 4}
BATCH_ELSEWHERE = 64


def in_equal_batches(
    network: Callable[[Tensor], dict[str, Tensor]], images: np.ndarray, device: torch.device
) -> dict[str, np.ndarray]:
    """The features of images, in batches of one size; the last one is filled up with black.

    Args:
        network: uint8 (B, 3, H, W) on the device -> features (B, D) by name.
        images: uint8 (N, H, W, C) with N > 0. C is 3, or 1 for grey, which becomes three equal channels.
        device: Where it runs.

    Returns:
        float32 (N, D) by name.

    Raises:
        ValueError: If the array is something else.
    """
    import torch

    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, CHANNELS) or not images.size:
        raise ValueError(f"images are uint8 (N, H, W, 1 or {CHANNELS}), not {images.dtype} {images.shape}")
    size = BATCH.get(device.type, BATCH_ELSEWHERE)
    parts = []
    with exact(device):
        for start in range(0, len(images), size):
            part = images[start : start + size]
            batch = np.zeros((size, CHANNELS, *images.shape[1:3]), np.uint8)
            batch[: len(part)] = part.transpose(0, 3, 1, 2)
            found = network(torch.from_numpy(batch).to(device))
            parts.append({name: value[: len(part)].float().cpu().numpy() for name, value in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """float32 as it is: no autocast, no TF32, and the same algorithm each time. What was set before is set again."""
    import torch

    before = torch.get_float32_matmul_precision()
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), flags:
        if before != "highest":
            torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            if before != "highest":
                torch.set_float32_matmul_precision(before)
