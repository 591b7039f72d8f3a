"""`hastezoo list`."""

from __future__ import annotations

import json

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.zoo.card import Card, Result


def _quality(result: Result | None) -> str:
    return f"{result.short or result.metric} {result.value:g}" if result else "-"


def _row(card: Card) -> dict[str, object]:
    from hastezoo.zoo.weights import is_here

    return {
        "name": card.name,
        "architecture": card.architecture,
        "size": f"{card.resolution} px",
        "params": f"{card.parameters / 1e6:.1f} M",
        "weights": card.status,
        "here": "yes" if is_here(card) else "-",
        "reported": _quality(card.best("reported")),
        "measured": _quality(card.best("measured")),
    }


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="The cards in full, as JSON.")
@click.option("--markdown", is_flag=True, help="As a Markdown table, with where each number is from.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(as_json: bool, markdown: bool) -> None:
    """What checkpoints there are, where their weights are, how good they are."""
    from hastezoo.zoo.registry import list_cards

    cards = list_cards()
    if markdown:
        from hastezoo.zoo.documents import table

        click.echo(table(cards))
        return
    if as_json:
        click.echo(json.dumps([card.model_dump(mode="json") for card in cards], indent=2))
        return
    from hastezoo.cli.tables import print_table

    print_table([_row(card) for card in cards], right=("size", "params"))
