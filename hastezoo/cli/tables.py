"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def _console() -> Console:
    # Where there is no terminal a table is not cut to 80 columns, so that it can be searched.
    console = Console()
    return console if console.is_terminal else Console(width=200)


def print_table(rows: Sequence[dict[str, object]], right: Sequence[str] = ()) -> None:
    """Rows with the same keys; the columns in `right` are set flush right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, key in enumerate(rows[0]):
        table.add_column(key, justify="right" if key in right else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    _console().print(table)


def print_facts(facts: dict[str, object]) -> None:
    """Names and values, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))  # not markup: values have brackets of their own
    _console().print(table)
