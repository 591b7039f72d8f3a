"""A ViT of DINOv2's make in timm's registry, of a few kilobytes: patches of 14, a table of 37 x 37 positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor

NAME = "vit_dot_patch14_518.tests"
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
GRID, WIDTH = 37, 16

default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "hf_hub_id": "timm/",
            "input_size": (3, 518, 518),
            "num_classes": 0,
            "mean": MEAN,
            "std": STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "vit_dot_patch14_518.elsewhere": {"url": "https://example.org/dot.pth", "num_classes": 0},
    }
)


@register_model
def vit_dot_patch14_518(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    size: dict[str, Any] = {"patch_size": 14, "embed_dim": WIDTH, "depth": 2, "num_heads": 2, "init_values": 1e-5}
    return _create_vision_transformer(
        "vit_dot_patch14_518", pretrained=pretrained, **{"img_size": 518, **size, **kwargs}
    )


def dot_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights far from where initialisation leaves them: fresh ones give nearly the same token for every image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            name: like + (0.5 if like.ndim < 2 else like[0].numel() ** -0.5) * torch.randn(like.shape)
            for name, like in timm.create_model(NAME, num_classes=0).state_dict().items()
        }


def write_dot(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in (state or dot_state()).items()}, path)
    return path
