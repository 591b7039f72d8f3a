"""What Compare shows, read back from its HTML."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hastezoo.webapp import films
from hastezoo.webapp.comparing import Column, Comparison, Film, Sweep

FOLDER = Path("/data/my outputs/a&b'c")


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.all if name == tag]


def drawn(count: int, notes: tuple[str, ...] = ()) -> Any:
    files = [FOLDER / f"{index}.png" for index in range(count)]
    request = SimpleNamespace(model="<model>")
    known = {"evaluations": 5, "passes": 1, "seconds": 1.0, "notes": list(notes), "grid": FOLDER / "grid.png"}
    return SimpleNamespace(request=request, files=files, **known)


def column(letter: str, times: list[float], count: int = 2, **differs: str) -> Column:
    files = {kind: [FOLDER / letter / f"{kind}_{index}.webp" for index in range(len(times))] for kind in ("s", "c")}
    film = Film(times, files["s"], files["c"], min(count, 8))
    return Column(letter, "digits", differs, drawn(count, ("'<b>' is cut",)), film)


TWO = Comparison([column("A", [1, 0.5, 0], cfg="2"), column("B", [1, 0.75, 0.25, 0], cfg="1")], FOLDER / "all.zip")


def test_the_slider_stops_at_the_times_of_every_column() -> None:
    tags = Tags(films.comparison(TWO, ""))
    assert tags.named("section")[0]["data-times"] == "1 0.75 0.5 0.25 0"
    (slider,) = [one for one in tags.named("input") if one["type"] == "range"]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "4", "4") and slider["aria-label"]


def test_every_frame_is_there_with_its_time_and_what_it_shows() -> None:
    images = Tags(films.comparison(TWO, "/zoo")).named("img")
    assert [(one["data-kind"], one["data-t"]) for one in images] == [
        *[(kind, time) for kind in ("state", "clean") for time in ("1", "0.5", "0")],
        *[(kind, time) for kind in ("state", "clean") for time in ("1", "0.75", "0.25", "0")],
    ]
    assert images[1]["alt"] == "Column A, <model>: state at t = 0.5"
    assert images[-2]["alt"] == "Column B, <model>: predicted clean image at t = 0.25"
    assert images[0]["src"] == "/zoo/gradio_api/file=/data/my%20outputs/a%26b%27c/A/s_0.webp"


def test_one_frame_of_each_column_is_shown_and_it_is_the_images() -> None:
    shown = [one for one in Tags(films.comparison(TWO, "")).named("img") if "hidden" not in one]
    assert [(one["data-kind"], one["data-t"]) for one in shown] == [("state", "0")] * 2


def test_what_comes_from_outside_is_escaped() -> None:
    text = films.comparison(TWO, "")
    assert "<model>" not in text.replace('alt="', "") and "<b>'" not in text
    assert "'<b>' is cut" in "".join(Tags(text).text)


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"checkpoint": "x", "cfg": "2", "interval": "0 to 1"}, "protocol digits · CFG scale 2, guided t 0 to 1"),
        ({"checkpoint": "x"}, "only the checkpoint differs"),
        ({}, "nothing differs"),
    ],
)
def test_the_caption_says_what_differs(differs: dict[str, str], said: str) -> None:
    result = Comparison([column("A", [1, 0], **differs)], FOLDER)
    assert said in "".join(Tags(films.comparison(result, "")).text)


def test_all_images_are_shown_where_not_all_are_followed() -> None:
    many = Tags(films.comparison(Comparison([column("A", [1, 0], count=9)], FOLDER), ""))
    assert "The first 8 images on their way:" in many.text and "All 9 images:" in many.text
    assert many.named("img")[-1]["src"].endswith("/grid.png") and many.named("img")[-1]["alt"]
    few = Tags(films.comparison(Comparison([column("A", [1, 0], count=8)], FOLDER), ""))
    assert not [one for one in few.named("img") if one["src"].endswith("/grid.png")]


def test_the_picture_of_a_sweep_says_what_it_shows() -> None:
    result = Sweep("cfg", ["1", "2"], ['3 "three" · seed 0'], [drawn(1), drawn(1)], FOLDER / "s.png", FOLDER / "z")
    tags = Tags(films.sweep(result, "/zoo"))
    assert tags.named("img")[0]["alt"] == (
        'Images of <model>: a column for each cfg 1, 2, a row for each of 3 "three" · seed 0'
    )
    assert tags.named("a")[0]["href"] == tags.named("img")[0]["src"] == films.address(FOLDER / "s.png", "/zoo")
    assert films.sweep_line(result) == "2 images in 2.0 s"
