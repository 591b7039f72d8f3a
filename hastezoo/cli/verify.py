"""`hastezoo verify`."""

from __future__ import annotations

import click

from hastezoo.cli.errors import reporting_errors


@click.command("verify")
@click.argument("name")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(name: str) -> None:
    """Check the weights of NAME on this machine, or a file of ours: sha256, config, shapes, no NaN. Exit 1 if bad."""
    from pathlib import Path

    from hastezoo.cli.tables import print_table
    from hastezoo.hub import WEIGHTS
    from hastezoo.zoo.registry import find_card
    from hastezoo.zoo.verify import verify, verify_file

    checks = verify_file(Path(name)) if Path(name).suffix in WEIGHTS else verify(find_card(name))
    print_table([{"check": c.what, "": "good" if c.good else "BAD", "detail": c.detail} for c in checks])
    bad = [check.what for check in checks if not check.good]
    if bad:
        click.echo(f"error: {name} is not sound: {', '.join(bad)}", err=True)
        raise SystemExit(1)
