"""`hastezoo classes`."""

from __future__ import annotations

import json

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT


@click.command("classes")
@click.argument("search", required=False)
@click.option("--model", default=DEFAULT_CHECKPOINT, show_default=True, help="Checkpoint whose classes to list.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(search: str | None, model: str, as_json: bool) -> None:
    """The classes of a checkpoint; with SEARCH those whose names, identifier or definition hold that text.

    Of a model with words of its own, these words.
    """
    from hastezoo.conditioning.labels import class_names
    from hastezoo.zoo.registry import find_card

    card = find_card(model)
    if card.text is not None and card.text.kind == "words":
        _show_words(card.config["words"], search, model, as_json)
        return
    if card.classes is None:
        raise UserError(f"{model} draws from text: it has no classes")
    names = class_names(card.classes)
    labels = list(range(len(names))) if search is None else names.search(search)
    if not labels:
        raise UserError(f"none of the {len(names)} classes of {model} has {search!r} in its names or definition")
    rows: list[dict[str, object]] = [
        {
            "class": label,
            **({"id": names.ids[label]} if names.ids else {}),
            "names": ", ".join(names.synonyms[label]),
            **({"definition": names.definitions[label]} if names.definitions else {}),
        }
        for label in labels
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from hastezoo.cli.tables import print_table

    print_table(rows, right=("class",))


def _show_words(words: list[str], search: str | None, model: str, as_json: bool) -> None:
    """A vocabulary, or its words that hold a text, side by side."""
    found = [word for word in words if search is None or search.lower() in word]
    if not found:
        raise UserError(f"none of the {len(words):,} words of {model} has {search!r} in it")
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    from rich.columns import Columns
    from rich.console import Console

    Console().print(Columns(found, column_first=True, padding=(0, 2)))
