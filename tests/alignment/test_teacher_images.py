"""From the student's images to the pixels that reach a teacher's model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hastezoo.errors import UserError
from tests.alignment.vits import MEAN, STD, minute, random_images, seen_by


def test_images_are_normalised_then_resized_as_in_repa() -> None:
    teacher = minute()
    images = random_images(2, 3, 40, 24)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    expected = F.interpolate((images - mean) / std, (16, 16), mode="bicubic", antialias=False)
    assert torch.equal(seen_by(teacher, images), expected)


def test_images_of_the_right_size_are_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = minute()

    def interpolate(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("resized")

    monkeypatch.setattr(F, "interpolate", interpolate)
    teacher(random_images(1, 3, 16, 16))
    with pytest.raises(AssertionError, match="resized"):
        teacher(random_images(1, 3, 16, 17))


def test_bytes_floats_and_halves_are_one_image() -> None:
    teacher = minute()
    images = (255 * random_images(2, 3, 12, 12)).to(torch.uint8)
    expected = seen_by(teacher, images.float() / 255)
    assert torch.equal(seen_by(teacher, images), expected)
    assert torch.equal(seen_by(teacher, images.double() / 255), expected)
    torch.testing.assert_close(seen_by(teacher, (images.float() / 255).bfloat16()), expected, rtol=0, atol=0.02)
    assert expected.dtype == torch.float32


def test_images_are_prepared_in_float32_for_a_teacher_in_bfloat16() -> None:
    images = random_images(2, 3, 24, 24)
    found = seen_by(minute(dtype=torch.bfloat16), images)
    assert torch.equal(found, seen_by(minute(), images).bfloat16())


def test_grey_images_are_repeated() -> None:
    teacher = minute()
    grey = random_images(2, 1, 12, 12)
    assert torch.equal(seen_by(teacher, grey), seen_by(teacher, grey.expand(2, 3, 12, 12)))


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (2, 2, 16, 16), (3, 16, 16), (3, 3, 16), (1, 3, 4, 16, 16)])
def test_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"sees images \(B, 3, H, W\), not \("):
        minute()(torch.rand(shape))


def test_other_numbers_are_refused() -> None:
    with pytest.raises(UserError, match=r"uint8 in 0\.\.255 or floats in 0\.\.1, not torch\.int64"):
        minute()(torch.zeros(1, 3, 16, 16, dtype=torch.int64))


def test_mean_and_std_fit_the_channels() -> None:
    with pytest.raises(UserError, match="sees 3 channels, but 2 values"):
        minute(mean=(0.5, 0.5))
    black = torch.zeros(1, 3, 16, 16)
    torch.testing.assert_close(seen_by(minute(mean=(0.5,), std=(0.25,)), black), torch.full_like(black, -2))
