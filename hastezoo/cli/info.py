"""`hastezoo info NAME`."""

from __future__ import annotations

import json

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.zoo.card import Card


def _facts(card: Card) -> dict[str, object]:
    from hastezoo.conditioning.labels import class_names
    from hastezoo.zoo.registry import find_protocol

    names = class_names(card.classes)
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
        "autoencoder": card.autoencoder.kind,
        "classes": f"{len(names)} ({names[0]} ... {names[-1]}); null label {len(names)}",
        "protocol": f"{card.protocol}: " + _changed(find_protocol(card.protocol).model_dump()),
        "status": card.status,
        "weights": card.weights_path or "-",
        "sha256": card.weights.sha256 if card.weights else "-",
        "licence": card.licence,
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


def _changed(protocol: dict[str, object]) -> str:
    from hastezoo.sampling.protocol import Protocol

    defaults = Protocol().model_dump()
    always = ("solver", "steps", "cfg")
    return ", ".join(f"{key} {value}" for key, value in protocol.items() if key in always or value != defaults[key])


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="The card as JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(name: str, as_json: bool) -> None:
    """Everything about the checkpoint NAME."""
    from hastezoo.zoo.registry import find_card

    card = find_card(name)
    if as_json:
        click.echo(json.dumps(card.model_dump(mode="json"), indent=2))
        return
    from hastezoo.cli.tables import print_facts

    print_facts(_facts(card))
