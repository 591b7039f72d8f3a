"""`hastezoo info NAME` and `hastezoo info FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.hub import WEIGHTS


def _is_file(text: str) -> bool:
    """A file of weights rather than a name: it has a path or an ending, or it is there and no card has its name."""
    from hastezoo.zoo.registry import list_cards

    path = Path(text)
    if path.suffix in WEIGHTS or path.parent != Path(".") or text.startswith("."):
        return True
    return path.is_file() and text not in {card.name for card in list_cards()}


@click.command("info")
@click.argument("what", metavar="NAME|FILE")
@click.option("--json", "as_json", is_flag=True, help="As JSON: the card, or the facts about the file.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(what: str, as_json: bool) -> None:
    """Everything about the checkpoint NAME, or what the FILE of weights is.

    Of a file the format, architecture, EMA, step, direction of time and parameters are told from its header alone.
    """
    from hastezoo.zoo.facts import facts as facts_of
    from hastezoo.zoo.registry import find_card

    facts: dict[str, object]
    if _is_file(what):
        from hastezoo.zoo.inspection import describe_file

        facts = dumped = describe_file(Path(what))
    else:
        card = find_card(what)
        facts, dumped = {}, card.model_dump(mode="json")
        if not as_json:
            facts = facts_of(card)
    if as_json:
        click.echo(json.dumps(dumped, indent=2))
        return
    from hastezoo.cli.tables import print_facts

    print_facts(facts)
