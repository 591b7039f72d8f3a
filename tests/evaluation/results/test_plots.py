"""The picture of FID against the number of samples."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from hastezoo.errors import UserError
from hastezoo.evaluation.results import plots
from hastezoo.evaluation.results.result import EvaluationResult, Value
from tests.evaluation.examples import DIGITS, REPA, result


def data(line: Line2D) -> tuple[list[Any], list[Any]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def curves(figure: Figure) -> list[Line2D]:
    (axes,) = figure.axes
    return [line for line in axes.lines if not str(line.get_label()).startswith("_")]


def limits(axes: Axes) -> list[float]:
    lines = [line for line in axes.lines if line.get_label() == "_limit"]
    assert all(line.get_linestyle() == "--" for line in lines)
    return [data(line)[1][0] for line in lines]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bars(axes: Axes) -> list[tuple[float, float, float]]:
    """(samples, low, high) of each error bar."""
    segments = [container.lines[2][0].get_segments()[0] for container in axes.containers]  # type: ignore[attr-defined]
    return [(low[0], low[1], high[1]) for low, high in segments]


def test_one_result() -> None:
    figure = plots.draw([result(REPA)])
    (axes,) = figure.axes
    (line,) = curves(figure)
    assert data(line) == (REPA["curve"]["count"], REPA["curve"]["fid"])
    assert limits(axes) == [1.34] and bars(axes) == [(50_000, pytest.approx(1.413), pytest.approx(1.455))]
    assert axes.get_title(loc="left") == "sit-xl-repa: FID of the first N samples against imagenet256"
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("samples", "FID", "log")
    assert legend(figure) == ["sit-xl-repa: 1.434 ± 0.021 at 50,000; limit 1.34 (dashed)"]


def test_several_results_have_a_colour_each() -> None:
    other = result(REPA, model="sit-xl-haste", reference={"name": "another"})
    figure = plots.draw([result(REPA), other], ["A", "B"])
    assert [line.get_color() for line in curves(figure)] == list(plots.COLORS[:2])
    assert len(limits(figure.axes[0])) == len(bars(figure.axes[0])) == 2
    assert [text.partition(":")[0] for text in legend(figure)] == ["A", "B"]
    assert figure.axes[0].get_title(loc="left") == "FID of the first N samples"


def test_a_result_without_curve_or_error_is_a_point() -> None:
    figure = plots.draw([result(DIGITS).model_copy(update={"metrics": {"fid": Value(value=10.6)}})])
    assert data(curves(figure)[0]) == ([1797], [10.6]) and not bars(figure.axes[0]) and not limits(figure.axes[0])
    assert legend(figure) == ["sit-ti-digits-haste: 10.60 at 1,797"]
    assert figure.axes[0].get_ylabel() == "pixel FD"


def test_the_whole_count_is_the_last_point_though_the_curve_stops_before() -> None:
    short = {**REPA, "curve": {"count": [25_000, 12_500], "fid": [1.6, 1.85]}}
    assert data(curves(plots.draw([result(short)]))[0]) == ([12_500, 25_000, 50_000], [1.85, 1.6, 1.434])


def test_a_curve_of_other_samples_than_were_counted_has_no_error_bar() -> None:
    without = result(REPA, count=None)
    assert not bars(plots.draw([without]).axes[0])


@pytest.mark.parametrize(
    ("fid", "limit", "scale"),
    [([80.0, 40.0, 10.0], 5.0, "log"), ([3.0, 2.0, 1.5], 1.0, "linear"), ([80.0, 40.0, 10.0], -1.0, "linear")],
)
def test_a_wide_range_is_logarithmic(fid: list[float], limit: float, scale: str) -> None:
    example = {"metrics": {}, "settings": {}, "curve": {"count": [100, 200, 400], "fid": fid, "limit": limit}}
    assert plots.draw([EvaluationResult.model_validate(example)]).axes[0].get_yscale() == scale


def test_numbers_stand_under_the_points_where_they_have_room() -> None:
    figure = plots.draw([result(REPA)])
    FigureCanvasAgg(figure).draw()
    shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert shown == ["3,125", "6,250", "12,500", "25,000", "50,000"]
    near = {**REPA, "curve": {"count": [2500, 5000, 10_000, 20_000, 40_000], "fid": [3.2, 2.3, 1.9, 1.6, 1.5]}}
    figure = plots.draw([result(REPA), result(near, count=40_000)])
    FigureCanvasAgg(figure).draw()
    assert "20,000" in [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert "6,250" not in [text.get_text() for text in figure.axes[0].get_xticklabels()]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_nothing_overlaps_or_leaves_the_picture(count: int) -> None:
    far = {"name": "/a/long/path" * 9}
    figure = plots.draw([result(REPA, model=f"$_{'long name ' * 9}{i}", reference=far) for i in range(count)])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    parts = (*figure.axes, *figure.legends)
    boxes = [cast(Bbox, part.get_tightbbox(canvas.get_renderer())) for part in parts]
    width, height = canvas.get_width_height()
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    axes = figure.axes[0].get_window_extent(canvas.get_renderer())
    assert axes.height > 2.5 * figure.dpi


def test_a_name_is_no_formula() -> None:
    FigureCanvasAgg(plots.draw([result(REPA, model=r"$\frac$")])).draw()


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_the_ending_is_the_format(tmp_path: Path, ending: str, start: bytes) -> None:
    plots.curve([result(REPA)], tmp_path / f"curve{ending}")
    assert (tmp_path / f"curve{ending}").read_bytes().startswith(start)


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a picture ends in .png, .svg, .pdf, not '.*x.jpg'"):
        plots.curve([result(REPA)], tmp_path / "x.jpg")
    with pytest.raises(UserError, match="distances of inception and pixels features do not go in one picture"):
        plots.curve([result(REPA), result(DIGITS)], tmp_path / "x.png")
    with pytest.raises(UserError, match="none of these results has a Fréchet distance"):
        plots.curve([EvaluationResult(metrics={"is": Value(value=3.0)})], tmp_path / "x.png")
    with pytest.raises(UserError, match=r"cannot write .*none.x.png: No such file or directory; name another file"):
        plots.curve([result(REPA)], tmp_path / "none" / "x.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "curve.png"
    path.write_bytes(b"the one before")

    def half(self: Figure, stream: Any, **options: Any) -> None:
        stream.write(b"\x89PNG half")
        raise RuntimeError("no font")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(RuntimeError, match="no font"):
        plots.curve([result(REPA)], path)
    assert [found.name for found in tmp_path.iterdir()] == ["curve.png"] and path.read_bytes() == b"the one before"
