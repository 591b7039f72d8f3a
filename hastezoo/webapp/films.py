"""What came of Compare, as HTML: columns with their way from noise to images, and the picture of a sweep.

The page has every frame; `hastezoo.frame` of assets/app.js shows one of each column, without asking the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from hastezoo.webapp.comparing import Column, Comparison, Film, Sweep
from hastezoo.webapp.drawing import Drawn
from hastezoo.webapp.words import count, duration

NAME = "compare-films"
KINDS = {"state": ("the state x<sub>t</sub>", "state"), "clean": ("the predicted clean image", "predicted clean image")}
NAMES = {"cfg": "CFG scale", "interval": "guided t", "last_step": "last step"}


def address(path: Path, root_path: str) -> str:
    """Where the page finds a file of the folder that is served.

    Args:
        path: Of the file.
        root_path: Under which a proxy serves the app.
    """
    return f"{root_path}/gradio_api/file={quote(str(path))}"


def comparison(result: Comparison, root_path: str) -> str:
    """The columns, and what moves along their ways."""
    times = sorted({time for column in result.columns for time in column.film.times}, reverse=True)
    followed, drawn = result.columns[0].film.images, len(result.columns[0].drawn.files)
    figures = "".join(_figure(column, root_path) for column in result.columns)
    parts = [_controls(len(times) - 1), f"<div class='hz-columns'>{figures}</div>"]
    if drawn > followed:
        parts.insert(1, f"<p class='hz-status'>The first {count(followed, 'image')} on their way:</p>")
        grids = "".join(_grid(column, root_path) for column in result.columns)
        parts += [f"<p class='hz-status'>All {count(drawn, 'image')}:</p><div class='hz-columns'>{grids}</div>"]
    known = " ".join(f"{time:.6g}" for time in times)
    return f"<section class='hz-films' id='{NAME}' data-times='{known}'>{''.join(parts)}</section>"


def _controls(last: int) -> str:
    """A button, a slider, and a choice of what is shown; they begin at the images."""
    move = f'oninput="hastezoo.frame(&quot;{NAME}&quot;)"'
    radios = "".join(
        f"<label><input type='radio' name='compare-kind' id='compare-{kind}' value='{kind}' {move}"
        f"{' checked' if kind == 'state' else ''}> <span>{label}</span></label>"
        for kind, (label, _) in KINDS.items()
    )
    return (
        "<div class='hz-scrub'>"
        f"<button type='button' id='compare-play' onclick=\"hastezoo.play(&quot;{NAME}&quot;)\">Play</button>"
        f"<label class='hz-track'><span>noise</span><input type='range' id='compare-time' min='0' max='{last}' "
        f"value='{last}' aria-label='Time, from noise to the images' aria-valuetext='t = 0' {move}>"
        f"<span>images</span></label><div class='hz-kinds' role='radiogroup' aria-label='Shown'>{radios}</div></div>"
    )


def _figure(column: Column, root_path: str) -> str:
    frames = "".join(_frames(column, column.film, root_path))
    return (
        f"<figure id='compare-column-{column.letter.lower()}'><figcaption>{_caption(column)}</figcaption>"
        f"<div class='hz-film'>{frames}</div><p class='hz-time'>t = 0</p><p class='hz-spent'>{_spent(column.drawn)}</p>"
        "</figure>"
    )


def _frames(column: Column, film: Film, root_path: str) -> Iterator[str]:
    for kind, files in (("state", film.states), ("clean", film.cleans)):
        for time, file in zip(film.times, files, strict=True):
            shown = "" if kind == "state" and time == 0 else " hidden"
            alt = f"Column {column.letter}, {column.drawn.request.model}: {KINDS[kind][1]} at t = {time:.3g}"
            yield (
                f"<img data-kind='{kind}' data-t='{time:.6g}' alt='{escape(alt)}' "
                f"src='{escape(address(file, root_path))}'{shown}>"
            )


def _caption(column: Column) -> str:
    """The checkpoint, the protocol, and what is not the same in every column."""
    told = [f"{NAMES.get(key, key)} {value}" for key, value in column.differs.items() if key != "checkpoint"]
    if not told:
        told = ["only the checkpoint differs"] if column.differs else ["nothing differs"]
    return (
        f"<b>{column.letter} · {escape(column.drawn.request.model)}</b><br>"
        f"protocol {escape(column.protocol)} · {escape(', '.join(told))}"
    )


def _spent(drawn: Drawn) -> str:
    passes = f"{drawn.passes:,} network pass{'' if drawn.passes == 1 else 'es'} an image"
    spent = f"{count(drawn.evaluations, 'evaluation')}, {passes}"
    return escape(
        "; ".join([f"{count(len(drawn.files), 'image')} in {duration(drawn.seconds)}: {spent}", *drawn.notes])
    )


def _grid(column: Column, root_path: str) -> str:
    alt = f"All images of column {column.letter}, {column.drawn.request.model}"
    return (
        f"<figure><figcaption><b>{column.letter}</b></figcaption>"
        f"<img alt='{escape(alt)}' src='{escape(address(column.drawn.grid, root_path))}'></figure>"
    )


def sweep(result: Sweep, root_path: str) -> str:
    """The picture, which opens alone when it is clicked."""
    model, values = result.columns[0].request.model, ", ".join(result.labels)
    alt = f"Images of {model}: a column for each {result.axis} {values}, a row for each of {'; '.join(result.rows)}"
    place = escape(address(result.picture, root_path))
    return (
        f"<div class='hz-scroll'><a href='{place}' target='_blank' rel='noopener'>"
        f"<img class='hz-sweep' id='sweep-picture' alt='{escape(alt)}' src='{place}'></a></div>"
    )


def sweep_line(result: Sweep) -> str:
    """What a sweep took, in a line."""
    images = sum(len(one.files) for one in result.columns)
    lines = [f"{count(images, 'image')} in {duration(sum(one.seconds for one in result.columns))}"]
    return "; ".join([*lines, *result.columns[0].notes])
