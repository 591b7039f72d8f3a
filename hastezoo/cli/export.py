"""`hastezoo export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from hastezoo.cli.errors import reporting_errors

if TYPE_CHECKING:
    from hastezoo.training.export import Which


@click.command("export")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--as", "name", required=True, metavar="NAME", help="Of the new checkpoint, such as sit-mine.")
@click.option("--step", type=click.IntRange(min=1), help="Of a checkpoint that was kept [the newest].")
@click.option(
    "--weights",
    type=click.Choice(["ema", "model"]),
    default="ema",
    show_default=True,
    help="The moving average, or what was trained.",
)
@click.option("--title", default="", help="Of the card [architecture and method].")
@click.option("--licence", help="Of the weights, such as apache-2.0.")
@click.option("--dtype", help="Convert to float32, bfloat16 or float16.  [default: as they were trained]")
@click.option("--force", is_flag=True, help="Replace your own checkpoint of that name.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(
    run: Path,
    name: str,
    step: int | None,
    weights: str,
    title: str,
    licence: str | None,
    dtype: str | None,
    force: bool,
) -> None:
    """Make a checkpoint of RUN that every command knows by NAME: its weights, and a card with its numbers.

    RUN is the folder that a recipe trains into, finished or not.
    """
    from hastezoo.training.export import LICENCE, export_run

    made = export_run(
        run,
        name,
        step=step,
        weights=cast("Which", weights),
        title=title,
        licence=licence or LICENCE,
        dtype=dtype,
        force=force,
    )
    click.echo(f"card: {made.path}")
    click.echo(f"weights: {made.weights} ({made.weights.stat().st_size:,} bytes, step {made.card.steps:,})")
    asked = ' --prompt "..."' if made.card.text else ""
    click.echo(f"draw with them: hastezoo sample --model {name}{asked}")
    shown = shlex.quote(licence) if licence else "..."
    click.echo(f"publish them: hastezoo push {name} --repo OWNER/NAME --licence {shown}")
