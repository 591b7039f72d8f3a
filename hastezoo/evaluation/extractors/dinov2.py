"""DINOv2's features, of which the Fréchet distance follows people's judgement better than of Inception's.

Stein et al. (NeurIPS 2023, arXiv:2306.04675) found so and fixed the network, ViT-L/14 at 224 px; Karras et al. (EDM2,
arXiv:2312.02696) report the distance as FD_DINOv2. A feature is the class token after the last norm. Images are resized
as EDM2 does it: bicubic with antialiasing, in floating point, without rounding to bytes.
"""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hastezoo import hub
from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError, nearest
from hastezoo.evaluation.extractors import POOL
from hastezoo.evaluation.extractors.networks import CHANNELS, in_equal_batches
from hastezoo.zoo.convert.containers import read_checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MODEL = "vit_large_patch14_dinov2.lvd142m"
SIZE = 224  # pixels
OFFSET = 0.1  # patches; see `resampled`


class Dinov2:
    """Extractor of `pool`, the class token.

    Args:
        network: timm's ViT for images of 224 px, without a head, on the device.
        sha256: Of the file of its weights.
        model: Its name.
        device: Where it is.
    """

    def __init__(self, network: Any, sha256: str, model: str, device: torch.device) -> None:
        import timm
        import torch

        self.name = "dinov2"
        self.identity = {
            "features": self.name,
            "model": model,
            "weights_sha256": sha256,
            "resize": f"bicubic with antialiasing to {SIZE} px",
            "positions": f"bicubic with offset {OFFSET}",
            "timm": timm.__version__,
        }
        self.channels: int | None = CHANNELS
        self.classifier: np.ndarray | None = None
        config = timm.data.resolve_model_data_config(network)
        self._mean, self._std = (
            torch.tensor(config[key], device=device).view(1, CHANNELS, 1, 1) for key in ("mean", "std")
        )
        self._network, self._device = network, device

    @classmethod
    def from_pretrained(cls, weights: Path | None = None, *, model: str = MODEL, device: str = "auto") -> Self:
        """DINOv2 with the weights that timm has on the Hub, or those of a file.

        Args:
            weights: safetensors or torch, in timm's names or DINOv2's own. None for the Hub's.
            model: timm's name of a ViT with a class token, and no registers, whose positions are resampled otherwise.
            device: Where the network runs.

        Raises:
            UserError: If there is no such device or model; or the weights are not to be had, ask for code, or are of
                another network.
        """
        from hastezoo.devices import find_device

        target = find_device(device)
        architecture = _architecture(model)
        file = _from_hub(model) if weights is None else Path(weights)
        state = dict(read_checkpoint(file).select()[0])
        if "pos_embed" in state:
            state["pos_embed"] = resampled(state["pos_embed"], architecture.patch_embed.grid_size[0])
        network = _loaded(model, state, file)
        return cls(network.to(target).eval().requires_grad_(False), recorded_sha256(file), model, target)

    def widths(self, shape: tuple[int, int, int]) -> dict[str, int]:
        return {POOL: int(self._network.num_features)}

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        return in_equal_batches(self._features, images, self._device)

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        from torch.nn import functional as F

        resized = F.interpolate(images.float(), (SIZE, SIZE), mode="bicubic", antialias=True)
        return {POOL: self._network((resized / 255 - self._mean) / self._std)}


def resampled(table: Tensor, side: int) -> Tensor:
    """A table of positions (1, 1 + G G, D) for side x side patches, as DINOv2's own code makes it.

    Its `interpolate_pos_encoding` (facebookresearch/dinov2) is bicubic without antialiasing, and scales coordinates by
    (side + 0.1) / G. timm has antialiasing and no offset, and would give other features.
    """
    import torch
    from torch.nn import functional as F

    count = table.shape[1] - 1 if table.ndim == 3 else 0
    grid = isqrt(max(count, 0))
    if grid in (0, side) or grid * grid != count:  # what is no such table, timm refuses
        return table
    scale = (side + OFFSET) / grid
    first, patches = table.float().split([1, grid * grid], 1)
    image = patches.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    image = F.interpolate(image, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([first, image.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _built(model: str, **arguments: Any) -> Any:
    import timm

    return timm.create_model(model, num_classes=0, img_size=SIZE, global_pool="token", **arguments)


def _architecture(model: str) -> Any:
    """The network on the meta device: what is not suited is refused before anything is downloaded."""
    import timm
    import torch

    if not timm.is_model(model.partition(".")[0]):
        near = nearest(model, timm.list_models("*dinov2*", pretrained=True)) or [MODEL]
        raise UserError(f"timm has no model {model!r}; nearest: {', '.join(near)}")
    try:
        with torch.device("meta"):
            network = _built(model)
    except Exception as error:  # of any of timm's models
        raise UserError(f"timm cannot build {model} for images of {SIZE} px: {_one_line(error)}") from None
    if getattr(network, "num_prefix_tokens", 0) != 1 or getattr(network, "cls_token", None) is None:
        raise UserError(f"{model} is no ViT with a class token and without registers; take {MODEL}")
    return network


def _from_hub(model: str) -> Path:
    """The file that timm would download, in the same cache."""
    import timm

    known = timm.get_pretrained_cfg(model)
    if not known or not known.hf_hub_id:
        raise UserError(f"{model} is not on the Hub; give a file of its weights")
    repo, _, revision = known.hf_hub_id.partition("@")
    try:
        return hub.fetch(hub.Place(repo, revision or None, known.hf_hub_filename or hub.DEFAULT_FILE))
    except UserError as error:
        raise type(error)(f"{error}; a file that you have can be named, with --dinov2") from None


def _loaded(model: str, state: dict[str, Tensor], path: Path) -> Any:
    """The network with these weights. timm translates DINOv2's own names, and asks nobody else for weights."""
    import torch

    # With as many classes as the file is said to have, none, timm loads strictly.
    overlay: dict[str, Any] = dict.fromkeys(("source", "file", "url", "hf_hub_id", "label_offset"))
    overlay |= {"state_dict": state, "num_classes": 0}
    try:
        with torch.random.fork_rng(devices=[]):  # initialisation draws random numbers, though weights replace them
            network = _built(model, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever a file may hold; load_state_dict says which names and shapes
        raise UserError(f"{path} does not fit {model}: {_one_line(error)}") from None
    network.pretrained_cfg.pop("state_dict")  # timm's copy of the weights
    return network


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
