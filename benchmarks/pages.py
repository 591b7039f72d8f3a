"""Puts tables of results into the documents, each between its two markers."""

from __future__ import annotations

from collections.abc import Mapping

import click


def updated(text: str, tables: Mapping[str, str], command: str) -> str:
    """A page with its tables made anew.

    Args:
        text: Of the page.
        tables: Markdown, by the name that the markers have.
        command: That writes them, as the markers have it: `digits_study.py report`.

    Raises:
        ClickException: If the page has no markers for a table.
    """
    for name, table in tables.items():
        start, end = f"<!-- {name}: `{command}` writes this table -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise click.ClickException(f"the page has no markers for the table of {name}")
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text
