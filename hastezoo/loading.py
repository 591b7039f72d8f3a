"""The parts of a pipeline from what a card says: network, autoencoder, classes; refused where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hastezoo.autoencoders import Autoencoder, LatentAutoencoder, create_autoencoder
from hastezoo.conditioning.labels import ClassList, class_names
from hastezoo.errors import UserError
from hastezoo.zoo.card import Card
from hastezoo.zoo.importing import misfit, open_for
from hastezoo.zoo.modelfile import load_model
from hastezoo.zoo.weights import Resolved


def check_runnable(card: Card) -> None:
    """Refuse a checkpoint that this version has no module for, before anything is downloaded.

    Raises:
        UserError: For a model of text.
    """
    if card.classes is None:
        raise UserError(
            f"{card.name} draws from text, which this version cannot do yet; `hastezoo list` shows what there is"
        )


def load_network(card: Card, found: Resolved) -> nn.Module:
    """The network in a file, ours or foreign, on the CPU.

    Raises:
        UserError: If the file is broken, not safe, or holds another architecture than the card's.
    """
    if found.foreign:
        converted = open_for(card, found.path).converted
        reason = misfit(card, converted)
        if reason:
            raise UserError(f"{found.path} holds other weights than {card.name} has: {reason}")
        return converted.build().requires_grad_(False)
    network, metadata = load_model(found.path)
    if metadata["architecture"] != card.architecture:
        raise UserError(f"{found.path} holds a {metadata['architecture']}, but {card.name} is a {card.architecture}")
    return network


def load_classes(card: Card, config: Any) -> ClassList:
    """The card's classes.

    Raises:
        UserError: If the weights have another number of them.
    """
    check_runnable(card)
    names = class_names(str(card.classes))
    if len(names) != config.num_classes:
        raise UserError(f"the weights have {config.num_classes} classes, but {card.name} has {len(names)}")
    return names


def load_autoencoder(
    card: Card, config: Any, vae: str | Path | None, *, device: torch.device, tiling: bool = False
) -> Autoencoder:
    """The card's autoencoder, or the one asked for.

    Args:
        card: The checkpoint.
        config: Of the network: it must take the latents of the autoencoder.
        vae: ema, mse, a folder, or owner/name of the Hub; None takes the card's.
        device: Where it runs.
        tiling: Decode in tiles.

    Raises:
        UserError: If it is not to be had, or does not fit the network and the card's resolution.
    """
    described = card.autoencoder
    if described.kind == "identity" and (vae is not None or tiling):
        raise UserError(f"{card.name} is a model of pixels: it takes no autoencoder")
    if any(side * described.downsampling != card.resolution for side in config.size):
        made = "x".join(str(side * described.downsampling) for side in config.size)
        raise UserError(f"the weights draw {made} pixels, {card.name} is of {card.resolution}")
    autoencoder = create_autoencoder(
        described.kind,
        source=vae or described.repo,
        scale=described.scale,
        bias=described.bias,
        device=device,
        tiling=tiling,
    )
    if isinstance(autoencoder, LatentAutoencoder):
        channels, factor = autoencoder.channels, autoencoder.downsampling
        if (channels, factor) != (config.in_channels, described.downsampling):
            raise UserError(
                f"the autoencoder {autoencoder.source} has {channels} channels at 1/{factor}, {card.name} needs "
                f"{config.in_channels} at 1/{described.downsampling}"
            )
    return autoencoder
