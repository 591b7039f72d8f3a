"""The networks of a preparation: an autoencoder, and a text encoder where images have captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data.captioned import load_encoder
from hastezoo.data.claims import NETWORKS
from hastezoo.data.preparing import PrepareSettings
from hastezoo.data.source import Source
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.conditioning.text import TextEncoder


@dataclass(frozen=True)
class Networks:
    """What encodes; None for what the images do not need."""

    autoencoder: LatentAutoencoder | None
    encoder: TextEncoder | None

    @property
    def digests(self) -> dict[str, str]:
        """Of their weights, by their names in the claim."""
        pairs = zip(NETWORKS, (self.autoencoder, self.encoder), strict=True)
        return {key: "" if network is None else network.sha256 for key, network in pairs}


def load_networks(source: Source, settings: PrepareSettings, device: str) -> Networks:
    """Loaded here also where other processes do the work: what is wrong with it is said once, and first."""
    from hastezoo.devices import find_device

    autoencoder = None if source.has_moments else _autoencoder(settings, device)
    place = settings.text_encoder
    return Networks(autoencoder, None if place is None else load_encoder(place, find_device(device)))


def _autoencoder(settings: PrepareSettings, device: str) -> LatentAutoencoder:
    from hastezoo.devices import find_device

    autoencoder = LatentAutoencoder.from_pretrained(settings.vae, device=find_device(device))
    if settings.resolution % autoencoder.downsampling:
        raise UserError(
            f"the resolution {settings.resolution} is not a multiple of {autoencoder.downsampling}, which the "
            f"autoencoder {autoencoder.source} reduces it by"
        )
    return autoencoder
