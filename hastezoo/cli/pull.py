"""`hastezoo pull`."""

from __future__ import annotations

import click

from hastezoo.cli.errors import reporting_errors


@click.command("pull")
@click.argument("name")
@click.option("--vae", is_flag=True, help="Fetch the autoencoder of a latent model as well, to sample offline.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(name: str, vae: bool, quiet: bool) -> None:
    """Fetch the weights of the checkpoint NAME, so that sampling needs no network."""
    from hastezoo.autoencoders import fetch_files
    from hastezoo.cli.transfers import transfers
    from hastezoo.zoo.registry import find_card
    from hastezoo.zoo.weights import resolve

    card = find_card(name)
    with transfers(quiet=quiet) as (say, progress):
        found = resolve(card, say=say, progress=progress)
        if not quiet:
            click.echo(f"{name}: {found.path} (sha256 {found.sha256[:12]}...), from {found.source}")
        if vae and card.autoencoder.kind == "kl":
            _, weights, source = fetch_files(card.autoencoder.repo)
            if not quiet:
                click.echo(f"autoencoder {source}: {weights}")
