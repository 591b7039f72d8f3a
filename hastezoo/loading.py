"""The parts of a pipeline from what a card says, refused where they do not fit: network, autoencoder, conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hastezoo.autoencoders import Autoencoder, LatentAutoencoder, create_autoencoder
from hastezoo.conditioning.conditions import Conditions, Labels, Prompts
from hastezoo.conditioning.labels import class_names
from hastezoo.conditioning.text import create_text_encoder
from hastezoo.errors import UserError
from hastezoo.zoo.card import Card
from hastezoo.zoo.importing import misfit, open_for
from hastezoo.zoo.modelfile import load_model
from hastezoo.zoo.weights import Resolved


def check_text_encoder(card: Card, asked: str | Path | None) -> None:
    """Refuse an encoder for a checkpoint that has no use for one, before anything is downloaded.

    Raises:
        UserError: If there is one, and the model draws classes, or encodes words itself.
    """
    if card.text is None and asked is not None:
        raise UserError(f"{card.name} draws classes: it takes no text encoder")
    if card.text is not None and card.text.kind == "words" and asked is not None:
        raise UserError(f"{card.name} reads words by itself: it takes no text encoder")


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


def load_conditions(card: Card, config: Any, text_encoder: str | Path | None, *, device: torch.device) -> Conditions:
    """The card's classes, or its text encoder or the one asked for, or the network's own words.

    Raises:
        UserError: If the weights have another number of classes, or the encoder is not to be had or of another width.
    """
    check_text_encoder(card, text_encoder)
    if card.text is None:
        names = class_names(str(card.classes))
        if len(names) != config.num_classes:
            raise UserError(f"the weights have {config.num_classes} classes, but {card.name} has {len(names)}")
        return Labels(names)
    if card.text.kind == "words":
        return Prompts(create_text_encoder("words", words=config.words, length=config.context_length))
    encoder = create_text_encoder(
        card.text.kind, source=text_encoder or card.text.repo, length=card.text.length, device=device
    )
    if encoder.width != config.context_width:
        raise UserError(
            f"the text encoder {encoder.source} has states of {encoder.width} values, {card.name} takes "
            f"{config.context_width}"
        )
    return Prompts(encoder)


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
