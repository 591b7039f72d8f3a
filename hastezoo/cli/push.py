"""`hastezoo push`."""

from __future__ import annotations

from pathlib import Path

import click

from hastezoo.cli.errors import reporting_errors


@click.command("push")
@click.argument("name")
@click.option("--repo", required=True, metavar="OWNER/NAME", help="Repository of models on the Hub; made if need be.")
@click.option("--weights", metavar="FILE", help="Weights that you trained, instead of the stored ones.")
@click.option("--licence", help="Of weights that you trained, such as apache-2.0.")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--message", help="Of the commit.")
@click.option("--dry-run", is_flag=True, help="Check everything and print the model card; send nothing.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(
    name: str, repo: str, weights: str | None, licence: str | None, private: bool, message: str | None, dry_run: bool
) -> None:
    """Publish NAME: its safetensors, config.json and a model card written from ours.

    Weights that do not verify, or whose licence does not let them be passed on, are refused.
    """
    from hastezoo import hub
    from hastezoo.zoo import publish
    from hastezoo.zoo.registry import find_card
    from hastezoo.zoo.weights import resolve

    card = find_card(name)
    place = hub.parse(hub.PREFIX + repo).repo
    path = Path(weights) if weights else resolve(card, local=True).path
    parcel = publish.pack(card, path, place, licence)
    if dry_run:
        click.echo(parcel.readme)
        click.echo(f"not sent: {path} ({path.stat().st_size:,} bytes) to {place}", err=True)
        return
    click.echo(publish.push(parcel, place, private=private, message=message))
