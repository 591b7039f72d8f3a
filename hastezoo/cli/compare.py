"""`hastezoo compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.evaluation.results.comparison import Comparison, Difference
    from hastezoo.evaluation.results.result import EvaluationResult

LONGEST = 40  # characters of a setting's value


def _letter(index: int) -> str:
    """A, B, ... Z, AA: what a result is called in a table whose columns are results."""
    return ("" if index < 26 else _letter(index // 26 - 1)) + chr(ord("A") + index % 26)


def _described(result: EvaluationResult) -> str:
    from hastezoo.evaluation.results.result import protocol_words

    settings = result.settings
    protocol = f", {protocol_words(settings).replace('`', '')}" if settings.protocol else ""
    count = f", {settings.count:,} samples" if settings.count is not None else ""
    return f"{result.name}{protocol}{count}, {settings.features} features"


def _metric_rows(comparison: Comparison) -> list[dict[str, object]]:
    from hastezoo.zoo.metrics import metric_name

    features = {result.settings.features for result in comparison.results}
    rows = []
    for key in comparison.metrics:
        # Each result's features stand above the table; where they differ, the row names the kind of metric.
        row: dict[str, object] = {"metric": metric_name(key, *features) if len(features) == 1 else key}
        for index, (name, result) in enumerate(zip(comparison.names, comparison.results, strict=True)):
            row[name] = _value(result, key)
            if index:
                row[f"{name} - {comparison.names[0]}"] = _said(key, comparison.differences[key][index - 1])
        rows.append(row)
    return rows


def _value(result: EvaluationResult, key: str) -> str:
    from hastezoo.zoo.metrics import DASH, shown

    value = result.metrics.get(key)
    if value is None or value.value is None:
        return DASH
    error = f" ± {shown(key, value.error, value.error)}" if value.error is not None else ""
    return shown(key, value.value, value.error) + error


def _said(key: str, difference: Difference | None) -> str:
    from hastezoo.zoo.metrics import DASH, shown

    if difference is None:
        return DASH
    text = shown(key, difference.value, difference.error, "+")
    if difference.error is None:
        return f"{text} (no error known)"
    noise = "beyond the noise" if difference.beyond_noise else "within the noise"
    return f"{text} ± {shown(key, difference.error, difference.error)} ({noise})"


def _settings_rows(names: list[str], settings: dict[str, list[Any]]) -> list[dict[str, object]]:
    return [
        {"setting": key, **{name: _short(value) for name, value in zip(names, values, strict=True)}}
        for key, values in settings.items()
    ]


def _short(value: Any) -> str:
    text = "-" if value is None else json.dumps(value) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _print(comparison: Comparison, files: tuple[Path, ...]) -> None:
    from hastezoo.cli.tables import print_facts, print_table

    labelled = zip(comparison.names, files, comparison.results, strict=True)
    print_facts({name: f"{file}: {_described(result)}" for name, file, result in labelled})
    click.echo()
    rows = _metric_rows(comparison)
    if rows:
        print_table(rows, right=list(rows[0])[1:])
    if comparison.reasons:
        click.echo(f"not comparable, because {'; '.join(comparison.reasons)}")
    for title, settings in (("settings", comparison.settings), ("circumstances", comparison.circumstances)):
        if settings:
            click.echo(f"\n{title} that differ:")
            print_table(_settings_rows(comparison.names, settings))


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
    from hastezoo.evaluation.results.result import markdown_table, read_result

    if markdown and as_json:
        raise UserError("--markdown and --json are two forms of one answer; give one of them")
    if len(files) < 2:
        raise UserError(f"a comparison takes two results at least, not {len(files)}: add another to {files[0]}")
    results = [read_result(file) for file in files]
    comparison = compare(results, [_letter(index) for index in range(len(files))])
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
