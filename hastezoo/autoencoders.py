"""Pixels <-> what the model sees, and pixels -> bytes with a named rounding.

Pixels are floats in [-1, 1], (B, C, H, W). Bytes are uint8, (B, H, W, C).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from hastezoo import hub
from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Rounding = Literal["truncate", "nearest"]

# Names for --vae. Samples are decoded with -ema by default; REPA's and HASTE's ImageNet latents were made with -mse.
VAES = {"ema": "stabilityai/sd-vae-ft-ema", "mse": "stabilityai/sd-vae-ft-mse"}
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PIXELS_AT_ONCE = 4 * 256 * 256  # through the network in one call, so that activations do not grow with the batch


class Autoencoder(Protocol):
    """What the pipeline and the recipes need of an autoencoder."""

    source: str
    sha256: str

    def encode(self, pixels: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class Identity:
    """For models of pixels."""

    source = ""
    sha256 = ""

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class LatentAutoencoder:
    """diffusers' AutoencoderKL with the scale and bias that the models were trained with, in float32.

    Images pass through it a few at a time, so that memory does not grow with the batch.

    Args:
        vae: The network.
        scale, bias: What a model sees is `scale * latent + bias`.
        tiling: Decode large images in overlapping tiles: less memory, slightly other pixels at the seams.
        source, sha256, revision: Where the weights are from, their digest, and the Hub's commit.
    """

    def __init__(
        self,
        vae: Any,
        scale: float = 0.18215,
        bias: float = 0.0,
        *,
        tiling: bool = False,
        source: str = "",
        sha256: str = "",
        revision: str = "",
    ) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.scale, self.bias = scale, bias
        self.source, self.sha256, self.revision = source, sha256, revision
        if tiling:
            self.vae.enable_tiling()

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        scale: float | None = None,
        bias: float = 0.0,
        *,
        device: torch.device | str = "cpu",
        tiling: bool = False,
    ) -> Self:
        """Load one from a local folder, by a name of `VAES`, or from a repository `owner/name` of the Hub.

        Args:
            scale, bias: What a model was trained with; by default the autoencoder's own scale.

        Raises:
            UserError: If it is not to be had, or its own latents are scaled otherwise than the model's.
        """
        config, weights, shown = fetch_files(source)
        own = _own_scale(config, shown)
        if scale is not None and own is not None and abs(own - scale) > 1e-6:
            # A VAE of another latent space decodes to colourful nonsense without any error.
            raise UserError(
                f"the autoencoder {shown} scales its latents by {own}, the model was trained with {scale}: "
                "another latent space"
            )
        scale = scale if scale is not None else own if own is not None else 1.0
        from diffusers import AutoencoderKL
        from diffusers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            vae = AutoencoderKL.from_pretrained(str(config.parent), local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise UserError(f"the autoencoder {shown} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
        finally:
            logging.set_verbosity(verbosity)
        revision = config.parent.name if config.parent.parent.name == "snapshots" else ""
        digest = recorded_sha256(weights)
        return cls(vae.to(device), scale, bias, tiling=tiling, source=shown, sha256=digest, revision=revision)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self.vae.config.latent_channels)

    @property
    def downsampling(self) -> int:
        """Pixels per latent position along each axis."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """The mean of the posterior, scaled: (B, 3, H, W) -> (B, C, H / 8, W / 8) float32."""
        import torch

        parts = [self.vae.encode(self._own(part)).latent_dist.mean for part in self._split(pixels, pixels.shape[-2:])]
        return torch.cat(parts) * self.scale + self.bias

    def moments(self, pixels: Tensor, at_once: int | None = None) -> Tensor:
        """The posterior, unscaled: (B, 3, H, W) in [-1, 1] -> (B, 2, C, H / 8, W / 8) float32, mean and deviation.

        Args:
            pixels: The images.
            at_once: How many of them the network sees in one call; None for a few.
        """
        import torch

        split = self._split(pixels, pixels.shape[-2:]) if at_once is None else pixels.split(at_once)
        parts = [self.vae.encode(self._own(part)).latent_dist for part in split]
        return torch.cat([torch.stack([part.mean, part.std], dim=1).float() for part in parts])

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, 8 h, 8 w) float32, in [-1, 1] up to overshoot."""
        import torch

        height, width = (side * self.downsampling for side in latents.shape[-2:])
        unscaled = (latents - self.bias) / self.scale
        parts = [self.vae.decode(self._own(part)).sample for part in self._split(unscaled, (height, width))]
        return torch.cat(parts)

    def _own(self, x: Tensor) -> Tensor:
        first = next(self.vae.parameters())
        return x.to(device=first.device, dtype=first.dtype)

    @staticmethod
    def _split(x: Tensor, size: tuple[int, ...]) -> tuple[Tensor, ...]:
        height, width = size
        return x.split(max(1, PIXELS_AT_ONCE // (height * width)))


def place_of(source: str | Path) -> str:
    """What a name stands for: a folder's full path, or owner/name of the Hub."""
    text = VAES.get(str(source), str(source))
    return str(Path(text).resolve()) if Path(text).is_dir() else text.removeprefix(hub.PREFIX)


def fetch_files(source: str | Path) -> tuple[Path, Path, str]:
    """(config, weights, what to call it), both files in one folder; fetched from the Hub if need be.

    Raises:
        UserError: If they are not to be had.
    """
    text = place_of(source)
    folder = Path(text)
    if folder.is_dir():
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise UserError(f"the folder {folder} is no autoencoder of diffusers: it has no {missing[0]}")
        return folder / CONFIG, folder / WEIGHTS, text
    place = text
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UserError(
            f"there is no folder {text}; an autoencoder is {', '.join(VAES)}, a folder, or owner/name of the Hub"
        )
    parsed = hub.parse(hub.PREFIX + place)
    try:
        config, weights = (hub.fetch(hub.Place(parsed.repo, parsed.revision, name)) for name in (CONFIG, WEIGHTS))
    except UserError as error:
        raise UserError(f"the autoencoder {error}; --vae FOLDER takes one from this machine") from None
    return config, weights, place


def _own_scale(config: Path, shown: str) -> float | None:
    """What the autoencoder says its latents are scaled by, if it does."""
    try:
        own = json.loads(config.read_text(encoding="utf-8")).get("scaling_factor")
        return None if own is None else float(own)
    except (OSError, ValueError, TypeError, AttributeError):
        raise UserError(f"the autoencoder {shown} has no readable {CONFIG}") from None


def create_autoencoder(
    kind: str,
    *,
    source: str | Path = "ema",
    scale: float = 1.0,
    bias: float = 0.0,
    device: torch.device | str = "cpu",
    tiling: bool = False,
) -> Autoencoder:
    """The autoencoder a card names: `identity`, or `kl` from `source`.

    Raises:
        ValueError: If the kind is unknown.
        UserError: If it is not to be had.
    """
    if kind == "identity":
        return Identity()
    if kind == "kl":
        return LatentAutoencoder.from_pretrained(source, scale, bias, device=device, tiling=tiling)
    raise ValueError(f"unknown autoencoder {kind!r}: one of identity, kl")


def to_bytes(pixels: Tensor, rounding: Rounding = "truncate") -> Tensor:
    """Pixels (B, C, H, W) in [-1, 1] -> uint8 (B, H, W, C).

    Args:
        pixels: Values beyond [-1, 1] are clamped.
        rounding: "truncate" is floor(255 (x + 1) / 2), as in REPA and HASTE; "nearest" is floor(127.5 x + 128), as in
            the original SiT. They differ by half a grey level on average.

    Raises:
        ValueError: If the rounding is unknown.
    """
    import torch

    offsets = {"truncate": 127.5, "nearest": 128.0}
    if rounding not in offsets:
        raise ValueError(f"unknown rounding {rounding!r}: one of {', '.join(offsets)}")
    scaled = (127.5 * pixels + offsets[rounding]).clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
