"""`hastezoo info NAME` and `hastezoo info FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.hub import WEIGHTS
from hastezoo.zoo.card import Card


def _facts(card: Card) -> dict[str, object]:
    from hastezoo.zoo.registry import find_protocol
    from hastezoo.zoo.weights import is_here

    config = ", ".join(f"{key} {value}" for key, value in card.config.items())
    facts: dict[str, object] = {
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
        "protocol": f"{card.protocol}: " + _changed(find_protocol(card.protocol).model_dump()),
        "status": f"{card.status}, {'on this machine' if is_here(card) else 'not on this machine'}",
        **_weights(card),
        "steps": f"{card.steps:,}" if card.steps else "not stated",
        "recipe": _recipe(card),
        "licence": f"{card.licence} (passing the weights on: {card.redistribution})",
        "data": card.data,
        "papers": " ".join(card.papers),
    }
    if card.training is not None:
        training = card.training.model_dump(exclude_none=True)
        facts["training"] = ", ".join(f"{key} {value}" for key, value in training.items() if value != "")
    for index, result in enumerate(card.results):
        at = f" over {result.count:,}" if result.count else ""
        where = f" [{result.protocol}]" if result.protocol else ""
        text = f"{result.metric} {result.value:g}{at}{where}, {result.kind} by {result.source}"
        facts[f"result {index + 1}"] = f"{text} ({result.note})" if result.note else text
    return facts


def _autoencoder(card: Card) -> str:
    described = card.autoencoder
    if described.kind == "identity":
        return "none: a model of pixels"
    return f"{described.repo}, scale {described.scale:g}, bias {described.bias:g}, 1/{described.downsampling}"


def _recipe(card: Card) -> str:
    from hastezoo.zoo.weights import recipe_exists

    if not card.recipe:
        return "-"
    return f"hastezoo.recipes.{card.recipe}" if recipe_exists(card) else f"{card.recipe}, not in this version"


def _condition(card: Card) -> str:
    from hastezoo.conditioning.labels import class_names

    if card.text is not None:
        return f"text, through {card.text.repo}, {card.text.length} tokens; null condition: the empty prompt"
    names = class_names(str(card.classes))
    return f"{len(names)} classes ({names[0]} ... {names[len(names) - 1]}); null label {len(names)}"


def _weights(card: Card) -> dict[str, object]:
    """Where the weights are, and where they are to be had."""
    from hastezoo.zoo import store

    facts: dict[str, object] = {}
    if card.weights is not None:
        facts |= {"weights": card.weights_path or "-", "sha256": card.weights.sha256}
    elif (entry := store.find(card.name)) is not None:
        record = entry.record
        facts["weights"] = (
            f"{entry.path} ({record.bytes:,} bytes, {record.dtype}, {record.which}), from {record.source}"
        )
        facts["sha256"] = record.sha256
    for index, origin in enumerate(card.origins):
        digest = f"; sha256 {origin.sha256}" if origin.sha256 else "; sha256 not known beforehand"
        note = f" ({origin.note})" if origin.note else ""
        facts[f"origin {index + 1}"] = f"{origin} [{origin.format}]{note}{digest}"
    return facts


def _is_file(text: str) -> bool:
    """A file of weights rather than a name: it has a path or an ending, or it is there and no card has its name."""
    from hastezoo.zoo.registry import list_cards

    path = Path(text)
    if path.suffix in WEIGHTS or path.parent != Path(".") or text.startswith("."):
        return True
    return path.is_file() and text not in {card.name for card in list_cards()}


def _changed(protocol: dict[str, object]) -> str:
    from hastezoo.sampling.protocol import Protocol

    defaults = Protocol().model_dump()
    always = ("solver", "steps", "cfg")
    return ", ".join(f"{key} {value}" for key, value in protocol.items() if key in always or value != defaults[key])


@click.command("info")
@click.argument("what", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="As JSON: the card, or the facts about the file.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(what: str, as_json: bool) -> None:
    """Everything about the checkpoint NAME, or what the FILE of weights is.

    Of a file the format, architecture, EMA, step, direction of time and parameters are told from its header alone.
    """
    from hastezoo.zoo.registry import find_card

    facts: dict[str, object]
    if _is_file(what):
        from hastezoo.zoo.inspection import describe_file

        facts = dumped = describe_file(Path(what))
    else:
        card = find_card(what)
        facts, dumped = {}, card.model_dump(mode="json")
        if not as_json:
            facts = _facts(card)
    if as_json:
        click.echo(json.dumps(dumped, indent=2))
        return
    from hastezoo.cli.tables import print_facts

    print_facts(facts)
