"""`hastezoo import`."""

from __future__ import annotations

from pathlib import Path

import click

from hastezoo.cli.errors import reporting_errors


@click.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--ema/--no-ema", default=None, help="The EMA of a container, or its raw weights.  [default: EMA]")
@click.option("--dtype", help="Convert to float32, bfloat16 or float16.  [default: the file's]")
@click.option(
    "--format", "kind", help="sit, repa or haste, where the file does not tell.  [default: what the card says]"
)
@click.option("--force", is_flag=True, help="Replace what the store holds.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(
    name: str, file: Path, ema: bool | None, dtype: str | None, kind: str | None, force: bool, quiet: bool
) -> None:
    """Take FILE, as its authors released it, into the local store as the weights of the checkpoint NAME.

    The format and architecture are read from the file, and held against the card. A pickle is read without running
    anything in it.
    """
    from hastezoo.cli.transfers import transfers
    from hastezoo.zoo.importing import import_file
    from hastezoo.zoo.registry import find_card

    card = find_card(name)
    with transfers("converting", quiet=quiet) as (_, progress):
        entry = import_file(card, file, ema=ema, dtype=dtype, format=kind, force=force, progress=progress)
    record = entry.record
    for note in record.notes:
        click.echo(f"note: {note}", err=True)
    if not quiet:
        step = f", step {record.step}" if record.step is not None else ""
        click.echo(
            f"{name}: {record.format} ({record.which}{step}) -> {entry.path}, {record.bytes:,} bytes, {record.dtype}"
        )
        click.echo(f"draw with: hastezoo sample --model {name}")
