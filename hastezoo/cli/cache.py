"""`hastezoo cache list` and `hastezoo cache remove`."""

from __future__ import annotations

import json
from typing import Any

import click

from hastezoo.cli.errors import reporting_errors


@click.group("cache")
def command() -> None:
    """What the local store holds; remove from it.

    The store is HASTEZOO_HOME, by default the platform's cache folder. `hf cache ls` lists what the Hub's client keeps.
    """


def _rows() -> list[dict[str, Any]]:
    """One a stored checkpoint, then what is unfinished."""
    from hastezoo.errors import UserError
    from hastezoo.zoo import store

    rows = []
    for name in store.entries():
        row = {"name": name, "bytes": 0, "dtype": "-", "weights": "broken", "from": "-", "date": "-"}
        try:
            entry = store.find(name)
        except UserError as error:
            rows.append({**row, "from": str(error)})
            continue
        assert entry is not None
        record = entry.record
        what = f"{record.format}, {record.which}"
        facts = {"dtype": record.dtype, "weights": what, "from": record.source, "date": record.date}
        rows.append({**row, "bytes": entry.size, **facts})
    for name, held in store.unfinished().items():
        what = "unfinished: pull or import goes on, remove discards it"
        rows.append({"name": name, "bytes": held, "dtype": "-", "weights": what, "from": "-", "date": "-"})
    return rows


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def list_command(as_json: bool) -> None:
    """Stored weights, their size, and where they are from."""
    from hastezoo.cli.tables import print_table
    from hastezoo.home import home

    rows = _rows()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if rows:
        shown = [{"name": row["name"], "size": f"{row.pop('bytes') / 1e6:,.1f} MB", **row} for row in rows]
        print_table(shown, right=("size",))
    click.echo(f"{len(rows)} in {home() / 'weights'}", err=True)


@command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def remove_command(names: tuple[str, ...], yes: bool) -> None:
    """Remove the stored weights of checkpoints. What the package holds stays."""
    from hastezoo.errors import UserError
    from hastezoo.zoo import store

    for name in names:  # all or none
        if not store.is_known(name):
            raise UserError(f"{name!r} is not in the store; `hastezoo cache list` shows what is")
    if not yes:
        click.confirm(f"remove {', '.join(names)}?", abort=True)
    for name in names:
        click.echo(f"removed {name}, {store.remove(name) / 1e6:,.1f} MB")
