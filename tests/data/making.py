"""Small data sets of real images, of moments that are given, and what disturbs their preparation."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.preparing import PrepareSettings
from hastezoo.data.ranks import Missing
from hastezoo.data.source import Item, open_source

CLASSES = ("astronaut", "coffee", "rocket")
PER_CLASS = 6
COUNT = len(CLASSES) * PER_CLASS
SIDE = 32
SHARD = 5  # images; the last of four shards has three
UNITS = -(-COUNT // SHARD)


@cache
def photograph(name: str) -> np.ndarray:
    """One of those that scikit-image brings along: uint8 (H, W, 3)."""
    from skimage import data

    pixels: np.ndarray = getattr(data, name)()
    return pixels


def crop_of(name: str, number: int, size: tuple[int, int] | None = None) -> Image.Image:
    """A piece of a photograph, another for each number; of `size` (width, height), or one drawn by the number."""
    whole, rng = photograph(name), np.random.default_rng(number)
    width, height = size or (int(side) for side in rng.integers(24, 150, 2))
    top, left = (int(rng.integers(0, room)) for room in (whole.shape[0] - height, whole.shape[1] - width))
    return Image.fromarray(whole[top : top + height, left : left + width])


def digit(number: int) -> Image.Image:
    """One of scikit-learn's digits, 8 x 8, as RGB."""
    from sklearn.datasets import load_digits

    return Image.fromarray((load_digits().images[number] * 15).astype(np.uint8)).convert("RGB")


def write_photographs(folder: Path) -> Path:
    """A folder a class, PNG and JPEG, of many sizes."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            crop_of(name, number).save(folder / name / f"{number}.{'jpg' if number % 3 == 1 else 'png'}")
    return folder


def settings_of(vae: Path | str, **changes: Any) -> PrepareSettings:
    return PrepareSettings(**{"name": "folder", "resolution": SIDE, "vae": str(vae), "shard_size": SHARD, **changes})


def make(
    images: Path,
    dest: Path,
    vae: Path | str,
    *,
    machine: dict[str, Any] | None = None,
    watch: Any = None,
    **changes: Any,
) -> Manifest:
    """Prepare a folder of classes by this process, on the CPU."""
    settings = settings_of(vae, **changes)
    chosen = Machine(**{"device": "cpu", "processes": 1, "threads": 2, **(machine or {})})
    return prepare(open_source(str(images), shard_size=settings.shard_size), dest, settings, chosen, watch)


def adm_crop(image: Image.Image, size: int) -> np.ndarray:
    """The centre crop of ADM's `image_datasets.py`, in its own words."""
    pil_image = image.convert("RGB")
    while min(*pil_image.size) >= 2 * size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.Resampling.BOX)  # type: ignore[arg-type]
    scale = size / min(*pil_image.size)
    pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.Resampling.BICUBIC)  # type: ignore[arg-type]
    arr = np.array(pil_image)
    crop_y, crop_x = (arr.shape[0] - size) // 2, (arr.shape[1] - size) // 2
    return arr[crop_y : crop_y + size, crop_x : crop_x + size]


class Posterior:
    """The moments of diffusers' AutoencoderKL from its own layers, image by image."""

    def __init__(self, folder: Path) -> None:
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL.from_pretrained(str(folder)).eval()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) -> float32 (2, C, h, w): mean and standard deviation, unscaled."""
        import torch

        with torch.no_grad():
            x = torch.from_numpy(pixels.astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]
            mean, log_variance = self.vae.quant_conv(self.vae.encoder(x))[0].chunk(2)
            return torch.stack([mean, torch.exp(log_variance.clamp(-30, 20) / 2)]).numpy()


class Given:
    """A source that brings its moments along: squares of pixels with (2, C, h, w) each."""

    description, fingerprint, classes, has_moments = "a stub", "0", ["one", "two"], True

    def __init__(self, images: Sequence[np.ndarray], moments: Sequence[np.ndarray], unit: int = 100) -> None:
        self.pairs, self.unit = list(zip(images, moments, strict=True)), unit
        self.total: int | None = len(self.pairs)
        self.units = -(-len(self.pairs) // unit)

    def items(self, unit: int) -> Iterator[Item]:
        for number in range(unit * self.unit, min(len(self.pairs), (unit + 1) * self.unit)):
            pixels, moments = self.pairs[number]
            yield Item(f"{number}", number % 2, _Just(Image.fromarray(pixels)), _Just(moments))


class _Just:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Any:
        return self.value


class Watching:
    """A watch that writes down what it is told, and does something after so many images."""

    def __init__(self, after: int = -1, do: Callable[[], None] = lambda: None) -> None:
        self.after, self.do, self.done = after, do, 0
        self.began: tuple[int, int | None, int, int] | None = None
        self.states: tuple[int, int] | None = None
        self.waited: list[Missing] = []

    def encodes(self, length: int, width: int) -> None:
        self.states = (length, width)

    def begin(self, done: int, total: int | None, shards_done: int, shards: int) -> None:
        self.began = (done, total, shards_done, shards)

    def advance(self, images: int) -> None:
        self.done += images
        if 0 <= self.after <= self.done:
            self.do()

    def waits(self, missing: Missing) -> None:
        self.waited.append(missing)


def interrupt() -> None:
    raise KeyboardInterrupt


def kill_when_begun(dest: Path) -> Any:
    """Kill the process that this is called in, when a shard of `dest` is done."""
    while not list(dest.glob("shard-*.json")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.write_bytes(file.read_bytes()[:50] if name.endswith("png") else b"")


def squares(count: int = 12, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]
    return pixels, [rng.uniform(0.1, 1, (2, 4, 2, 2)).astype(np.float32) for _ in range(count)]
