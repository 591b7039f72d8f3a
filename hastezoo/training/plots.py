"""Runs' histories as a picture: draws what `panels` says. Needs no torch."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.files import atomic_open
from hastezoo.pictures import PLOT_STYLE
from hastezoo.training.history import History
from hastezoo.training.panels import COLORS, Curve, Panel, panels_of, panels_of_several, strokes
from hastezoo.training.summary import fate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
GREY = "#6b6b6b"
MARKED = 25  # of a curve of up to so many looks each is marked; of losses it takes a curve too short to be a line
MARKED_LOSSES = 5
RAW_CURVES = 4  # with more curves in a panel the faint raw ones would be all there is to see
LONGEST = 44  # characters of a run's name
STYLE: dict[Any, Any] = {**PLOT_STYLE, "legend.fontsize": 8.0, "legend.title_fontsize": 8.0}


def draw(histories: Sequence[History]) -> Figure:
    """One run's panels, or several runs' compared."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("pictures need matplotlib, which is not installed; pip install matplotlib") from None

    panels = panels_of(histories[0]) if len(histories) == 1 else panels_of_several(histories)
    rows, columns = _grid(len(panels))
    with rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 4.4 * columns), 2.8 * rows + 0.6), dpi=130, layout="constrained")
        first: Axes | None = None
        for place, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, place, sharex=first)
            first = first or axes
            _draw_panel(axes, panel)
            _mark_ends(axes, histories)
        if len(histories) == 1:
            heading = _heading(histories[0], int(13 * figure.get_figwidth()))
            figure.suptitle(heading, x=0.01, ha="left", fontsize=10.5)
        else:
            _name_runs(figure, histories)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its ending, whole or not at all."""
    from matplotlib import rc_context

    with rc_context(STYLE), atomic_open(path) as stream:  # ticks are made only now, and in this style
        figure.savefig(stream, format=path.suffix[1:].lower())


def _grid(count: int) -> tuple[int, int]:
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    return -(-count // columns), columns


def _heading(history: History, width: int) -> str:
    """The run's name, and in lines of up to `width` characters how far it came and what became of alignment."""
    step, planned = history.step, history.settings.train.steps
    dotted = " (dotted line)" if history.ended_at is not None else ""
    said = f"{step:,} of {planned:,} steps; alignment: {fate(history)}{dotted}"
    return "\n".join([_short(history.name), *textwrap.wrap(said, width)])


def _short(name: str) -> str:
    """A name that fits; of a long one the ends."""
    half = LONGEST // 2 - 1
    return name if len(name) <= LONGEST else f"{name[:half]}...{name[-half:]}"


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.set_title(panel.title)
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.margins(x=0.02)
    for curve in panel.curves:
        _draw_curve(axes, curve, panel.smooth, raw=len(panel.curves) <= RAW_CURVES)
    for value, label in panel.levels:
        axes.axhline(value, color=GREY, linestyle="--", linewidth=1.1, label=label or "_level")
    if panel.smooth:
        _scale(axes, [value for curve in panel.curves for value in curve.series[1]])
    if panel.blocks:
        _add_bar(axes, [curve.color for curve in panel.curves])
    elif any(curve.label for curve in panel.curves):
        # Beside the axes, where it hides nothing.
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title=panel.legend or None, alignment="left")


def _draw_curve(axes: Axes, curve: Curve, smooth: bool, raw: bool) -> None:
    steps, values = curve.series
    marker = "o" if len(steps) <= (MARKED_LOSSES if smooth else MARKED) else ""
    drawn = smoothed(values) if smooth else values
    if smooth and raw and drawn != values:
        axes.plot(steps, values, color=curve.color, linewidth=0.8, alpha=0.3, label="_raw")
    axes.plot(
        steps, drawn, color=curve.color, linestyle=curve.dash, linewidth=curve.width, marker=marker, markersize=3,
        label=curve.label or "_curve",
    )  # fmt: skip


def smoothed(values: Sequence[float]) -> list[float]:
    """A running mean over about a twentieth of the values.

    At the start the window narrows on both sides, so that a steep beginning is not flattened.
    """
    half = len(values) // 40
    means = []
    for at in range(len(values)):
        reach = min(half, at)
        window = values[at - reach : at + reach + 1]
        means.append(sum(window) / len(window))
    return means


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic scale where values are positive and spread wide, with plain numbers at it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0 or (spread := max(finite) / min(finite)) < 2.5:
        return
    axes.set_yscale("log")
    marks = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if spread < 12 else (1.0, 2.0, 5.0) if spread < 200 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=marks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _add_bar(axes: Axes, colors: Sequence[str]) -> None:
    """Which colour is which block; at most about eight are numbered."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = len(colors)
    norm = BoundaryNorm([block + 0.5 for block in range(count + 1)], count)
    colormap = ScalarMappable(norm, ListedColormap(list(colors)))
    bar = axes.figure.colorbar(colormap, cax=axes.inset_axes((1.03, 0.0, 0.04, 1.0)))
    bar.set_ticks(list(range(1, count + 1, -(-count // 8))))
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label("after block")


def _mark_ends(axes: Axes, histories: Sequence[History]) -> None:
    """A dotted vertical line where each run's alignment ended."""
    alone = len(histories) == 1
    for history, (color, _) in zip(histories, strokes(COLORS), strict=False):
        if history.ended_at is not None:
            axes.axvline(history.ended_at, color=GREY if alone else color, linestyle=":", linewidth=1.4, label="_end")


def _name_runs(figure: Figure, histories: Sequence[History]) -> None:
    """One legend of the runs above all panels."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, linestyle=dash, linewidth=2)
        for _, (color, dash) in zip(histories, strokes(COLORS), strict=False)
    ]
    names = [_short(history.name) for history in histories]
    if any(history.ended_at is not None for history in histories):
        handles.append(Line2D([], [], color=GREY, linestyle=":", linewidth=1.4))
        names.append("where alignment ended")
    across = int(figure.get_figwidth() * 15) // (max(len(name) for name in names) + 8)
    figure.legend(handles, names, loc="outside upper left", ncols=max(1, min(across, len(names))), fontsize=9)
