"""Is a prepared data set sound? Its files against their digests, and stored latents against images encoded anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hastezoo.autoencoders import LatentAutoencoder, to_bytes
from hastezoo.data.manifest import Manifest
from hastezoo.data.order import permutation
from hastezoo.data.prepared import Prepared
from hastezoo.data.shards import damaged
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError

# Largest relative error of stored moments. Float16 and other kernels make 1e-3; a JPEG is not quite the image encoded.
TOLERANCE = {"png": 0.02, "jpeg": 0.25}
STRAYS = {"png": 0.0, "jpeg": 0.25}  # share of images that may be beyond it: of flat ones JPEG changes much

Encode = Callable[[Tensor], np.ndarray]
"""Pixels (N, 3, H, W) in [-1, 1] -> float64 moments (N, 2, C, h, w)."""


@dataclass(frozen=True)
class RoundTrip:
    """Some images, and what became of them.

    Attributes:
        images: uint8 (N, H, W, 3), as stored.
        decoded: uint8 (N, H, W, 3), from the stored means.
        mean_error, std_error: The largest relative error of an image's stored moments, of the stored image's own.
        psnr: Of the decoded against the stored images, in dB, the mean.
        problem: What is wrong, in words; None for nothing.
    """

    images: np.ndarray
    decoded: np.ndarray
    mean_error: float
    std_error: float
    psnr: float
    problem: str | None


def check_digests(folder: Path, manifest: Manifest, progress: Callable[[int], None] = lambda read: None) -> None:
    """Read every file and hold it against the manifest.

    Args:
        progress: Told of the bytes read.

    Raises:
        UserError: If a file has changed.
    """
    for shard in manifest.shards:
        digest = sha256_of(folder / shard.file)
        if digest != shard.sha256:
            change = ValueError(f"sha256 {digest[:12]}..., the manifest says {shard.sha256[:12]}...")
            raise UserError(damaged(folder / shard.file, change))
        progress(shard.bytes)


def round_trip(samples: Prepared, autoencoder: LatentAutoencoder, count: int) -> RoundTrip:
    """Encode and decode some samples, the same ones each time, and compare.

    Args:
        samples: The data set.
        autoencoder: The one that its manifest names.
        count: How many.

    Raises:
        UserError: If the autoencoder makes latents of another shape.
    """
    chosen = permutation(0, 0, samples.manifest.samples)[:count].tolist()
    images, stored = samples.pictures(chosen), samples.stored(chosen).astype(np.float64)
    with torch.inference_mode():
        fresh = _encoder(autoencoder)(_pixels(images))
        if fresh.shape != stored.shape:
            shapes = (" x ".join(map(str, moments.shape[2:])) for moments in (fresh, stored))
            raise UserError(
                "the autoencoder {} makes latents {}, the data set has {}".format(autoencoder.source, *shapes)
            )
        means = torch.from_numpy(stored[:, 0]).float() * autoencoder.scale + autoencoder.bias
        decoded = to_bytes(autoencoder.decode(means), "nearest").cpu().numpy()
        bounds = TOLERANCE[samples.manifest.image_format], STRAYS[samples.manifest.image_format]
        problem = find_problem(stored, fresh, images, _encoder(autoencoder), *bounds)
        if problem is None and samples.manifest.flip:
            problem = _mirrored_problem(samples, chosen, autoencoder, *bounds)
    shown = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    mean_error, std_error = (float(errors(stored[:, part], fresh[:, part]).max()) for part in (0, 1))
    return RoundTrip(shown, decoded, mean_error, std_error, _psnr(shown, decoded), problem)


def _mirrored_problem(
    samples: Prepared, chosen: list[int], autoencoder: LatentAutoencoder, tolerance: float, strays: float
) -> str | None:
    """What is wrong with the moments of the mirrored images."""
    mirrored = [samples.manifest.samples + one for one in chosen]
    images, encode = samples.pictures(mirrored), _encoder(autoencoder)
    stored = samples.stored(mirrored).astype(np.float64)
    problem = find_problem(stored, encode(_pixels(images)), images, encode, tolerance, strays)
    return problem and f"of the mirrored latents, {problem}"


def _pixels(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _encoder(autoencoder: LatentAutoencoder) -> Encode:
    def encode(pixels: Tensor) -> np.ndarray:
        moments: np.ndarray = autoencoder.moments(pixels).cpu().numpy().astype(np.float64)
        return moments

    return encode


def errors(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(N,) relative errors in the Euclidean norm, (N, ...) against (N, ...)."""
    difference, size = ((part.reshape(len(part), -1) ** 2).sum(1) ** 0.5 for part in (found - wanted, wanted))
    return difference / np.maximum(size, 1e-12)


def find_problem(
    stored: np.ndarray, fresh: np.ndarray, images: Tensor, encode: Encode, tolerance: float, strays: float = 0.0
) -> str | None:
    """What is wrong with stored moments, if they are not those of their images; the usual mistakes are named.

    Args:
        stored, fresh: (N, 2, C, h, w), of the file, and of the images encoded anew.
        images: uint8 (N, 3, H, W).
        encode: Encodes other readings of the images.
        tolerance: Largest relative error.
        strays: Share of images whose means may be farther off.
    """

    def near(found: np.ndarray, wanted: np.ndarray) -> bool:
        return bool(np.median(errors(found, wanted)) <= tolerance)

    means, new = stored[:, 0], fresh[:, 0]
    bad = int((~(errors(means, new) <= tolerance)).sum())  # so that NaN is bad
    if bad > strays * len(means):
        scale = float((means * new).sum() / max((new * new).sum(), 1e-12))
        if abs(scale - 1) > tolerance and scale and near(means / scale, new):
            return (
                f"the stored means are {scale:.5g} times what they should be: they were scaled before they were stored"
            )
        if near(means, encode(images.float() / 255)[:, 0]):
            return "the images were encoded from pixels in [0, 1] instead of [-1, 1]"
        if near(means, encode(_pixels(images.flip(-1)))[:, 0]):
            return "the stored means are those of the mirrored images"
        if _belong_to_others(means, new, tolerance):
            return "the stored means are those of other images of the data set: images and latents were paired wrongly"
        return (
            f"the stored means of {bad} of {len(means)} images are not what the autoencoder makes of them: another "
            "autoencoder, or other images"
        )
    deviations, new = stored[:, 1], fresh[:, 1]
    if not (errors(deviations, new) <= 2 * tolerance).all():
        if near(deviations, 2 * np.log(np.maximum(new, 1e-12))):
            return "what is stored as standard deviations are log-variances"
        if near(deviations, new**2):
            return "what is stored as standard deviations are variances"
        return "the stored standard deviations are not what the autoencoder makes of the images"
    return None


def _belong_to_others(means: np.ndarray, new: np.ndarray, tolerance: float) -> bool:
    """Whether most of the bad ones fit another image."""
    wrong = np.flatnonzero(errors(means, new) > tolerance)
    found = [any(errors(means[[one]], new[[other]])[0] <= tolerance for other in range(len(new))) for one in wrong]
    return 2 * sum(found) > len(wrong)


def _psnr(images: np.ndarray, decoded: np.ndarray) -> float:
    """Mean over images, in dB."""
    squares = ((images.astype(np.float64) - decoded) ** 2).reshape(len(images), -1).mean(1)
    return float(np.mean(10 * np.log10(255**2 / np.maximum(squares, 1e-12))))
