"""Small ViTs to teach: one of 3 blocks in timm's registry, and what tests ask of teachers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor, nn

from hastezoo.alignment.teachers import Teacher
from hastezoo.errors import UserError

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
NAME = "vit_minute_patch4_16.tests"

# A ViT of 3 blocks in timm's registry, so that names, tags, files and downloads are tested on a few kilobytes.
default_cfgs = generate_default_cfgs(
    {
        "vit_minute_patch4_16.tests": {
            "hf_hub_id": "timm/",
            "input_size": (3, 16, 16),
            "fixed_input_size": True,
            "num_classes": 10,
            "mean": MEAN,
            "std": STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "vit_minute_patch4_16.elsewhere": {"url": "https://example.org/minute.pth", "num_classes": 10},
    }
)


@register_model
def vit_minute_patch4_16(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    size: dict[str, Any] = {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return _create_vision_transformer("vit_minute_patch4_16", pretrained=pretrained, **{**size, **kwargs})


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """With every parameter far from where it began: fresh ones give flat attention, and norms that do nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.5 if parameter.ndim == 1 else 2 * parameter[0].numel() ** -0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def teacher_of(model: nn.Module, **settings: Any) -> Teacher:
    return Teacher(model, **{"mean": MEAN, "std": STD, "size": model.patch_embed.img_size, **settings})


def minute(**settings: Any) -> Teacher:
    """A teacher with random weights, 4x4 patches of 4x4 pixels."""
    torch.manual_seed(0)
    return teacher_of(stirred(timm.create_model(NAME)), **settings)


def random_images(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def seen_by(teacher: Teacher, images: Tensor) -> Tensor:
    """The pixels that reach the model."""
    seen = []
    hook = teacher._pass.model.patch_embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    teacher(images)
    hook.remove()
    return seen[0]


def reference(**arguments: Any) -> VisionTransformer:
    """What a file of weights is made of: 4x4 patches and a head of 10 classes."""
    torch.manual_seed(3)
    model = stirred(timm.create_model("vit_minute_patch4_16", num_classes=10, img_size=16, **arguments))
    assert isinstance(model, VisionTransformer)
    return model.eval()


def saved(path: Path, model: nn.Module) -> Path:
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def expected_features(model: Any, images: Tensor) -> Tensor:
    """For images of the model's size."""
    with torch.no_grad():
        pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        return model.forward_features(pixels)[:, model.num_prefix_tokens :]


def assert_teaches(teacher: Teacher, model: Any) -> None:
    images = random_images(2, 3, 16, 16)
    torch.testing.assert_close(teacher(images).features, expected_features(model, images), rtol=0, atol=0)


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


class Evil:
    """Pickled, it makes the file `mark` when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)
