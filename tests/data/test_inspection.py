"""A data set that was made wrongly does not pass, and the usual mistakes are named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data.images import centre_crop, decode
from hastezoo.data.inspection import RoundTrip, check_digests, errors, round_trip
from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import prepare
from hastezoo.data.prepared import Prepared
from hastezoo.errors import UserError
from tests.data.comparing import rows_of
from tests.data.making import CLASSES, SIDE, Given, crop_of, make, settings_of, write_photographs

COUNT = 12


@pytest.fixture(scope="module")
def autoencoder(tiny_vae: Path) -> LatentAutoencoder:
    """With narrow posteriors, as a trained one has, and another for each channel."""
    loaded = LatentAutoencoder.from_pretrained(tiny_vae)
    with torch.no_grad():
        loaded.vae.quant_conv.bias[4:] += torch.tensor([-3.0, -2.0, -4.0, -2.5])
    return loaded


@pytest.fixture(scope="module")
def squares() -> list[np.ndarray]:
    return [centre_crop(crop_of(CLASSES[number % 3], number, (60, 50)), SIDE) for number in range(COUNT)]


Moments = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def moments(autoencoder: LatentAutoencoder) -> Moments:
    """Of uint8 (N, H, W, 3), or of floats in [-1, 1]."""

    def encode(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels.copy())
        with torch.inference_mode():
            x = x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x.float()
            return autoencoder.moments(x.permute(0, 3, 1, 2)).numpy()

    return encode


def inspect(
    images: list[np.ndarray], stored: np.ndarray, vae: LatentAutoencoder, dest: Path, **settings: str
) -> RoundTrip:
    prepare(Given(images, list(stored)), dest, settings_of("mse", **settings))
    return round_trip(Prepared(dest), vae, 16)


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_what_is_sound_passes(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path, image_format: str
) -> None:
    """Of JPEG the latents are those of the image before it was compressed."""
    trip = inspect(squares, moments(np.stack(squares)), autoencoder, tmp_path / "set", image_format=image_format)
    assert trip.problem is None
    assert trip.images.shape == trip.decoded.shape == (COUNT, SIDE, SIDE, 3)
    assert trip.images.dtype == trip.decoded.dtype == np.uint8
    if image_format == "png":
        assert {one.tobytes() for one in trip.images} == {one.tobytes() for one in squares}
        assert 0 < trip.mean_error < 1e-3 and 0 < trip.std_error < 1e-3
    else:
        assert 1e-2 < trip.mean_error < 1
    difference = (trip.images.astype(float) - trip.decoded) ** 2
    assert trip.psnr == pytest.approx(np.mean([10 * np.log10(255**2 / one.mean()) for one in difference]))


def test_decoded_are_the_stored_means(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path
) -> None:
    trip = inspect(squares, moments(np.stack(squares)), autoencoder, tmp_path / "set")
    with torch.inference_mode():
        means = torch.from_numpy(moments(trip.images)[:, 0].astype(np.float16).astype(np.float32))
        pixels = autoencoder.vae.decode(means).sample.permute(0, 2, 3, 1).numpy()
    expected = np.clip(np.floor(127.5 * pixels + 128), 0, 255)
    assert np.abs(trip.decoded - expected).max() <= 1


def test_some_of_many_are_always_the_same(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path
) -> None:
    inspect(squares, moments(np.stack(squares)), autoencoder, tmp_path / "set")
    one, other, more = (round_trip(Prepared(tmp_path / "set"), autoencoder, count) for count in (3, 3, 5))
    assert np.array_equal(one.images, other.images) and np.array_equal(one.images, more.images[:3])


def scaled(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return np.stack([right[:, 0] * 0.18215, right[:, 1]], 1)


def all_scaled(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return right * 0.18215


def log_variances(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return np.stack([right[:, 0], 2 * np.log(right[:, 1])], 1)


def variances(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return np.stack([right[:, 0], right[:, 1] ** 2], 1)


def other_deviations(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return np.stack([right[:, 0], right[:, 1] * 1.2], 1)


def from_zero(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return moments(pixels.astype(np.float32) / 255)


def mirrored(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return moments(pixels[:, :, ::-1])


def mispaired(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return np.roll(right, 1, axis=0)


def channels_turned(right: np.ndarray, pixels: np.ndarray, moments: Moments) -> np.ndarray:
    return moments(pixels[..., ::-1])


MISTAKES = [
    (scaled, r"the stored means are 0\.1[78]\d* times what they should be: they were scaled before they were stored"),
    (all_scaled, r"the stored means are 0\.182\d* times what they should be: they were scaled"),
    (log_variances, "what is stored as standard deviations are log-variances"),
    (variances, "what is stored as standard deviations are variances"),
    (other_deviations, "the stored standard deviations are not what the autoencoder makes of the images"),
    (from_zero, r"the images were encoded from pixels in \[0, 1\] instead of \[-1, 1\]"),
    (mirrored, "the stored means are those of the mirrored images"),
    (mispaired, "the stored means are those of other images of the data set: images and latents were paired wrongly"),
    (channels_turned, r"the stored means of \d+ of 12 images are not what the autoencoder makes of them: another auto"),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=[mistake.__name__ for mistake, _ in MISTAKES])
def test_a_mistake_is_named(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path,
    mistake: Callable[..., np.ndarray], words: str,
) -> None:  # fmt: skip
    pixels = np.stack(squares)
    trip = inspect(squares, mistake(moments(pixels), pixels, moments), autoencoder, tmp_path / "set")
    assert trip.problem and re.match(words, trip.problem), trip.problem


@pytest.mark.parametrize("bad", [1, 5])
def test_some_wrong_ones_are_enough(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path, bad: int
) -> None:
    stored = moments(np.stack(squares))
    stored[:bad, 0] += 0.3
    trip = inspect(squares, stored, autoencoder, tmp_path / "set")
    assert trip.problem and trip.problem.startswith(f"the stored means of {bad} of 12 images are not what")


@pytest.mark.parametrize("mistake", [scaled, log_variances, variances, from_zero, mirrored, mispaired, channels_turned])
def test_jpeg_hides_no_mistake(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path,
    mistake: Callable[..., np.ndarray],
) -> None:  # fmt: skip
    pixels = np.stack(squares)
    stored = mistake(moments(pixels), pixels, moments)
    trip = inspect(squares, stored, autoencoder, tmp_path / "set", image_format="jpeg")
    assert trip.problem and re.match(dict(MISTAKES)[mistake], trip.problem), trip.problem


def test_another_autoencoder(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tiny_vae: Path, tmp_path: Path
) -> None:
    other = LatentAutoencoder.from_pretrained(tiny_vae)
    with torch.no_grad():
        other.vae.encoder.conv_in.weight.mul_(torch.linspace(0.5, 2, 8).view(8, 1, 1, 1))
    trip = inspect(squares, moments(np.stack(squares)), other, tmp_path / "set")
    assert trip.problem and trip.problem.endswith("another autoencoder, or other images")


def test_latents_of_another_shape(squares: list[np.ndarray], autoencoder: LatentAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"makes latents 4 x 4 x 4, the data set has 4 x 2 x 2$"):
        inspect(squares, np.ones((COUNT, 2, 4, 2, 2), np.float32), autoencoder, tmp_path / "set")


@pytest.mark.parametrize("part", [0, 1])
def test_what_is_not_a_number_is_not_sound(
    squares: list[np.ndarray], moments: Moments, autoencoder: LatentAutoencoder, tmp_path: Path, part: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No comparison with NaN is true, neither that it is near nor that it is far."""
    stored = moments(np.stack(squares))
    inspect(squares, stored, autoencoder, tmp_path / "set")
    stored[:, part, 0, 0, 0] = np.nan
    monkeypatch.setattr(Prepared, "stored", lambda self, indices: stored[np.asarray(indices)].astype(np.float16))
    trip = round_trip(Prepared(tmp_path / "set"), autoencoder, 16)
    assert trip.problem and ("the stored means of 12 of 12" if part == 0 else "standard deviations are") in trip.problem


def test_mirrored_moments_are_checked_too(tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_photographs(tmp_path / "images")
    make(images, tmp_path / "set", tiny_vae, flip=True)
    autoencoder, samples = LatentAutoencoder.from_pretrained(tiny_vae), Prepared(tmp_path / "set")
    assert round_trip(samples, autoencoder, 8).problem is None
    stored, count = Prepared.stored, len(samples)
    monkeypatch.setattr(Prepared, "stored", lambda self, indices: stored(self, [one % count for one in indices]))
    problem = round_trip(samples, autoencoder, 8).problem
    assert problem == "of the mirrored latents, the stored means are those of the mirrored images"


def test_errors_are_relative_to_what_is_wanted() -> None:
    wanted = np.array([[3.0, 4.0], [0.0, 2.0]])
    assert errors(wanted + np.array([[0.3, 0.4], [2.0, 0.0]]), wanted) == pytest.approx([0.1, 1.0])


def test_a_flipped_byte_is_found_wherever_it_is(tiny_vae: Path, tmp_path: Path) -> None:
    images, folder = write_photographs(tmp_path / "images"), tmp_path / "set"
    manifest, read = make(images, folder, tiny_vae), list[int]()
    check_digests(folder, manifest, read.append)
    assert read == [shard.bytes for shard in manifest.shards]
    path = folder / manifest.shards[1].file
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, whole.index(rows_of(folder)[7]["moments"]), len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"shard-00001\.arrow is damaged \(sha256 .*, the manifest says .*\): copy"):
            check_digests(folder, manifest)
    path.write_bytes(whole)
    shutil.copy(folder / manifest.shards[0].file, path)
    with pytest.raises(UserError, match=r"shard-00001\.arrow is damaged"):
        check_digests(folder, Manifest.read(folder))
    assert decode(rows_of(folder)[0]["image"]["bytes"]).shape == (SIDE, SIDE, 3)
