"""What an evaluation is asked for, and what is taken from the checkpoint's card where it was not said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, make_protocol

if TYPE_CHECKING:
    from hastezoo.sampling.protocol import Protocol
    from hastezoo.zoo.card import Card


@dataclass(frozen=True)
class EvaluationAsk:
    """All that an evaluation can be asked for. An empty text or None is what was not said.

    Attributes:
        model: Name of the checkpoint.
        samples: Images that exist, to measure instead: as `open_images` takes them.
        reference: What they are held against, as `load_reference` takes it.
        features: What sees the images: inception, dinov2, pixels.
        inception, dinov2: Files of weights for these instead of those that belong there.
        protocol: A named one.
        overrides: Settings of the protocol that are other than the named one's.
        labels: How classes are drawn, instead of the protocol's way.
        prompts: Of a model of text, as `open_prompts` takes them.
        num: Images.
        seed: Of the first image; the others count on.
        metrics: Some of METRICS; None for all that the features have.
        weights, vae, vae_tiling, text_encoder, device, dtype, compile: As `Pipeline.from_pretrained` takes them.
        batch_size: Images at a time, or "auto".
        save_samples: Keep the images too.
        allow_few: Measure also where there are fewer images than dimensions.
        curve: Take FID also of fewer samples.
        out: The evaluation's folder.
    """

    model: str = DEFAULT_CHECKPOINT
    samples: str | None = None
    reference: str = ""
    features: str = ""
    inception: Path | None = None
    dinov2: Path | None = None
    protocol: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    labels: Literal["random", "balanced"] | None = None
    prompts: str | None = None
    num: int | None = None
    seed: int = 0
    metrics: tuple[str, ...] | None = None
    weights: str | None = None
    vae: str | None = None
    vae_tiling: bool = False
    text_encoder: str | None = None
    batch_size: int | str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    compile: bool = False
    save_samples: Literal["npz", "png"] | None = None
    allow_few: bool = False
    curve: bool = True
    out: Path | None = None


def settled(ask: EvaluationAsk, card: Card | None) -> EvaluationAsk:
    """What was not said is taken from the figure that the card states, so that the two can be compared.

    Nothing is loaded or fetched. What comes out settles to itself.

    Args:
        ask: What was said.
        card: Of the checkpoint that draws; None where existing images are measured.

    Returns:
        The same with reference, features and, of images that are drawn, protocol and number.

    Raises:
        UserError: If something is unknown or missing, or does not go with the model.
    """
    from hastezoo.evaluation.extractors import check_extractor
    from hastezoo.evaluation.measure import check_metrics
    from hastezoo.evaluation.references import find_file
    from hastezoo.evaluation.results.expected import default_protocol, stated

    if ask.metrics is not None:
        check_metrics(ask.metrics)
    if card is not None:
        _check_conditions(ask, card)
    figure = stated(card, ask.features or None) if card is not None else None
    by_reference = "pixels" if ask.reference.partition("-")[0] == "digits" else "inception"
    features = ask.features or (figure.features if figure else "") or by_reference
    check_extractor(features)
    reference = ask.reference or (figure.reference if figure else "")
    if not reference:
        raise UserError("no --reference: name imagenet256, digits, ADM's npz, a folder, or a file of `reference build`")
    find_file(reference)  # one that is not here is said before gigabytes are fetched
    if card is None:
        return replace(ask, features=features, reference=reference)
    protocol = ask.protocol or default_protocol(card, ask.features or None)
    ask = replace(ask, features=features, reference=reference, protocol=protocol)
    return replace(ask, num=count_of(ask))


def _check_conditions(ask: EvaluationAsk, card: Card) -> None:
    """Prompts for a model of text, and for no other."""
    if card.text is None:
        if ask.prompts is not None:
            raise UserError(f"{card.name} draws classes, not text: leave out --prompts")
        return
    if ask.prompts is None:
        from hastezoo.evaluation.prompts import KINDS

        raise UserError(f"{card.name} draws from text; name its prompts with --prompts: {KINDS}")
    if ask.labels:
        raise UserError(f"{card.name} draws from text: leave out --labels")


def protocol_of(ask: EvaluationAsk) -> Protocol:
    """How the images are drawn.

    Args:
        ask: Settled.

    Raises:
        UserError: If the protocol, a setting or a value is not valid.
    """
    labels = {"labels": ask.labels} if ask.labels else {}
    return make_protocol(ask.protocol, {**ask.overrides, **labels})


def count_of(ask: EvaluationAsk) -> int:
    """How many images are drawn.

    Args:
        ask: Settled, but for their number.

    Raises:
        UserError: If nobody says how many, or there would be none, or the protocol is not valid.
    """
    protocol = protocol_of(ask)  # refused even where its number is not wanted
    count = protocol.count if ask.num is None else ask.num
    if count is None:
        raise UserError(f"the protocol {ask.protocol} states no number of images; give --num")
    if count < 1:
        raise UserError(f"--num must be at least 1, not {count}")
    return count
