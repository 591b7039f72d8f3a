"""`hastezoo cache list` and `hastezoo cache remove`."""

from __future__ import annotations

import json

import click

from hastezoo.cli.errors import reporting_errors


@click.group("cache")
def command() -> None:
    """What the local store holds; remove from it.

    The store is HASTEZOO_HOME, by default the platform's cache folder. `hf cache ls` lists what the Hub's client keeps.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def list_command(as_json: bool) -> None:
    """Stored weights, their size, and where they are from."""
    from hastezoo.errors import UserError
    from hastezoo.home import home
    from hastezoo.zoo import store

    rows: list[dict[str, object]] = []
    for name in store.entries():
        try:
            entry = store.find(name)
        except UserError as error:
            rows.append({"name": name, "size": "-", "dtype": "-", "weights": "broken", "from": str(error), "date": "-"})
            continue
        assert entry is not None
        record = entry.record
        size = f"{entry.size / 1e6:,.1f} MB"
        rows.append(
            {
                "name": name,
                "size": size,
                "dtype": record.dtype,
                "weights": f"{record.format}, {record.which}",
                "from": record.source,
                "date": record.date,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif rows:
        from hastezoo.cli.tables import print_table

        print_table(rows, right=("size",))
    if not as_json:
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
        if not store.folder_of(name).is_dir():
            raise UserError(f"{name!r} is not in the store; `hastezoo cache list` shows what is")
    if not yes:
        click.confirm(f"remove {', '.join(names)}?", abort=True)
    for name in names:
        click.echo(f"removed {name}, {store.remove(name) / 1e6:,.1f} MB")
