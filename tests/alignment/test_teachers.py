"""Teachers by name: their size and preprocessing, and the settings that reach them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.alignment.teachers import create_teacher
from hastezoo.errors import UserError
from tests.alignment.vits import NAME, random_images, reference, saved, seen_by


@pytest.mark.parametrize(
    ("name", "size", "grid", "mean", "std"),
    [
        (
            "vit_small_patch14_dinov2.lvd142m",
            (224, 224),
            (16, 16),
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        ),
        ("vit_tiny_patch16_224.augreg_in21k", (256, 256), (16, 16), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (
            "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m",
            (224, 224),
            (14, 14),
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        ),
    ],
)
def test_size_and_preprocessing_are_the_models(
    name: str, size: tuple[int, int], grid: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Patch x student grid: 224 for /14, 256 for /16; CLIP keeps its 224."""
    teacher = create_teacher(name, pretrained=False)
    assert teacher.size == size and teacher.grid == grid
    black = seen_by(teacher, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert black.shape == (1, 3, *size)
    expected = [-m / s for m, s in zip(mean, std, strict=True)]
    torch.testing.assert_close(black.mean((0, 2, 3)), torch.tensor(expected))


def test_the_patch_of_a_hybrid_is_counted_in_pixels() -> None:
    """A ResNet's stem makes the map, of stride 4, that is cut into patches of 8x8."""
    teacher = create_teacher("vit_tiny_r_s16_p8_224", pretrained=False, grid=(2, 3), attention_layers=(0,))
    assert teacher.size == (64, 96) and teacher.grid == (2, 3)


def test_the_grid_need_not_be_square() -> None:
    teacher = create_teacher(NAME, pretrained=False, grid=(2, 5))
    assert teacher.size == (8, 20) and teacher.grid == (2, 5)
    assert teacher(random_images(1, 3, 8, 8)).features.shape == (1, 10, 16)
    with pytest.raises(UserError, match="1 or more of each, not 0x5"):
        create_teacher(NAME, pretrained=False, grid=(0, 5))


def test_making_a_teacher_draws_none_of_the_students_random_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", reference())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    teacher = create_teacher(NAME, pretrained=False)
    create_teacher(NAME, weights=path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    other = create_teacher(NAME, pretrained=False)
    torch.manual_seed(7)
    again = create_teacher(NAME, pretrained=False)
    image = random_images(1, 3, 16, 16)
    assert torch.equal(again(image).features, teacher(image).features)
    assert not torch.equal(other(image).features, teacher(image).features)


def test_on_a_cpu_it_is_not_compiled_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda what: compiled.append(what) or what)
    create_teacher(NAME, pretrained=False)
    assert not compiled
    create_teacher(NAME, pretrained=False, compile=True)
    assert len(compiled) == 1


def test_dtype_and_layers_reach_the_teacher() -> None:
    teacher = create_teacher(NAME, pretrained=False, grid=(4, 4), attention_layers=[1], dtype=torch.bfloat16)
    lesson = teacher(random_images(1, 3, 16, 16))
    assert lesson.features.dtype == lesson.queries[1].dtype == lesson.keys[1].dtype == torch.bfloat16


@pytest.mark.gpu
def test_on_cuda_it_says_the_same() -> None:
    images = random_images(2, 3, 20, 20)
    torch.manual_seed(0)
    expected = create_teacher(NAME, pretrained=False, attention_layers=(0, 2))(images)
    for compile in (False, None):
        torch.manual_seed(0)
        teacher = create_teacher(NAME, pretrained=False, attention_layers=(0, 2), device="cuda", compile=compile)
        lesson = teacher(images.cuda())
        torch.testing.assert_close(lesson.features.cpu(), expected.features, rtol=1e-3, atol=1e-3)
        for layer in (0, 2):
            torch.testing.assert_close(lesson.queries[layer].cpu(), expected.queries[layer], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(lesson.keys[layer].cpu(), expected.keys[layer], rtol=1e-3, atol=1e-3)


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        create_teacher(NAME, pretrained=False, device="gpu")
