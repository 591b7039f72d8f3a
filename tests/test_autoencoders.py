"""Pixels to bytes."""

from __future__ import annotations

import pytest
import torch

from hastezoo.autoencoders import Identity, create_autoencoder, to_bytes


def bytes_of(values: list[float], rounding: str) -> list[int]:
    return to_bytes(torch.tensor(values).view(-1, 1, 1, 1), rounding).flatten().tolist()  # type: ignore[arg-type]


def test_roundings_are_the_two_of_the_field() -> None:
    x = torch.linspace(-1.2, 1.2, 999, dtype=torch.float64)
    truncate = (255 * (x + 1) / 2).clamp(0, 255).floor()
    nearest = (127.5 * x + 128).clamp(0, 255).floor()
    assert bytes_of(x.tolist(), "truncate") == pytest.approx(truncate.tolist(), abs=0)
    assert bytes_of(x.tolist(), "nearest") == pytest.approx(nearest.tolist(), abs=0)


def test_every_byte_survives_the_round_trip_to_nearest() -> None:
    levels = torch.arange(256, dtype=torch.float64)
    assert bytes_of((levels / 127.5 - 1).tolist(), "nearest") == list(range(256))


def test_shape_is_batch_height_width_channels() -> None:
    x = torch.zeros(2, 3, 4, 5)
    x[1, 2, 3, 4] = 1
    out = to_bytes(x)
    assert out.shape == (2, 4, 5, 3) and out.dtype == torch.uint8 and out[1, 3, 4, 2] == 255


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="one of truncate, nearest"):
        to_bytes(torch.zeros(1, 1, 1, 1), "up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown autoencoder"):
        create_autoencoder("vae")
    assert isinstance(create_autoencoder("identity"), Identity)
