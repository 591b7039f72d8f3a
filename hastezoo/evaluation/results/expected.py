"""What an evaluation is expected to find: the card's figures, each with why this evaluation cannot be held against it.

Most disputes over FID were over settings, not over models: every setting that is known to move the numbers is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hastezoo.autoencoders import VAES
from hastezoo.evaluation.prompts import FROZEN
from hastezoo.evaluation.references.named import named_references
from hastezoo.evaluation.results.figures import Expected
from hastezoo.evaluation.results.settings import ReferenceFacts, Settings
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo.card import Card, Result
from hastezoo.zoo.overrides import differing, read_protocol, setting, stated_protocol, words

INCEPTION_SHA256 = "6726825d"  # the weights of 2015-12-05, converted: the file's name has the beginning of its digest
ADM_IMAGES = 10_000  # images in the reference files of the ADM evaluator, which precision and recall are taken of
BALANCED_MOVES = 0.1  # FID of REPA's SiT-XL/2 with guidance: 1.42 with random labels, 1.28 with balanced ones


@dataclass(frozen=True)
class _Case:
    """An evaluation and a figure; `drawing` is the protocol that the figure states, if it does."""

    settings: Settings
    card: Card
    figure: Result
    drawing: Protocol | None


_Check = Callable[[_Case], Iterator[str]]


def stated(card: Card, features: str | None = None) -> Result | None:
    """The card's first figure of the Fréchet distance.

    Args:
        card: Of the checkpoint.
        features: Of these features; None for any.
    """
    figures = [one for one in card.results if one.key == "fid" and features in (None, one.features)]
    return figures[0] if figures else None


def default_protocol(card: Card, features: str | None = None) -> str:
    """The protocol to measure a checkpoint with: its first figure's, else the card's.

    Args:
        card: Of the checkpoint.
        features: Of the figure; None for any.
    """
    figure = stated(card, features)
    return (figure.protocol if figure else "") or card.protocol


def expected_for(settings: Settings | Mapping[str, Any], card: Card | None) -> list[Expected]:
    """The card's figures of the features that were used.

    Args:
        settings: Of the evaluation, typed or as they are written.
        card: Of the checkpoint; None for images of unknown origin, of which nothing is expected.
    """
    if card is None:
        return []
    settings = settings if isinstance(settings, Settings) else Settings.model_validate(settings)
    return [
        Expected(
            key=figure.key,
            value=figure.value,
            kind=figure.kind,
            source=figure.source,
            protocol=figure.protocol,
            note=figure.note,
            reasons=_reasons(_Case(settings, card, figure, stated_protocol(figure.protocol, figure.overrides))),
            remarks=_remarks(settings, figure),
        )
        for figure in card.results
        if figure.key and figure.features == settings.features
    ]


def _reasons(case: _Case) -> list[str]:
    every: list[_Check] = [
        _origin, _protocol, _drawing, _count, _labels, _prompts, _weights, _autoencoder, _rounding, _pictures,
        _reference, _extractor, _order,
    ]  # fmt: skip
    # Where nobody knows how the samples came about, that is said once.
    idle = {_origin} if case.settings.drawn else {_drawing, _labels, _prompts, _weights, _autoencoder, _rounding}
    return [reason for check in every if check not in idle for reason in check(case)]


def _origin(case: _Case) -> Iterator[str]:
    if case.settings.samples is not None:
        yield f"the samples are existing images ({case.settings.samples}), and how they were drawn is not recorded"
    else:
        yield "how the samples were drawn is not recorded"


def _protocol(case: _Case) -> Iterator[str]:
    if not case.figure.protocol:
        yield "the figure's protocol is not stated"
    elif case.drawing is None:
        yield f"the figure's protocol {case.figure.protocol!r} is not known here"


def _drawing(case: _Case) -> Iterator[str]:
    if case.drawing is None:
        return
    used = read_protocol(case.settings.sampling)
    if used is None:
        yield "the samples were drawn with settings that this version does not know"
        return
    changed = differing(used, case.drawing, case.card.path)
    changed.pop("rounding", None)  # which is spoken of by itself
    apart = [f"{setting(key, ours)} instead of {words(theirs)}" for key, (ours, theirs) in changed.items()]
    if case.settings.protocol in (None, case.figure.protocol):
        yield from apart
    elif apart:
        yield f"protocol {case.settings.protocol} instead of {case.figure.protocol}: {', '.join(apart)}"


def _count(case: _Case) -> Iterator[str]:
    wanted = case.figure.count or (case.drawing.count if case.drawing else None)
    if wanted is not None and case.settings.count != wanted:
        count = case.settings.count
        yield f"{'a number not recorded of' if count is None else f'{count:,}'} samples instead of {wanted:,}"


def _labels(case: _Case) -> Iterator[str]:
    wanted = case.figure.labels or (case.drawing.labels if case.drawing else "")
    if not wanted or case.card.classes is None or case.settings.labels == wanted:
        return
    moves = case.figure.key == "fid" and case.figure.features == "inception"
    known = f" (balanced ones lower FID by about {BALANCED_MOVES:g})" if moves and case.settings.labels else ""
    yield f"{case.settings.labels or 'not recorded'} labels instead of {wanted} ones{known}"


def _prompts(case: _Case) -> Iterator[str]:
    if case.card.text is None:
        return
    used = case.settings.prompts or {}
    if case.figure.reference.startswith("coco") and used.get("rule") != FROZEN:
        yield f"prompts {used.get('source', 'not recorded')} instead of a caption each of COCO's validation images"
    elif case.figure.kind == "reported":
        yield "which captions the figure was taken with is not published"


def _weights(case: _Case) -> Iterator[str]:
    settings, card = case.settings, case.card
    of_step = case.figure.step or card.steps
    if settings.step is not None and of_step is not None and settings.step != of_step:
        yield f"weights of step {settings.step:,}, the figure is of step {of_step:,}"
    elif case.figure.step is not None and settings.step is None:
        yield f"the step of the weights is not recorded, the figure is of step {case.figure.step:,}"
    if card.status == "recipe-only":
        yield "the figure is of weights that were not released, so this is another run of the training"
    elif card.weights is not None:
        if settings.weights_sha256 != card.weights.sha256:
            yield f"weights with sha256 {_short(settings.weights_sha256)} instead of {_short(card.weights.sha256)}"
    elif settings.weights is not None and settings.weights_sha256 not in {one.sha256 for one in card.origins}:
        yield f"the weights are those of {settings.weights}, which may not be the card's"


def _autoencoder(case: _Case) -> Iterator[str]:
    described = case.card.autoencoder
    if described.kind == "identity":
        return
    name = case.settings.vae or "not recorded"
    place = VAES.get(name, name).removeprefix("hub:").partition("@")[0]
    if place != described.repo:
        yield f"autoencoder {name} instead of {described.repo}"


def _rounding(case: _Case) -> Iterator[str]:
    if case.drawing is None:
        return
    used = case.settings.rounding or (case.settings.sampling or {}).get("rounding")
    if used != case.drawing.rounding:
        yield f"rounding {used or 'not recorded'} instead of {case.drawing.rounding}"


def _pictures(case: _Case) -> Iterator[str]:
    if case.settings.resolution is not None and case.settings.resolution != case.card.resolution:
        yield f"images of {case.settings.resolution} px instead of {case.card.resolution}"
    if case.settings.lossy:
        yield "the samples went through a lossy format"


def _reference(case: _Case) -> Iterator[str]:
    wanted, have = case.figure.reference, case.settings.reference
    if not wanted:
        yield "the figure's reference is not stated"
    elif have is None:
        yield f"reference not recorded instead of {wanted}"
    elif not _is_the(wanted, have):
        yield f"reference {have.name or have.description} instead of {wanted}"
    elif have.verified is False or not _checkable(wanted):
        yield f"the file that goes by the name {wanted} was not verified to be it"
    if case.figure.key in ("precision", "recall") and wanted.startswith("imagenet"):
        images = have.features_count if have else None
        if images not in (None, ADM_IMAGES):  # the more there are, the easier it is to lie near one
            yield f"{images:,} images of the reference instead of {ADM_IMAGES:,}"
    if wanted.startswith("coco") and case.figure.kind == "reported":
        yield "the figure comes from U-ViT's script, not the ADM evaluator"


def _is_the(name: str, have: ReferenceFacts) -> bool:
    """Whether it was taken by that name, or is that very file under another."""
    known = named_references().get(name)
    digest = have.identity.get("sha256") if isinstance(have.identity, dict) else None
    return have.name == name or bool(known and known.sha256 and known.sha256 == digest)


def _checkable(name: str) -> bool:
    """Whether what has that name was checked when it was taken: files are, where their size or digest is known."""
    known = named_references().get(name)
    return known is None or bool(known.sha256 or known.bytes)


def _extractor(case: _Case) -> Iterator[str]:
    identity = case.settings.extractor
    if case.figure.features != "inception":
        return
    if not identity:
        yield "the weights of the Inception network are not recorded"
    elif not any(str(value).startswith(INCEPTION_SHA256) for value in identity.values()):
        yield "weights of the Inception network other than those of 2015-12-05"


def _order(case: _Case) -> Iterator[str]:
    if case.figure.key == "is" and case.settings.order == "permuted":
        yield "the samples were shuffled for the Inception Score, not taken in their order"


def _remarks(settings: Settings, figure: Result) -> list[str]:
    remarks = ["latents were decoded in tiles, which changes pixels at the seams"] if settings.vae_tiling else []
    if settings.dtype not in (None, "float32"):
        known = " (the sources of the figures do not state theirs)" if figure.kind == "reported" else ""
        remarks.append(f"drawn in {settings.dtype}{known}")
    return remarks


def _short(digest: str | None) -> str:
    return "not recorded" if digest is None else f"{digest[:12]}..."
