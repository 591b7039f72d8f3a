"""What a picture of runs shows, as data: panels and their curves. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

from hastezoo.training.history import DENOISING, TOTAL, History, Series

# Okabe and Ito's colours, which the colour-blind tell apart, without the yellow, which is lost on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.")  # of the first seven runs, the next, and so on; dots are the end of alignment


@dataclass(frozen=True)
class Curve:
    """A line; `label` is for the panel's legend, empty for none."""

    series: Series
    color: str
    label: str = ""
    dash: str = "-"
    width: float = 1.5


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        smooth: Draw a running mean over the faint raw values.
        levels: Values of horizontal lines, by label.
        legend: The legend's title.
        blocks: The curves are of the blocks from the first, and a bar of colours tells which.
    """

    title: str
    curves: tuple[Curve, ...]
    smooth: bool = False
    levels: tuple[tuple[float, str], ...] = ()
    legend: str = ""
    blocks: bool = False


def panels_of(history: History) -> list[Panel]:
    """The panels of one run, only those for which there is data."""
    panels = [_total(history)]
    for name, series in history.losses.items():
        if name not in (DENOISING, TOTAL):
            panels.append(Panel(_loss_title(name), (Curve(series, COLORS[0]),), smooth=True))
    if history.looks:
        panels.append(_cosines(history))
    if history.cknna:
        panels.append(_blocks(history))
    if history.attention_kl:
        panels.append(_divergences(history))
    return panels


def _loss_title(name: str) -> str:
    return f"{name.capitalize()} loss" if name != TOTAL else "Loss"


def _total(history: History) -> Panel:
    """Denoising, and the total while that is another: from the end of alignment on they are the same."""
    total = history.losses[TOTAL]
    if DENOISING not in history.losses:
        return Panel(_loss_title(TOTAL), (Curve(total, COLORS[0]),), smooth=True)
    denoising = history.losses[DENOISING]
    alone = dict(zip(*denoising, strict=True))
    other = [(step, value) for step, value in zip(*total, strict=True) if alone.get(step) != value]
    if not other:
        return Panel(_loss_title(DENOISING), (Curve(denoising, COLORS[0]),), smooth=True)
    steps, values = (list(column) for column in zip(*other, strict=True))
    curves = (
        Curve(denoising, COLORS[0], "denoising"),
        Curve((steps, values), COLORS[1], "total with\nalignment"),
    )
    return Panel("Denoising and total loss", curves, smooth=True)


def _cosines(history: History) -> Panel:
    curves = [
        Curve(series, color, f"{t:g}", width=1.1, dash=dash)
        for (t, series), (color, dash) in zip(history.cosines.items(), strokes(COLORS[:-1]), strict=False)
    ]
    curves.append(Curve(history.mean_cosine, COLORS[-1], "mean", width=2.2))
    return Panel("Cosine of the gradients", tuple(curves), levels=_thresholds([history]), legend="at t =")


def _thresholds(histories: Iterable[History]) -> tuple[tuple[float, str], ...]:
    """Each threshold of those runs whose gradients were looked at, once."""
    values = {run.settings.alignment.termination.threshold for run in histories if run.settings.alignment and run.looks}
    return tuple((value, f"threshold {value:g}") for value in sorted(values))


def _blocks(history: History) -> Panel:
    times = {seen.t for seen in history.diagnoses}
    at = f", t = {times.pop():g}" if len(times) == 1 and None not in times else ""
    width = 1.5 if len(history.cknna) <= 12 else 1.0
    colors = _block_colors(len(history.cknna))
    curves = [Curve(series, color, width=width) for series, color in zip(history.cknna.values(), colors, strict=True)]
    return Panel(f"CKNNA (k = 10) after each block{at}", tuple(curves), blocks=True)


def _block_colors(count: int) -> list[str]:
    """From dark to light, without the palest."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.93 * index / max(1, count - 1))) for index in range(count)]


def _divergences(history: History) -> Panel:
    arrow = " \N{LEFTWARDS ARROW} "
    curves = [
        Curve(series, color, pair.replace("<-", arrow), dash=dash)
        for (pair, series), (color, dash) in zip(history.attention_kl.items(), strokes(COLORS), strict=False)
    ]
    legend = f"student{arrow}teacher,\nblocks from 0"
    return Panel("Attention: mean KL of rows, nats", tuple(curves), legend=legend)


def strokes(colors: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Colours and dashes, without end, the colours first."""
    return cycle([(color, dash) for dash in DASHES for color in colors])


def panels_of_several(histories: Sequence[History]) -> list[Panel]:
    """The panels that compare runs, one curve a run, only those for which a run has data."""
    runs = list(zip(histories, strokes(COLORS), strict=False))

    def panel(title: str, series_of: Callable[[History], Series | None], smooth: bool = False) -> Panel:
        found = [(series_of(run), color, dash) for run, (color, dash) in runs]
        curves = [Curve(series, color, dash=dash) for series, color, dash in found if series]
        return Panel(title, tuple(curves), smooth)

    terms = dict.fromkeys(name for run in histories for name in run.losses if name != TOTAL) or {TOTAL: None}
    panels = [panel(_loss_title(name), _loss(name), smooth=True) for name in terms]
    thresholds = _thresholds(histories)
    said = f" (dashed: {', '.join(label for _, label in thresholds)})" if thresholds else ""
    cosines = panel(f"Mean cosine of the gradients{said}", lambda run: run.mean_cosine if run.looks else None)
    panels.append(replace(cosines, levels=tuple((value, "") for value, _ in thresholds)))
    layers = _feature_layers(histories)
    if any(layers[run.name] != len(run.cknna) for run in histories if run.cknna):
        same = f"block {shared}, the feature layer" if (shared := _only(layers.values())) else "the feature layer"
        panels.append(panel(f"CKNNA (k = 10) after {same}", lambda run: run.cknna.get(layers[run.name] or 0)))
    panels.append(panel("CKNNA (k = 10) after the last block", lambda run: run.cknna.get(len(run.cknna))))
    panels.append(
        panel("Attention: mean KL of rows, over all pairs", lambda run: run.mean_kl if run.attention_kl else None)
    )
    return [panel for panel in panels if panel.curves]


def _loss(name: str) -> Callable[[History], Series | None]:
    return lambda run: run.losses.get(name)


def _feature_layers(histories: Sequence[History]) -> dict[str, int | None]:
    """By run's name; a run without alignment is looked at where the others are aligned, if they agree."""
    own = {run.name: run.settings.alignment.feature_layer for run in histories if run.settings.alignment}
    shared = _only(own.values())
    return {run.name: own.get(run.name, shared) for run in histories}


def _only(values: Iterable[int | None]) -> int | None:
    """The value, if all are the same."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
