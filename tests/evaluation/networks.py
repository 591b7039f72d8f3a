"""Inception with random weights, in the file in which the real one comes, and images to look at with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hastezoo.evaluation.extractors.inception import COUNTERS, bare_network


def random_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Mosaics of 4 x 4 and of 32 x 32 colours under noise: uint8 (count, size, size, 3)."""
    random = np.random.default_rng(seed)
    coarse, fine, noise = (random.integers(0, 256, (count, side, side, 3)) for side in (4, 32, size))
    coarse, fine = (part.repeat(size // part.shape[1], 1).repeat(size // part.shape[1], 2) for part in (coarse, fine))
    return ((3 * coarse + 2 * fine + noise) // 6).astype(np.uint8)


def inception_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights of torch-fidelity's Inception whose features differ from image to image.

    Batch norms have the statistics of a few images, so that nothing vanishes or saturates on the way; random weights
    with random statistics would see nearly the same in every image. As in the file of 2015-12-05, which was converted
    from TensorFlow, there are no counters.
    """
    random = torch.Generator().manual_seed(seed)
    network = bare_network()
    state = {name: torch.zeros(like.shape, dtype=like.dtype) for name, like in network.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith(("conv.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias")):
            noise = torch.randn(tensor.shape, generator=random)
            scale = (2 / tensor[0].numel()) ** 0.5 if name.endswith("conv.weight") else 0.2
            state[name] = float(name.endswith("bn.weight")) + scale * noise
    network.load_state_dict(state, assign=True)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain mean over what comes
    with torch.no_grad():
        network.train()(torch.from_numpy(random_images(8, 256, seed)).permute(0, 3, 1, 2).contiguous())
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTERS)}


def write_inception(path: Path, state: dict[str, Tensor]) -> Path:
    """A file like torch-fidelity's: a bare dictionary, in torch's old format."""
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def hollow_inception() -> dict[str, Tensor]:
    """Zeros of all the right shapes, which take next to no room in a file."""
    return {
        name: torch.zeros(()).expand(like.shape)
        for name, like in bare_network().state_dict().items()
        if not name.endswith(COUNTERS)
    }
