"""`hastezoo diagnose`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.training.summary import Reading, Summary

PICTURE = "diagnosis.png"


def _place(out: Path | None, runs: tuple[Path, ...]) -> Path:
    """Where the picture goes: as asked, into the one run's folder, or, comparing several, where the user is."""
    from hastezoo.training.plots import FORMATS

    if out is None:
        return runs[0] / PICTURE if len(runs) == 1 else Path(PICTURE)
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out takes a file that ends in {', '.join(FORMATS)}, not {str(out)!r}")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    return out


def _value(reading: Reading | None, step: int) -> str:
    """A number, with its step where that is not the last."""
    if reading is None:
        return "-"
    value = "not finite" if reading.value is None else f"{reading.value:.4g}"
    return value if reading.step == step else f"{value} @ {reading.step:,}"


def _row(summary: Summary, losses: list[str], alignment: str) -> dict[str, object]:
    best = summary.best_cknna
    return {
        "run": summary.name,
        "steps": f"{summary.step:,} of {summary.planned:,}",
        **{name: _value(summary.losses.get(name), summary.step) for name in losses},
        "mean cosine": _value(summary.mean_cosine, summary.step),
        "best CKNNA": f"block {best.block}: {_value(best, summary.step)}" if best else "-",
        "alignment": alignment,
    }


def _in_short(summary: Summary) -> str:
    """What became of alignment, in a column's width."""
    if summary.termination is None:
        return "none"
    state = "on" if summary.ended_at is None else f"ended @ {summary.ended_at:,}"
    return f"{state} ({summary.termination})"


def _print(summaries: list[Summary]) -> None:
    """One run line by line, several as a table; then what is missing of each."""
    from hastezoo.cli.tables import print_facts, print_table

    if len(summaries) == 1:
        print_facts(_row(summaries[0], list(summaries[0].losses), summaries[0].alignment))
    else:
        losses = [*dict.fromkeys(name for summary in summaries for name in summary.losses if name != "loss"), "loss"]
        print_table([_row(summary, losses, _in_short(summary)) for summary in summaries])
    for summary in summaries:
        whose = "" if len(summaries) == 1 else f"{summary.name}: "
        for reason in dict.fromkeys(summary.missing.values()):
            parts = ", ".join(part for part, why in summary.missing.items() if why == reason)
            click.echo(f"{whose}no {parts}: {reason}")


@click.command("diagnose")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"Picture, .png, .svg or .pdf [RUN/{PICTURE}; of several ./{PICTURE}].",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def command(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """How a run's losses, gradients and alignment went, as a picture and a summary.

    RUN is the folder that a recipe trains into, finished or not. Several are compared in one picture.
    """
    from dataclasses import asdict

    from hastezoo.training import plots
    from hastezoo.training.history import read_histories
    from hastezoo.training.summary import summarise

    histories = read_histories(runs)
    place = _place(out, runs)
    figure = plots.draw(histories)
    try:
        plots.save(figure, place)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}; give another --out") from None
    summaries = [summarise(history) for history in histories]
    if as_json:
        click.echo(json.dumps({"picture": str(place), "runs": [asdict(summary) for summary in summaries]}, indent=2))
        return
    _print(summaries)
    click.echo(f"picture: {place}")
