"""FID against the number of samples, as a picture: how much of it is the count's, and where it tends to."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.evaluation.results.result import EvaluationResult
from hastezoo.files import atomic_open
from hastezoo.pictures import PLOT_STYLE
from hastezoo.zoo.metrics import metric_name, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which the colour-blind tell apart, without the yellow, which is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^v"
LONGEST = 40  # characters of a name
WIDTH = 84  # characters of a line of the title
WIDE = 5  # times the least distance, from which on the axis is logarithmic
ROOM = 0.09  # of the axis, that the number of samples takes under it
STYLE: dict[Any, Any] = {**PLOT_STYLE, "legend.fontsize": 8.5}


def curve(results: Sequence[EvaluationResult], path: Path, names: Sequence[str] = ()) -> None:
    """Draw the distance of the first N samples against N, with the error of the last and the limit of infinitely many.

    Args:
        results: Of the same features; those without a curve are a point.
        path: Ends in .png, .svg or .pdf; written whole or not at all.
        names: Of the results, for the legend; by default the models'.

    Raises:
        UserError: If there is nothing to draw, the features differ, or the picture cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"a picture ends in {', '.join(FORMATS)}, not {str(path)!r}")
    figure = draw(results, names)
    from matplotlib import rc_context

    try:
        with rc_context(STYLE), atomic_open(path) as stream:  # ticks are made only now, and in this style
            figure.savefig(stream, format=path.suffix[1:].lower())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; name another file") from None


def draw(results: Sequence[EvaluationResult], names: Sequence[str] = ()) -> Figure:
    """The picture; see `curve`."""
    features = sorted({result.settings.features for result in results})
    if len(features) > 1:
        raise UserError(f"distances of {' and '.join(features)} features do not go in one picture")
    if not any(list(_points(result)) for result in results):
        raise UserError("none of these results has a Fréchet distance to draw")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures need matplotlib, which is not installed; pip install matplotlib") from None

    metric = metric_name("fid", features[0])
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8 + 0.17 * len(results)), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        labels = list(names) or [result.name for result in results]
        strokes = zip(cycle(COLORS), cycle(MARKERS), strict=False)
        for result, label, (color, marker) in zip(results, labels, strokes, strict=False):
            _draw_one(axes, result, label, color, marker)
        _scale(axes, results)
        axes.set_title(_title(results, metric))
        axes.set_xlabel("samples")
        axes.set_ylabel(metric)
        figure.legend(loc="outside lower left", ncols=1)
    return figure


def _points(result: EvaluationResult) -> Iterator[tuple[int, float]]:
    """(samples, distance), ascending; the whole number of samples is the last."""
    known: dict[int, float] = {}
    if result.curve is not None:
        known = dict(zip(result.curve.count, result.curve.fid, strict=True))
    whole, count = result.metrics.get("fid"), result.settings.count
    if whole is not None and whole.value is not None and count is not None:
        known[count] = whole.value
    return ((count, fid) for count, fid in sorted(known.items()) if count > 0 and math.isfinite(fid))


def _draw_one(axes: Axes, result: EvaluationResult, label: str, color: str, marker: str) -> None:
    """A line, a bar at its end, and a dashed level; the legend has the numbers of the last two."""
    points = list(_points(result))
    if not points:
        return
    counts, values = (list(column) for column in zip(*points, strict=True))
    measured = result.metrics.get("fid")
    error = measured.error if measured is not None and counts[-1] == result.settings.count else None
    last = shown("fid", values[-1], error) + (f" ± {shown('fid', error, error)}" if error else "")
    limit = result.curve.limit if result.curve is not None else None
    tends = f"; limit {shown('fid', limit)} (dashed)" if limit is not None else ""
    name = f"{_short(label)}: {last} at {counts[-1]:,}{tends}"
    axes.plot(counts, values, color=color, marker=marker, markersize=4, linewidth=1.5, label=name)
    if error:
        axes.errorbar(counts[-1:], values[-1:], [error], color=color, capsize=4, elinewidth=1.3, label="_error")
    if limit is not None:
        axes.plot(counts[:1] + counts[-1:], [limit, limit], color=color, linestyle="--", linewidth=1.2, label="_limit")


def _scale(axes: Axes, results: Sequence[EvaluationResult]) -> None:
    """A logarithmic axis of samples, and one of distances where these are spread wide, with plain numbers at both."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    marks = sorted({count for result in results for count, _ in _points(result)})
    axes.set_xscale("log")
    axes.margins(x=0.04, y=0.08)
    few = _fit(marks)
    axes.xaxis.set_major_locator(FixedLocator(marks) if few else LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    distances = [fid for result in results for _, fid in _points(result)] + _limits(results)
    if min(distances) > 0 and max(distances) > WIDE * min(distances):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda fid, _: f"{fid:g}"))


def _fit(marks: Sequence[int]) -> bool:
    """Whether a number under each point has room."""
    whole = math.log(marks[-1] / marks[0]) if len(marks) > 1 else 1.0
    return all(math.log(later / earlier) > ROOM * whole for earlier, later in pairwise(marks))


def _limits(results: Sequence[EvaluationResult]) -> list[float]:
    return [result.curve.limit for result in results if result.curve is not None and result.curve.limit is not None]


def _title(results: Sequence[EvaluationResult], metric: str) -> str:
    references = {result.settings.reference.name for result in results if result.settings.reference is not None}
    against = f" against {_short(references.pop())}" if len(references) == 1 else ""
    whose = f"{_short(results[0].name)}: " if len(results) == 1 else ""
    return "\n".join(textwrap.wrap(f"{whose}{metric} of the first N samples{against}", WIDTH))


def _short(name: str) -> str:
    """A name that fits; of a long one the ends."""
    half = LONGEST // 2 - 1
    return name if len(name) <= LONGEST else f"{name[:half]}...{name[-half:]}"
