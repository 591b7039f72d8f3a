"""`hastezoo compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.evaluation.results.comparison import Comparison
    from hastezoo.evaluation.results.comparison_tables import Row


def _print(comparison: Comparison, files: tuple[Path, ...]) -> None:
    from hastezoo.cli.tables import print_facts
    from hastezoo.evaluation.results.comparison_tables import described, metric_rows, settings_rows

    labelled = zip(comparison.names, files, comparison.results, strict=True)
    print_facts({name: f"{file}: {described(result)}" for name, file, result in labelled})
    click.echo()
    rows = metric_rows(comparison)
    if rows:
        _print_rows(rows, right=list(rows[0])[1:])
    if comparison.reasons:
        click.echo(f"not comparable, because {'; '.join(comparison.reasons)}")
    for title, settings in (("settings", comparison.settings), ("circumstances", comparison.circumstances)):
        if settings:
            click.echo(f"\n{title} that differ:")
            _print_rows(settings_rows(comparison.names, settings))


def _print_rows(rows: list[Row], right: Sequence[str] = ()) -> None:
    from hastezoo.cli.tables import print_table

    print_table([{**row} for row in rows], right)


def _as_json(comparison: Comparison, files: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "results": [
            {"name": name, "file": str(file), **result.model_dump(mode="json", include={"metrics"})}
            for name, file, result in zip(comparison.names, files, comparison.results, strict=True)
        ],
        "differences": {
            key: {
                name: None if one is None else asdict(one)
                for name, one in zip(comparison.names[1:], differences, strict=True)
            }
            for key, differences in comparison.differences.items()
        },
        "not_comparable_because": comparison.reasons,
        "settings": comparison.settings,
        "circumstances": comparison.circumstances,
    }


@click.command("compare")
@click.argument("files", metavar="RESULT RESULT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw FID against samples, of all.")
@click.option("--markdown", is_flag=True, help="A table for a README instead.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(files: tuple[Path, ...], plot: Path | None, markdown: bool, as_json: bool) -> None:
    """Evaluations side by side: by how much their numbers differ from the first's, and in what settings.

    RESULT is a result.json of `hastezoo eval-fid`, or the folder that holds one.
    """
    from hastezoo.evaluation.results.comparison import compare
    from hastezoo.evaluation.results.comparison_tables import letter
    from hastezoo.evaluation.results.result import markdown_table, read_result

    if markdown and as_json:
        raise UserError("--markdown and --json are two forms of one answer; give one of them")
    if len(files) < 2:
        raise UserError(f"a comparison takes two results at least, not {len(files)}: add another to {files[0]}")
    results = [read_result(file) for file in files]
    comparison = compare(results, [letter(index) for index in range(len(files))])
    if plot is not None:
        from hastezoo.evaluation.results.plots import curve

        curve(results, plot, [f"{name} {result.name}" for name, result in zip(comparison.names, results, strict=True)])
    if as_json:
        click.echo(json.dumps(_as_json(comparison, files), indent=2))
        return
    if markdown:
        click.echo(markdown_table(results))
        if comparison.reasons:
            click.echo(f"\nNot comparable, because {'; '.join(comparison.reasons)}.")
        return
    _print(comparison, files)
    if plot is not None:
        click.echo(f"\npicture: {plot}")
