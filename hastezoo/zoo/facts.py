"""What there is to know of a checkpoint, as names and words: for `hastezoo info`, and for a page about it."""

from __future__ import annotations

from hastezoo.conditioning.labels import class_names
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo import store
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import find_protocol
from hastezoo.zoo.weights import is_here, recipe_exists

ALWAYS = ("solver", "steps", "cfg")  # settings of a protocol that are shown whatever they are


def facts(card: Card) -> dict[str, object]:
    """All that is known of a checkpoint, by name, in the order in which it is shown. Nothing heavy is loaded.

    Args:
        card: Of the checkpoint.
    """
    config = ", ".join(f"{key} {value}" for key, value in card.config.items() if key != "words")
    return {
        "name": card.name,
        "title": card.title,
        "description": card.description,
        "architecture": f"{card.architecture} ({config})" if config else card.architecture,
        "parameters": f"{card.parameters:,}",
        "method": card.method,
        "path": card.path,
        "resolution": f"{card.resolution} px",
        "autoencoder": _autoencoder(card),
        "condition": _condition(card),
        "protocol": f"{card.protocol}: {_telling(find_protocol(card.protocol))}",
        "status": f"{card.status}, {'on this machine' if is_here(card) else 'not on this machine'}",
        **_weights(card),
        "steps": f"{card.steps:,}" if card.steps else "not stated",
        "recipe": _recipe(card),
        "licence": f"{card.licence} (passing the weights on: {card.redistribution})",
        "data": card.data,
        "papers": " ".join(card.papers),
        **_training(card),
        **_results(card),
    }


def _autoencoder(card: Card) -> str:
    described = card.autoencoder
    if described.kind == "identity":
        return "none: a model of pixels"
    return f"{described.repo}, scale {described.scale:g}, bias {described.bias:g}, 1/{described.downsampling}"


def _recipe(card: Card) -> str:
    if not card.recipe:
        return "-"
    return f"hastezoo.recipes.{card.recipe}" if recipe_exists(card) else f"{card.recipe}, not in this version"


def _condition(card: Card) -> str:
    if card.text is not None:
        if card.text.kind == "words":
            known = card.config["words"]
            return (
                f"text, {len(known):,} words of its own ({known[0]} ... {known[-1]}), the first {card.text.length} of "
                "a prompt; null condition: the empty prompt"
            )
        return f"text, through {card.text.repo}, {card.text.length} tokens; null condition: the empty prompt"
    names = class_names(str(card.classes))
    return f"{len(names)} classes ({names[0]} ... {names[len(names) - 1]}); null label {len(names)}"


def _weights(card: Card) -> dict[str, object]:
    """Where the weights are, and where they are to be had."""
    found: dict[str, object] = {}
    if card.weights is not None:
        found |= {"weights": card.weights_path or "-", "sha256": card.weights.sha256}
    elif (entry := store.find(card.name)) is not None:
        record = entry.record
        found["weights"] = (
            f"{entry.path} ({record.bytes:,} bytes, {record.dtype}, {record.which}), from {record.source}"
        )
        found["sha256"] = record.sha256
    for index, origin in enumerate(card.origins):
        digest = f"; sha256 {origin.sha256}" if origin.sha256 else "; sha256 not known beforehand"
        note = f" ({origin.note})" if origin.note else ""
        found[f"origin {index + 1}"] = f"{origin} [{origin.format}]{note}{digest}"
    return found


def _training(card: Card) -> dict[str, object]:
    if card.training is None:
        return {}
    given = card.training.model_dump(exclude_none=True)
    return {"training": ", ".join(f"{key} {value}" for key, value in given.items() if value != "")}


def _results(card: Card) -> dict[str, object]:
    """The figures that the card states, each with whose they are."""
    found: dict[str, object] = {}
    for index, result in enumerate(card.results):
        at = f" over {result.count:,}" if result.count else ""
        where = f" [{result.protocol}]" if result.protocol else ""
        text = f"{result.metric} {result.value:g}{at}{where}, {result.kind} by {result.source}"
        found[f"result {index + 1}"] = f"{text} ({result.note})" if result.note else text
    return found


def _telling(protocol: Protocol) -> str:
    """What a protocol has otherwise than the defaults, and what one always wants to know."""
    defaults = Protocol().model_dump()
    settings = protocol.model_dump()
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key in ALWAYS or value != defaults[key])
