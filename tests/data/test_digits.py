"""The digits and their split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hastezoo.data import digits


def test_split_is_the_one_it_says() -> None:
    target = load_digits().target
    train, test = train_test_split(range(1797), test_size=360, stratify=target, random_state=2)
    assert digits.split_indices("train").tolist() == sorted(train)
    assert digits.split_indices("test").tolist() == sorted(test)
    assert len(digits.split_indices("all")) == 1797


def test_pixels_are_in_range_and_come_back_from_bytes() -> None:
    from hastezoo.autoencoders import to_bytes

    data = digits.Digits("train")
    batch = data.__getitems__([5, 0, 1436])
    images, labels = batch.data, batch.condition
    assert batch.images is not None and torch.allclose(2 * batch.images - 1, images) and len(batch) == 3
    assert images.shape == (3, 1, 8, 8) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert data.images.min() == -1 and data.images.max() == 1 and len(data) == 1437
    assert torch.equal(data[5][0], images[0]) and data[5][1] == labels[0]
    real, _ = digits.load("train")
    back = digits.from_bytes(to_bytes(data.images, "nearest").numpy())
    assert np.abs(back - real).max() <= 16 / 255 / 2 + 1e-9


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="train, test or all"):
        digits.split_indices("dev")  # type: ignore[arg-type]
