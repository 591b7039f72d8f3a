"""Rows of words as HTML tables; everything in them is escaped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape


def table(
    rows: Sequence[Mapping[str, object]], *, caption: str, right: Collection[str] = (), headings: bool = True
) -> str:
    """A table in a box of its own that scrolls where it is too wide; the first column names the rows.

    Args:
        rows: Of the same columns.
        caption: What the table is of, for who does not see it.
        right: Columns of numbers.
        headings: Whether the columns' names are shown.
    """
    columns = list(rows[0]) if rows else []
    head = "".join(f"<th scope='col'{_kind(one in right)}>{escape(one)}</th>" for one in columns)
    body = "".join(f"<tr>{_cells(row, columns, right)}</tr>" for row in rows)
    return (
        f"<div class='hz-scroll' role='region' aria-label='{escape(caption)}' tabindex='0'><table class='hz-table'>"
        f"<caption class='hz-unseen'>{escape(caption)}</caption>"
        + (f"<thead><tr>{head}</tr></thead>" if headings else "")
        + f"<tbody>{body}</tbody></table></div>"
    )


def _cells(row: Mapping[str, object], columns: Sequence[str], right: Collection[str]) -> str:
    first, *rest = columns
    # Some rows go on with the one above, and have no name of their own.
    name = f"<th scope='row'>{escape(str(row[first]))}</th>" if row[first] else "<td></td>"
    return name + "".join(f"<td{_kind(one in right)}>{escape(str(row[one]))}</td>" for one in rest)


def _kind(number: bool) -> str:
    return " class='hz-number'" if number else ""


def link(address: str, text: str = "") -> str:
    """A link to elsewhere; of an address that a browser would run and not open, the text alone."""
    shown = escape(text or address)
    if not address.startswith(("https://", "http://")):
        return shown
    return f"<a href='{escape(address)}' target='_blank' rel='noopener noreferrer'>{shown}</a>"
