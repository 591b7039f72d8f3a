"""Evaluations by a ticket: the numbers of the command line, what is cancelled goes on, and nothing comes by a path."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from html import unescape as html_text
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from click.testing import CliRunner

from hastezoo.cli.main import main
from hastezoo.errors import UserError
from hastezoo.evaluation.references.named import named_references
from hastezoo.sampling.stopping import Cancelled
from hastezoo.webapp import evaluating, forms, result_words, words
from hastezoo.webapp.following import Shown, Watched
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import evaluate, side_by_side
from hastezoo.webapp.turns import Ticket
from hastezoo.zoo.registry import find_card, find_protocol, list_cards

NAME = "sit-ti-digits-haste"
CARD = find_card(NAME)
FAST: dict[str, Any] = {"model": NAME, "solver": "euler", "steps": 2, "number": 80}
TWO_CHUNKS = {**FAST, "number": 700}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """Studios on the CPU, each with a folder of that name."""
    made: list[Studio] = []

    def build(name: str = "app", **settings: Any) -> Studio:
        made.append(Studio(AppSettings(outputs=tmp_path / name, device="cpu", **settings)))
        return made[-1]

    yield build
    for studio in made:
        studio.close()


@pytest.fixture
def studio(make: Callable[..., Studio]) -> Studio:
    return make()


def form(**values: Any) -> forms.EvaluateForm:
    return forms.read(forms.EvaluateForm, {**FAST, **values})


def ended(ticket: Ticket, within: float = 120) -> Ticket:
    until = time.monotonic() + within
    while not ticket.over:
        assert time.monotonic() < until, ticket.progress
        time.sleep(0.01)
    return ticket


def measured(studio: Studio, **values: Any) -> evaluating.Evaluated:
    ticket = ended(studio.evaluate(form(**values)))
    assert ticket.state == "done", ticket.error
    found: evaluating.Evaluated = ticket.result
    return found


def numbers(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    return {key: content[key] for key in ("metrics", "curve", "notes", "expected")}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The batches that are drawn."""
    batches: list[tuple[int, int]] = []
    read = Shown.read

    def noted(self: Shown, start: int, stop: int) -> np.ndarray:
        batches.append((start, stop))
        return read(self, start, stop)

    monkeypatch.setattr(Shown, "read", noted)
    return batches


CASES: list[dict[str, Any]] = [
    {},
    {"seed": 5, "labels": "balanced", "reference": "digits-test", "number": 90},
    {"solver": "euler-maruyama", "cfg": 1.5, "low": 0.1, "high": 0.7, "protocol": "digits"},
    {"number": 30, "allow_few": True},
]


@pytest.mark.parametrize("values", CASES, ids=lambda values: ",".join(values) or "as it is")
def test_the_line_that_is_shown_gives_the_same_numbers(values: dict[str, Any], studio: Studio) -> None:
    found = measured(studio, **values)
    line = shlex.split(found.command)
    assert line[:2] == ["hastezoo", "eval-fid"]
    typed = CliRunner().invoke(main, [*line[1:], "--out", "typed"])
    assert typed.exit_code == 0, typed.output
    assert numbers(found.files[0]) == numbers(Path("typed/result.json"))
    assert json.loads(found.files[0].read_text())["settings"]["command"] == found.command


def test_the_options_typed_by_hand_give_the_same_numbers_too(studio: Studio) -> None:
    """Not by way of the line that the app makes."""
    options = ["--solver", "euler", "--steps", "2", "-n", "80", "--device", "cpu", "--out", "typed"]
    assert CliRunner().invoke(main, ["eval-fid", *options]).exit_code == 0
    assert numbers(measured(studio).files[0]) == numbers(Path("typed/result.json"))


def test_an_evaluation_stays_in_the_served_folder(studio: Studio) -> None:
    found = measured(studio)
    assert all(path.parent.parent == studio.outputs.evaluations for path in found.files)
    assert not list(Path().iterdir())
    assert re.fullmatch(rf"eval-{NAME}-[0-9a-f]{{8}}", found.files[0].parent.name)


def test_a_cancelled_evaluation_goes_on_and_finds_the_same(
    make: Callable[..., Studio], drawn: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, seen = make(), []
    step = Watched.step

    def cancelling(self: Watched, info: Any) -> None:
        seen.append(info.index)
        if self._done >= 532 and info.index == 0:
            studio.turns.cancel(self.ticket.id)
        step(self, info)

    monkeypatch.setattr(Watched, "step", cancelling)
    ticket = ended(studio.evaluate(form(**TWO_CHUNKS)))
    monkeypatch.setattr(Watched, "step", step)
    assert ticket.state == "cancelled" and seen[-2:] == [1, 0], "within the step"
    last = drawn[-1][0]
    assert last >= 532 and "532 of 700 images" in result_words.stopped(ticket)
    assert "goes on from there" in result_words.stopped(ticket) and not studio.results()
    drawn.clear()
    again = measured(studio, **TWO_CHUNKS)
    assert drawn[0][0] == 500 and drawn[-1][1] == 700, "the first chunk is kept"
    whole = measured(make("whole"), **TWO_CHUNKS)
    assert numbers(again.files[0]) == numbers(whole.files[0])


def test_more_images_draw_only_the_rest_and_the_same_draws_nothing(
    studio: Studio, drawn: list[tuple[int, int]]
) -> None:
    measured(studio, number=500)
    drawn.clear()
    measured(studio, number=700)
    assert min(start for start, _ in drawn) == 500
    drawn.clear()
    measured(studio, number=700)
    assert not drawn
    counts = [one.result.settings.count for one in studio.results()]
    assert sorted(map(int, counts)) == [500, 700], "the first answer is kept beside the second"  # type: ignore[arg-type]


TEXT = "mmdit-coco-haste"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "sit"}, "unknown model 'sit'; nearest"),
    ({"model": TEXT}, f"{TEXT} draws from text, and is measured with a file of prompts"),
    ({"reference": "../secret.npz"}, "no reference is called '../secret.npz'; choose one of digits,"),
    ({"reference": "/etc"}, "no reference is called '/etc'"),
    ({"reference": "imagenet256"}, "the reference imagenet256 is not on this server: VIRTUAL_imagenet256_labeled.npz"),
    ({"model": "sit-s"}, "the card of sit-s names no reference"),
    ({"protocol": "digit"}, "unknown protocol 'digit'; nearest"),
    ({"steps": 0}, "steps"),
    ({"solver": "magic"}, "solver"),
    ({"low": 0.9, "high": 0.1}, "interval"),
    ({"number": 0}, "number"),
    ({"number": 10**12}, "1,000,000,000,000 images x 2 steps are more than the 20,000,000 image steps"),
    ({"number": 100_000, "solver": "dopri5"}, "100,000 images x 250 steps are more than"),
    ({"number": "many"}, "number"),
    ({"number": [80]}, "number"),
    ({"seed": 2**63}, "seed"),
    ({"seed": "-1"}, "seed"),
    ({"labels": "sorted"}, "labels"),
    ({"cfg": float("nan")}, "cfg"),
    ({"samples": "digits"}, "samples"),
    ({"out": "/tmp/x"}, "out"),
]


@pytest.mark.parametrize(("values", "said"), BAD, ids=lambda value: str(value)[:40])
def test_bad_values_are_one_line_and_take_no_place(values: dict[str, Any], said: str, studio: Studio) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        studio.evaluate(form(**values))
    assert "\n" not in str(caught.value)
    assert studio.turns.counts() == {"running": 0, "waiting": 0}


def test_no_line_names_a_place_on_the_server(studio: Studio, own_home: Path) -> None:
    with pytest.raises(UserError) as caught:
        studio.evaluate(form(reference="imagenet256"))
    shown = str(caught.value) + result_words.reference_line("imagenet256") + result_words.evaluated(measured(studio))
    assert str(own_home) not in shown and str(studio.outputs.root) not in shown


def test_the_limit_is_that_of_the_settings(make: Callable[..., Studio]) -> None:
    small = make(max_evaluation=160)
    assert evaluating.asked(form(), small.settings).num == 80
    with pytest.raises(UserError, match="81 images x 2 steps are more than the 160 image steps"):
        small.evaluate(form(number=81))


def test_a_checkpoint_that_is_not_offered_is_not_measured(make: Callable[..., Studio]) -> None:
    with pytest.raises(UserError, match="sit-ti-digits is not offered here"):
        make(models=[NAME]).evaluate(form(model="sit-ti-digits"))


def test_too_few_images_are_refused_in_a_line_and_leave_nothing(studio: Studio) -> None:
    ticket = ended(studio.evaluate(form(number=63)))
    assert ticket.state == "failed" and "63 samples are fewer than the 64 dimensions" in ticket.error
    assert not list(studio.outputs.evaluations.iterdir())
    assert "<p class='hz-status hz-failed' role='alert'>63 samples" in result_words.stopped(ticket)


def test_what_sees_the_images_is_sought_before_the_checkpoint(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise UserError("the Inception weights cannot be had")

    monkeypatch.setattr("hastezoo.evaluation.loading.load_extractor", missing)
    ticket = ended(studio.evaluate(form()))
    assert (ticket.state, ticket.error) == ("failed", "the Inception weights cannot be had")
    assert not studio.shelf.loaded


def test_what_is_not_said_is_the_stated_figures(studio: Studio) -> None:
    figure = next(one for one in CARD.results if one.key == "fid")
    ask = evaluating.asked(forms.read(forms.EvaluateForm, {"model": NAME}), studio.settings)
    assert (ask.reference, ask.features, ask.protocol) == (figure.reference, figure.features, figure.protocol)
    assert ask.num == find_protocol(figure.protocol).count and not ask.overrides


def test_what_is_said_is_asked_for(studio: Studio) -> None:
    said = {"seed": "7", "labels": "balanced", "reference": "digits-test", "number": 90, "high": 0.5, "allow_few": True}
    ask = evaluating.asked(form(protocol="digits", **said), studio.settings)
    assert (ask.seed, ask.labels, ask.reference, ask.num, ask.allow_few) == (7, "balanced", "digits-test", 90, True)
    assert (ask.protocol, ask.device, ask.dtype) == ("digits", "cpu", "float32")
    assert ask.overrides == {"solver": "euler", "steps": 2, "interval": (0.0, 0.5)}


def test_every_reference_is_a_name() -> None:
    assert evaluating.references() == ["digits", "digits-train", "digits-test", *named_references()]
    assert evaluating.is_here("digits") and not evaluating.is_here("imagenet256")


# How far it is.


class Noted:
    """A ticket that notes what is reported."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def report(self, **changes: Any) -> None:
        self.reports.append(changes)

    def check(self) -> None:
        raise Cancelled


def info(index: int, steps: int | None = 4, t: float = 0.0, batch: int = 100) -> Any:
    return SimpleNamespace(index=index, steps=steps, t=t, x=range(batch), evaluations=index + 1)


def watched(count: int = 1000) -> tuple[Watched, list[dict[str, Any]]]:
    ticket = Noted()
    found = Watched(ticket, SimpleNamespace(card=CARD), count)  # type: ignore[arg-type]
    found._next = float("inf")  # no preview of what is predicted
    return found, ticket.reports


def test_the_bar_is_of_what_is_left_to_do() -> None:
    follower, reports = watched()
    follower.images(500)  # were there
    assert reports[-1] == {"text": "500 of 1,000 images", "fraction": 0}
    follower.step(info(1))
    assert reports[-1]["fraction"] == pytest.approx(0.9 * 50 / 500)
    assert (reports[-1]["step"], reports[-1]["steps"], reports[-1]["text"]) == (2, 4, "500 of 1,000 images")
    follower.images(600)
    assert reports[-1] == {"text": "600 of 1,000 images", "fraction": pytest.approx(0.9 * 100 / 500)}
    follower.step(info(0, None, t=0.75))
    assert reports[-1]["fraction"] == pytest.approx(0.9 * 125 / 500)
    follower.stage("FID")
    assert reports[-1]["fraction"] == pytest.approx(0.9) and reports[-1]["step"] == 0
    follower.stage("KID")
    assert 0.9 < reports[-1]["fraction"] < 1 and reports[-1]["text"] == "computing KID"


def test_the_first_images_are_shown_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sheets: list[int] = []

    def noted(pixels: np.ndarray) -> str:
        sheets.append(len(pixels))
        return "data:,"

    monkeypatch.setattr("hastezoo.webapp.following.as_data", noted)
    follower, reports = watched()
    for start in (0, 40, 80):
        follower.see(start, np.zeros((40, 8, 8, 1), np.uint8))
    assert sheets == [40, 64] and len(reports) == 2


def test_a_run_that_goes_on_in_the_middle_shows_no_images_as_the_first() -> None:
    follower, reports = watched()
    follower.see(500, np.zeros((40, 8, 8, 1), np.uint8))
    assert not reports


def test_lines_on_places_are_kept_back_and_still_stop() -> None:
    follower, reports = watched()
    with pytest.raises(Cancelled):
        follower.say("read from /home/somebody")
    assert not reports


def test_pictures_are_seen_while_they_are_drawn(studio: Studio) -> None:
    ticket, previews = studio.evaluate(form(number=200)), set()
    while not ticket.over:
        previews.add(ticket.progress.preview[:22])
        time.sleep(0.002)
    assert "data:image/webp;base64" in previews and ticket.state == "done"


# What is shown when it is done.


def cells(html: str, caption: str) -> list[list[str]]:
    """The rows of a table, by its caption."""
    (body,) = re.findall(rf"<caption[^>]*>{caption}</caption>(.*?)</table>", html, re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def test_the_result_is_the_table_of_the_command_line(studio: Studio) -> None:
    found = measured(studio, number=200)
    typed = CliRunner().invoke(main, [*shlex.split(found.command)[1:], "--out", "typed"], env={"COLUMNS": "200"})
    said = " ".join(typed.output.split())
    html = result_words.evaluated(found)
    head, *rows = cells(html, "The metrics")
    assert head == ["metric", "value", "error", "expected", "comparable"]
    assert [row[0] for row in rows][:2] == ["pixel FD", "pixel precision"] and rows[0][3] == "10.60 measured"
    assert all(" ".join(one for one in row if one) in said for row in rows)
    notes = [html_text(line) for line in re.findall(r"<li>(.*?)</li>", html)]
    assert notes[0].startswith("[1] pixel FD 10.60 measured by benchmarks/digits_quality.py: not comparable, because")
    assert all(line in said for line in notes)
    assert html.count("<img ") == html.count(" alt='") == 2 and "<img src='data:image/png;base64," in html


def result_file(folder: Path, name: str, fid: float, error: float | None, **settings: Any) -> Path:
    """A result.json with these numbers."""
    path = folder / name / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    base = {"model": "m", "protocol": "digits", "count": 1000, "features": "pixels", "labels": "random"}
    sampling = find_protocol("digits").model_dump(mode="json")
    curve = {"count": [500, 1000], "fid": [fid + 1, fid]}
    content = {
        "metrics": {"fid": {"value": fid, "error": error}, "kid": {"value": None, "reason": "few"}},
        "settings": {"sampling": sampling, "reference": {"name": "digits", "identity": "x"}, **base, **settings},
        "curve": curve,
    }
    path.write_text(json.dumps(content))
    return path


def test_two_results_side_by_side_with_the_difference_by_hand(studio: Studio) -> None:
    folder = studio.outputs.evaluations
    result_file(folder, "eval-a", 10.0, 0.3)
    result_file(folder, "eval-b", 11.5, 0.4)
    html = side_by_side.show(studio, "eval-a/result.json", "eval-b/result.json")
    head, fid, kid = cells(html, "Metrics side by side")
    assert head == ["metric", "A", "B", "B - A"]
    # 11.5 - 10.0, and the root of 0.3**2 + 0.4**2; 1.5 is more than two of these.
    assert fid == ["pixel FD", "10.00 ± 0.30", "11.50 ± 0.40", "+1.50 ± 0.50 (beyond the noise)"]
    assert kid == ["pixel KD", "-", "-", "-"]
    assert "the two can be compared" in html and "alt='Plot of the distances of m and m'" in html


def test_what_forbids_to_compare_is_said(studio: Studio) -> None:
    folder = studio.outputs.evaluations
    result_file(folder, "eval-a", 10.0, 0.3)
    result_file(folder, "eval-b", 11.5, None, count=500, labels="balanced")
    html = side_by_side.show(studio, "eval-a/result.json", "eval-b/result.json")
    assert "Not comparable, because" in html
    assert "<li>samples 1,000 and 500</li><li>labels random and balanced</li>" in html
    assert ["count", "1000", "500"] in cells(html, "Settings that differ")
    assert cells(html, "Metrics side by side")[1][3] == "+1.50 (no error known)"


def test_other_features_are_shown_without_a_picture(studio: Studio) -> None:
    folder = studio.outputs.evaluations
    result_file(folder, "eval-a", 10.0, 0.3)
    result_file(folder, "eval-b", 11.5, 0.4, features="inception")
    html = side_by_side.show(studio, "eval-a/result.json", "eval-b/result.json")
    assert "<img" not in html and "features pixels and inception" in html


def test_what_is_in_a_result_is_escaped(studio: Studio) -> None:
    bad = "<script>alert(1)</script>"
    folder = studio.outputs.evaluations
    a = result_file(folder, "eval-a", 10.0, 0.3, model=bad, protocol=bad, device=bad, versions={bad: bad}, vae=bad)
    result_file(folder, "eval-b", 11.5, 0.4, vae=f"{bad}'\"", reference={"name": bad})
    html = side_by_side.show(studio, "eval-a/result.json", "eval-b/result.json")
    result = studio.result("eval-a/result.json").result
    html += result_words.evaluated(evaluating.Evaluated(result, [a], "", 1.0, [bad])) + words.outcome(bad)
    assert "<script" not in html and "&lt;script&gt;" in html


def test_results_are_listed_newest_first_with_what_they_are_of(studio: Studio) -> None:
    folder = studio.outputs.evaluations
    for age, name in enumerate(["eval-new", "eval-old"]):
        path = result_file(folder, name, 10.0, 0.3, count=1000 + age)
        os.utime(path, (2e9 - 86400 * age,) * 2)
    older = folder / "eval-new" / "result-1.json"
    older.write_text((folder / "eval-new" / "result.json").read_text())
    os.utime(older, (2e9 - 3 * 86400,) * 2)
    (folder / "eval-broken").mkdir()
    (folder / "eval-broken" / "result.json").write_text("{")
    found = studio.results()
    assert [one.id for one in found] == ["eval-new/result.json", "eval-old/result.json", "eval-new/result-1.json"]
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(2e9))
    assert found[0].label == f"m, digits, 1,000 images, {day}"
    first, second = side_by_side.choices(studio)
    assert first["choices"] == second["choices"] == [(one.label, one.id) for one in found]


@pytest.mark.parametrize("id", ["../../secret/result.json", "/etc/passwd", "eval-x/result.json", ["a"], 3, "eval-a"])
def test_a_result_is_asked_for_by_a_name_of_the_list(id: Any, studio: Studio, tmp_path: Path) -> None:
    result_file(studio.outputs.evaluations, "eval-a", 10.0, 0.3)
    result_file(tmp_path, "secret", 1.0, None)
    html = side_by_side.show(studio, "eval-a/result.json", id)
    assert "hz-failed" in html and "is there no longer" in html and "<table" not in html


# The tab.


def shown(studio: Studio, **values: Any) -> dict[str, Any]:
    """The fields as the tab shows them."""
    names = ["family", "line", "stated", "about", *evaluate.fields_of(CARD)]
    return dict(zip(names, evaluate.show(studio, values), strict=True))


def test_choosing_a_checkpoint_sets_everything_as_its_figure_was_taken(studio: Studio) -> None:
    found = shown(studio, model=NAME)
    assert {key: found[key] for key in ("reference", "number", "seed", "labels", "protocol", "steps", "cfg")} == {
        "reference": "digits", "number": 1797, "seed": "0", "labels": "random", "protocol": "digits-nocfg", "steps": 25,
        "cfg": 1.0,
    }  # fmt: skip
    assert "pixel FD 10.6 over 1,797 images, protocol digits-nocfg, measured by" in found["stated"]
    other = shown(studio, model="sit-xl-haste")
    assert (other["reference"], other["number"], other["cfg"], other["high"]) == ("imagenet256", 50_000, 1.65, 0.72)
    assert "not here" in other["about"] and "reported by HASTE abstract" in other["stated"]
    assert "does not take" in shown(studio, model=TEXT)["stated"]


def test_a_link_sets_some_fields_and_its_protocol_the_others(studio: Studio) -> None:
    found = shown(studio, model=NAME, protocol="digits", number="50", seed=str(2**63 - 1), labels="balanced")
    assert (found["number"], found["seed"], found["labels"]) == (50, str(2**63 - 1), "balanced")
    assert (found["cfg"], shown(studio, protocol="digits")["number"]) == (2.0, 1000)


@pytest.mark.parametrize(
    "values", [{"model": "nothing"}, {"protocol": "nothing"}, {"reference": "x.npz"}, {"number": "x"}, {"seed": "-1"}]
)
def test_a_link_to_what_is_not_there_says_so(values: dict[str, Any], studio: Studio) -> None:
    with pytest.raises(gr.Error):
        evaluate.show(studio, values)


@pytest.mark.parametrize("name", [card.name for card in list_cards()])
def test_every_checkpoint_can_be_shown(name: str, studio: Studio) -> None:
    assert shown(studio, model=name)["model"]["value"] == name


def test_the_tab_is_built_as_the_figure_was_taken(studio: Studio) -> None:
    with gr.Blocks():
        tab = evaluate.build(studio)
    assert {key: field.value for key, field in tab.fields.items()} == evaluate.fields_of(CARD)
    assert len(tab.shown) == len(evaluate.show(studio, {}))
