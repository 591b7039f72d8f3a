"""Comparisons and sweeps against calls of the pipeline with the same settings."""

from __future__ import annotations

import functools
import json
import shlex
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hastezoo import pictures
from hastezoo.axes import CELL
from hastezoo.cli.main import main
from hastezoo.pipeline import Pipeline
from hastezoo.sampling.protocol import Protocol
from hastezoo.sampling.solvers import StepInfo
from hastezoo.webapp import comparing
from hastezoo.webapp.columns import CompareForm, SweepForm, read_comparison
from hastezoo.webapp.comparing import Comparison, Sweep, differences
from hastezoo.webapp.forms import read
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.turns import Ticket

SAMPLERS: tuple[dict[str, Any], ...] = (
    {"model": "sit-ti-digits", "solver": "euler", "steps": 6},
    {"model": "sit-ti-digits-repa", "solver": "heun", "steps": 40, "cfg": 1.5, "low": 0.1, "high": 0.8},
    {"model": "sit-ti-digits-haste", "solver": "euler-maruyama", "steps": 5, "protocol": "digits-nocfg"},
)
SUBJECT = {"classes": [3, "seven"], "number": 5, "seed": 11}


def wait(ticket: Ticket) -> Ticket:
    """Until the ticket is over."""
    end = time.monotonic() + 120
    while not ticket.over:
        assert time.monotonic() < end, ticket.progress
        time.sleep(0.01)
    return ticket


def studio_in(folder: Path) -> Studio:
    return Studio(AppSettings(outputs=folder, device="cpu"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three columns of ten images."""
    with closing(studio_in(tmp_path_factory.mktemp("compare"))) as studio:
        ticket = wait(studio.compare(read_comparison(SUBJECT, SAMPLERS)))
    assert ticket.state == "done", ticket.error
    return ticket.result


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Two seeds of two classes with three scales, one of them the protocol's own."""
    values = {"model": "sit-ti-digits", "classes": [3, 7], "number": 2, "steps": 4, "values": "2, 1, 3.5"}
    with closing(studio_in(tmp_path_factory.mktemp("sweep"))) as studio:
        ticket = wait(studio.sweep(read(SweepForm, values)))
    assert ticket.state == "done", ticket.error
    return ticket.result


@functools.cache
def direct(place: int) -> tuple[Any, list[StepInfo]]:
    """What the pipeline draws with the settings of a column, and its steps."""
    given, seen = dict(SAMPLERS[place]), list[StepInfo]()
    model, low, high = given.pop("model"), given.pop("low", 0.0), given.pop("high", 1.0)
    pipe = Pipeline.from_pretrained(model, device="cpu")
    classes, seeds = [3] * 5 + [7] * 5, [*range(11, 16)] * 2
    return pipe(classes=classes, seeds=seeds, interval=(low, high), callback=seen.append, **given), seen


def read_all(files: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in files])[..., None]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_column_is_what_the_pipeline_draws(compared: Comparison, place: int) -> None:
    column, (wanted, _) = compared.columns[place], direct(place)
    assert np.array_equal(read_all(column.drawn.files), wanted.pixels)
    assert (column.letter, column.drawn.request.model) == ("ABC"[place], SAMPLERS[place]["model"])
    assert (column.drawn.evaluations, column.drawn.passes) == (wanted.evaluations, wanted.passes)
    assert [caption.split(" · ")[0] for caption in column.drawn.captions] == ["3 three"] * 5 + ["7 seven"] * 5


def bytes_of(x: torch.Tensor, rounding: str) -> np.ndarray:
    """[-1, 1] (B, C, H, W) -> uint8 (B, H, W, C), anew."""
    scaled = 127.5 * x.numpy() + 128 if rounding == "nearest" else 255 * (x.numpy() + 1) / 2
    return np.clip(np.floor(scaled), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["x", "clean"])
def test_frames_are_the_states_of_a_direct_run(compared: Comparison, place: int, kind: str) -> None:
    wanted, seen = direct(place)
    stride = -(-len(seen) // comparing.PIXEL_FRAMES)
    kept = seen[::stride]
    film = compared.columns[place].film
    assert film.times == pytest.approx([*(info.t for info in kept), 0.0])
    files = film.states if kind == "x" else film.cleans
    rounding = wanted.protocol.rounding
    frames = [*(bytes_of(getattr(info, kind), rounding)[:8] for info in kept), wanted.pixels[:8]]
    assert len(files) == len(frames) <= comparing.PIXEL_FRAMES + 1
    for file, frame in zip(files, frames, strict=True):
        sheet = np.asarray(pictures.grid(frame, 4))
        assert np.array_equal(np.asarray(Image.open(file).convert("L")), sheet)


def test_only_what_is_not_the_same_everywhere_is_said(compared: Comparison) -> None:
    assert [column.differs for column in compared.columns] == [
        {"checkpoint": "sit-ti-digits", "solver": "euler", "steps": "6", "cfg": "2", "interval": "0 to 1"},
        {"checkpoint": "sit-ti-digits-repa", "solver": "heun", "steps": "40", "cfg": "1.5", "interval": "0.1 to 0.8"},
        {
            "checkpoint": "sit-ti-digits-haste", "solver": "euler-maruyama", "steps": "5", "cfg": "1",
            "interval": "0 to 1",
        },
    ]  # fmt: skip
    assert [column.protocol for column in compared.columns] == ["digits", "digits", "digits-nocfg"]


def test_steps_that_a_solver_ignores_are_not_told() -> None:
    same = differences([("a", Protocol(steps=5)), ("a", Protocol(steps=5, count=50_000))])
    assert same == [{}, {}]
    told = differences([("a", Protocol(steps=5)), ("a", Protocol(steps=5, solver="dopri5"))])
    assert told == [{"solver": "euler-maruyama", "steps": "5"}, {"solver": "dopri5", "steps": "its own"}]


def test_the_zip_has_all_and_nothing_twice(compared: Comparison) -> None:
    folder = compared.archive.parent
    with zipfile.ZipFile(compared.archive) as archive:
        names = archive.namelist()
        for column in compared.columns:
            for file in [*column.drawn.files, *column.film.states, *column.film.cleans, column.drawn.grid]:
                assert archive.read(file.relative_to(folder).as_posix()) == file.read_bytes()
            assert json.loads(archive.read(f"{column.letter}/frames/times.json")) == column.film.times
            assert f"{column.letter}/samples.json" in names
        commands = archive.read("commands.txt").decode().splitlines()
    assert commands == [column.drawn.command for column in compared.columns]
    assert len(set(names)) == len(names) and not [name for name in names if name.endswith(".zip")]


def test_a_columns_command_draws_its_images(compared: Comparison, tmp_path: Path) -> None:
    column = compared.columns[1]
    main([*shlex.split(column.drawn.command)[1:], "--out", str(tmp_path / "again")], standalone_mode=False)
    for file in column.drawn.files:
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_two_columns_suffice_and_one_image_does(studio: Studio) -> None:
    ticket = wait(studio.compare(read_comparison({"number": 1}, SAMPLERS[:2])))
    assert [column.film.images for column in ticket.result.columns] == [1, 1]
    assert sorted(path.name for path in ticket.result.archive.parent.iterdir() if path.is_dir()) == ["A", "B"]


def form_of(kind: str) -> tuple[CompareForm | SweepForm, str]:
    """Two columns of which the second takes long, and what is said of it."""
    if kind == "sweep":
        values = {"model": "sit-ti-digits", "number": 2, "axis": "steps", "values": "2, 900"}
        return read(SweepForm, values), "steps 900"
    long = {"model": "sit-ti-digits-repa", "steps": 900}
    return read_comparison({"number": 2}, [{"model": "sit-ti-digits", "steps": 2}, long]), "B, sit-ti-digits-repa"


@pytest.mark.parametrize("kind", ["compare", "sweep"])
def test_a_cancel_in_the_second_column_leaves_nothing_and_frees_the_queue(kind: str, studio: Studio) -> None:
    form, said = form_of(kind)
    ticket = getattr(studio, kind)(form)
    end = time.monotonic() + 60
    while not (ticket.progress.text == said and ticket.progress.step > 3):
        assert time.monotonic() < end and not ticket.over, (ticket.state, ticket.error, ticket.progress)
        time.sleep(0.002)
    assert 0.5 < ticket.progress.fraction < 0.6 and ticket.progress.preview.startswith("data:image/webp")
    assert list(studio.outputs.images.iterdir())  # the first column is there
    studio.turns.cancel(ticket.id)
    step = ticket.progress.step
    assert wait(ticket).state == "cancelled" and ticket.progress.step <= step + 1
    assert not list(studio.outputs.images.iterdir()) and ticket.result is None
    again = wait(studio.compare(read_comparison({"number": 1}, [{**SAMPLERS[0]}, {**SAMPLERS[0]}])))
    assert again.state == "done", again.error


def test_a_column_that_fails_takes_the_others_with_it(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    form = read_comparison({"number": 1, "prompts": "a dog"}, [{"model": "mmdit-coco"}, {"model": "mmdit-coco-haste"}])
    ticket = wait(studio.compare(form))
    assert ticket.state == "failed" and "mmdit-coco" in ticket.error and "\n" not in ticket.error
    form = read_comparison({"number": 1}, [SAMPLERS[0], SAMPLERS[1]])

    def failing(*arguments: Any) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(comparing, "pack_all", failing)
    ticket = wait(studio.compare(form))
    assert ticket.state == "failed" and not list(studio.outputs.images.iterdir())


def test_a_sweep_draws_what_the_pipeline_draws(swept: Sweep) -> None:
    assert (swept.axis, swept.labels) == ("cfg", ["2", "1", "3.5"])
    assert swept.rows == ["3 three · seed 0", "3 three · seed 1", "7 seven · seed 0", "7 seven · seed 1"]
    pipe = Pipeline.from_pretrained("sit-ti-digits", device="cpu")
    for column, cfg in zip(swept.columns, (2, 1, 3.5), strict=True):
        wanted = pipe(classes=[3, 3, 7, 7], seeds=[0, 1, 0, 1], steps=4, cfg=cfg).pixels
        assert np.array_equal(read_all(column.files), wanted)


def test_the_picture_of_a_sweep_has_each_image_in_its_place(swept: Sweep) -> None:
    picture = np.asarray(Image.open(swept.picture))
    step = CELL + pictures.GAP
    left, top = picture.shape[1] - pictures.GAP - 3 * step, picture.shape[0] - pictures.GAP - 4 * step
    for across, column in enumerate(swept.columns):
        for down, image in enumerate(read_all(column.files)):
            y, x = top + down * step, left + across * step
            wanted = np.broadcast_to(image.repeat(CELL // 8, 0).repeat(CELL // 8, 1), (CELL, CELL, 3))
            assert np.array_equal(picture[y : y + CELL, x : x + CELL], wanted)


def test_the_zip_of_a_sweep_has_the_picture_and_the_commands(swept: Sweep) -> None:
    with zipfile.ZipFile(swept.archive) as archive:
        assert archive.read("sweep.png") == swept.picture.read_bytes()
        assert archive.read("commands.txt").decode().splitlines() == [one.command for one in swept.columns]
        assert f"cfg-3.5/{swept.columns[2].files[0].name}" in archive.namelist()


def test_large_frames_lose_little_and_small_ones_nothing(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    smooth = np.broadcast_to(ramp[None, None, :, None], (4, 256, 256, 3))
    large = np.asarray(Image.open(comparing.save_frame(tmp_path, "large", smooth)), dtype=int)
    sheet = np.asarray(pictures.grid(smooth, 2), dtype=int)
    assert large.shape == sheet.shape and 0 < np.abs(large - sheet).mean() < 2
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    small = np.asarray(Image.open(comparing.save_frame(tmp_path, "small", noise)))
    assert np.array_equal(small, np.asarray(pictures.grid(noise, 4)))
