"""Pictures of runs: what their lines hold and how they look, and that half a picture is never left."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from hastezoo.training import plots
from hastezoo.training.history import History, read_history
from hastezoo.training.panels import COLORS
from tests.training.runs import EVENTS, METRICS, with_termination, write_plain_run, write_run


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def data(line: Line2D) -> tuple[list[Any], list[Any]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def color(line: Line2D) -> str:
    return to_hex(cast(str, line.get_color())).upper()


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """What the legend's lines hold, by label."""
    return {str(line.get_label()): data(line) for line in axes.lines if not str(line.get_label()).startswith("_")}


def curves(axes: Axes) -> list[Line2D]:
    """The drawn series, without raw ones, levels and the end."""
    return [line for line in axes.lines if str(line.get_label()) not in ("_raw", "_level", "_end")]


def ends(axes: Axes) -> list[tuple[int, str]]:
    found = [line for line in axes.lines if line.get_label() == "_end"]
    assert all(line.get_linestyle() == ":" for line in found)
    return [(data(line)[0][0], color(line)) for line in found]


def test_one_run_has_all_panels_with_its_numbers(history: History) -> None:
    figure = plots.draw([history])
    drawn = panels(figure)
    assert list(drawn) == [
        "Denoising and total loss", "Feature loss", "Attention loss", "Cosine of the gradients",
        "CKNNA (k = 10) after each block, t = 0.5", "Attention: mean KL of rows, nats",
    ]  # fmt: skip
    losses, feature, attention, cosine, cknna, divergence = drawn.values()
    # From the end of alignment on the total is the denoising loss, and is not drawn over it.
    assert lines(losses) == {
        "denoising": ([10, 20, 30, 40], [1.5, 0.75, 0.5, 0.25]),
        "total with\nalignment": ([10, 20], [2.0, 1.0]),
    }
    assert [data(line) for line in curves(feature)] == [([10, 20], [-0.2, -0.4])]
    assert [data(line) for line in curves(attention)] == [([10, 20], [1.2, 0.9])]
    shown = lines(cosine)
    assert shown["0.1"] == ([5, 10, 20], [0.3, 0.2, -0.2]) and shown["0.8"] == ([5, 10, 20], [0.5, 0.4, 0.06])
    assert shown["mean"] == ([5, 10, 20], pytest.approx([0.4, 0.3, -0.07]))
    assert shown["threshold -0.05"][1] == [-0.05, -0.05] and len(shown) == 4
    assert [data(line)[1] for line in curves(cknna)] == [[0.1, 0.2, 0.2], [0.2, 0.3, 0.3], [0.15, 0.25, 0.35]]
    assert lines(divergence) == {
        "1 \N{LEFTWARDS ARROW} 2": ([5, 10, 30], [2.0, 1.0, 0.5]),
        "2 \N{LEFTWARDS ARROW} 3": ([5, 10, 30], [3.0, 1.5, 0.75]),
    }


def test_every_panel_marks_where_alignment_ended_and_the_heading_says_why(history: History) -> None:
    figure = plots.draw([history])
    assert [ends(axes) for axes in figure.axes] == [[(20, plots.GREY.upper())]] * 6
    assert figure.get_suptitle() == (
        "run\n40 of 50 steps; alignment: ended after step 20: mean cosine -0.07 below -0.05 (dotted line)"
    )


def test_alignment_that_is_still_on_is_not_marked(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", alignment=with_termination(kind="never"), events=[])
    figure = plots.draw([read_history(run)])
    assert [ends(axes) for axes in figure.axes] == [[]] * 6 and "dotted" not in figure.get_suptitle()


@pytest.mark.parametrize("count", range(1, 8))
def test_every_panel_is_drawn(tmp_path: Path, count: int) -> None:
    terms = [f"term {index}" for index in range(1, count)]
    metrics = [{"step": 1, "loss": 1.0, **dict.fromkeys(terms, 1.0)}]
    figure = plots.draw([read_history(write_plain_run(tmp_path / "run", metrics=metrics))])
    assert list(panels(figure)) == ["Loss", *(f"Term {index} loss" for index in range(1, count))]


def test_blocks_differ_in_colour_and_the_bar_names_them(history: History) -> None:
    axes = panels(plots.draw([history]))["CKNNA (k = 10) after each block, t = 0.5"]
    assert len({color(line) for line in curves(axes)}) == 3
    (bar,) = axes.child_axes
    assert list(bar.get_yticks()) == [1, 2, 3] and bar.get_ylim() == (0.5, 3.5) and bar.get_ylabel() == "after block"


def long_run(folder: Path, losses: list[float]) -> History:
    metrics = [{"step": 10 * index, "loss": loss, "denoising": loss} for index, loss in enumerate(losses, 1)]
    return read_history(write_plain_run(folder, metrics=metrics))


def test_losses_are_smoothed_over_a_faint_raw_line(tmp_path: Path) -> None:
    losses = [1.0 + (-1) ** index * 0.5 for index in range(80)]
    (axes,) = plots.draw([long_run(tmp_path / "run", losses)]).axes
    raw, smooth = axes.lines
    assert data(raw)[1] == losses and raw.get_label() == "_raw" and raw.get_alpha() == 0.3
    # 80 values make a window of five, three of one sign and two of the other; at the start it is narrower.
    assert data(smooth)[1][0] == losses[0] and data(smooth)[1][1] == pytest.approx(sum(losses[:3]) / 3)
    assert data(smooth)[1][40] == pytest.approx(sum(losses[38:43]) / 5)
    assert data(smooth)[1][-1] == pytest.approx(sum(losses[-3:]) / 3)


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([2.0, 0.5], "log"),
        ([2.0, 1.5], "linear"),
        ([2.0, -0.5], "linear"),
        ([2.0, 0.0], "linear"),
        ([float("inf"), 2.0, 1.5], "linear"),
    ],
)
def test_a_wide_range_of_positive_losses_is_logarithmic(tmp_path: Path, losses: list[float], scale: str) -> None:
    (axes,) = plots.draw([long_run(tmp_path / "run", losses)]).axes
    assert axes.get_yscale() == scale


def test_several_runs_have_one_colour_and_one_curve_a_panel_each(several: list[History]) -> None:
    figure = plots.draw(several)
    drawn = {title: curves(axes) for title, axes in panels(figure).items()}
    assert {title: [COLORS.index(color(line)) for line in found] for title, found in drawn.items()} == {
        "Denoising loss": [0, 1, 2],
        "Feature loss": [0, 1],
        "Attention loss": [0, 1],
        "Mean cosine of the gradients (dashed: threshold -0.05)": [0, 1],
        "CKNNA (k = 10) after block 2, the feature layer": [0, 1, 2],
        "CKNNA (k = 10) after the last block": [0, 1, 2],
        "Attention: mean KL of rows, over all pairs": [0, 1, 2],
    }  # fmt: skip
    # The plain run has no feature layer of its own: it is looked at where the others are aligned.
    values = [[data(line)[1] for line in found] for found in drawn.values()]
    assert values[4] == [[0.2, 0.3, 0.3], [0.2, 0.3, 0.3], [0.02]]
    assert values[5] == [[0.15, 0.25, 0.35], [0.15, 0.25, 0.35], [0.03]]
    assert values[6] == [[2.5, 1.25, 0.625], [2.5, 1.25, 0.625], [5.0]]
    assert [ends(axes) for axes in figure.axes] == [[(20, COLORS[0])]] * 7


def test_several_runs_are_named_once_above_all_panels(several: list[History]) -> None:
    (legend,) = plots.draw(several).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "haste",
        "never",
        "_plain $x_$",
        "where alignment ended",
    ]
    assert [line.get_color() for line in legend.get_lines()] == [*COLORS[:3], plots.GREY]


def test_more_runs_than_colours_differ_in_dashes(history: History) -> None:
    figure = plots.draw([history] * 9)
    strokes = [(line.get_color(), line.get_linestyle()) for line in curves(figure.axes[0])]
    assert len(set(strokes)) == 9


def inside(figure: Figure) -> bool:
    """No text is over another's panel or beyond the edge of the picture."""
    figure.set_dpi(60)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    parts = (*figure.axes, *figure.legends, *figure.texts)
    boxes = [cast(Bbox, part.get_tightbbox(canvas.get_renderer())) for part in parts]
    width, height = canvas.get_width_height()
    apart = not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    return apart and all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)


def test_nothing_overlaps(tmp_path: Path, history: History, several: list[History]) -> None:
    assert inside(plots.draw([history])) and inside(plots.draw(several))
    # More names than go in a line.
    plain = read_history(write_plain_run(tmp_path / "plain"))
    assert inside(plots.draw([replace(plain, name=f"{'long name ' * 4}{index}") for index in range(9)]))
    # A heading that is wider than the one panel there is.
    forked = write_run(tmp_path / ("long name " * 20), metrics=METRICS[2:], events=EVENTS[2:], diagnoses=[])
    figure = plots.draw([read_history(forked)])
    assert len(figure.axes) == 1 and inside(figure)


@pytest.mark.parametrize(
    ("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_the_ending_is_the_format(tmp_path: Path, ending: str, start: bytes) -> None:
    path = tmp_path / f"picture{ending}"
    plots.save(plots.draw([long_run(tmp_path / "run", [2.0, 1.0])]), path)
    assert path.read_bytes().startswith(start)


def test_a_picture_is_written_whole_or_not_at_all(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "diagnosis.png"
    path.parent.mkdir()
    path.write_bytes(b"the one before")
    figure = plots.draw([history])

    def half(stream: Any, **options: Any) -> None:
        stream.write(b"\x89PNG half")
        raise RuntimeError("no font")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(RuntimeError, match="no font"):
        plots.save(figure, path)
    assert [found.name for found in path.parent.iterdir()] == ["diagnosis.png"]
    assert path.read_bytes() == b"the one before"
