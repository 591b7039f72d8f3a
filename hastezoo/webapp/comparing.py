"""The work of Compare: columns drawn one after the other, and what is to be seen of them together."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hastezoo import pictures
from hastezoo.axes import labelled_grid
from hastezoo.files import atomic_open, atomic_write, write_json
from hastezoo.webapp.columns import LETTERS
from hastezoo.webapp.drawing import ZIP, Drawn, draw, whole_or_not
from hastezoo.webapp.shelf import Shelf
from hastezoo.webapp.turns import Ticket
from hastezoo.zoo.registry import make_protocol

if TYPE_CHECKING:
    from hastezoo.asking import Ask
    from hastezoo.pipeline import Pipeline
    from hastezoo.request import Request
    from hastezoo.sampling.protocol import Protocol
    from hastezoo.sampling.solvers import StepInfo

PIXEL_IMAGES, PIXEL_FRAMES = 8, 24  # followed on their way
LATENT_IMAGES, LATENT_FRAMES = 4, 12  # every frame is decoded twice, which is dear
SMALL = 300 * 300  # pixels of a frame that is stored without loss
COMPARISON, SWEEP, PICTURE, COMMANDS = "comparison.zip", "sweep.zip", "sweep.png", "commands.txt"
UNSEEN = ("count", "labels")  # settings of a protocol that decide no image that was asked for


@dataclass(frozen=True)
class Film:
    """The way from noise to the images, of the first few of them.

    Attributes:
        times: Of each frame, from 1 (noise) down to 0 (the images).
        states, cleans: A file a frame: the state x_t, and the clean images that are predicted from it; at 0 both are
            the images.
        images: How many a frame shows.
    """

    times: list[float]
    states: list[Path]
    cleans: list[Path]
    images: int


@dataclass(frozen=True)
class Column:
    """One way of drawing the images.

    Attributes:
        letter: A, B, C.
        protocol: Name of the one that was chosen.
        differs: The settings that are not the same in every column.
        drawn: What came of it.
        film: How it came.
    """

    letter: str
    protocol: str
    differs: dict[str, str]
    drawn: Drawn
    film: Film


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison: its columns, and all their files as a zip."""

    columns: list[Column]
    archive: Path


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes:
        axis, labels: What was varied, and its values.
        rows: What each row is of.
        columns: What came of each value.
        picture: All of them, with labels.
        archive: All files as a zip.
    """

    axis: str
    labels: list[str]
    rows: list[str]
    columns: list[Drawn]
    picture: Path
    archive: Path


class Follower:
    """Keeps frames of a run: the states, and the predicted clean images.

    Args:
        pipeline: That draws.
        request: What it draws.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        from hastezoo.trajectory import Frames

        pixels = pipeline.card.autoencoder.kind == "identity"
        limit, frames = (PIXEL_IMAGES, PIXEL_FRAMES) if pixels else (LATENT_IMAGES, LATENT_FRAMES)
        self.states, self.cleans = (
            Frames(pipeline.autoencoder, request.protocol.rounding, limit=limit, frames=frames, clean=clean)
            for clean in (False, True)
        )

    def __call__(self, step: StepInfo) -> None:
        """See a step."""
        self.states(step)
        self.cleans(step)

    def save(self, folder: Path, files: Sequence[Path]) -> Film:
        """Write the frames.

        Args:
            folder: Made for them.
            files: The images that were drawn; the first of them are the last frame.
        """
        count = len(self.states.states[0])
        ended = read_images(files[:count])
        times = [*self.states.times, 0.0]
        folder.mkdir()
        write_json(folder / "times.json", times)
        saved = [
            [save_frame(folder, f"{name}_{index:03}", state) for index, state in enumerate([*frames.states, ended])]
            for name, frames in (("state", self.states), ("clean", self.cleans))
        ]
        return Film(times, saved[0], saved[1], count)


def read_images(files: Sequence[Path]) -> np.ndarray:
    """PNG files of one size as uint8 (N, H, W, 1 or 3)."""
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(np.asarray(image))
    return np.stack([image[..., None] if image.ndim == 2 else image for image in images])


def save_frame(folder: Path, name: str, pixels: np.ndarray) -> Path:
    """Images (N, H, W, C) on a sheet, as WebP; a large one loses a little."""
    sheet = pictures.grid(pixels, columns=len(pixels) if len(pixels) < 4 else -(-len(pixels) // 2))
    path = folder / f"{name}.webp"
    with atomic_open(path) as stream:
        sheet.save(stream, "WEBP", lossless=sheet.width * sheet.height <= SMALL, quality=90)
    return path


def compare(ticket: Ticket, shelf: Shelf, asks: Sequence[Ask], folder: Path) -> Comparison:
    """Draw the same images in several ways, one after the other.

    Args:
        ticket: Told of every step; it stops the work.
        shelf: Gives the pipelines.
        asks: A column each.
        folder: It does not exist yet, and stays only if all goes well; each column has a folder in it.

    Raises:
        UserError: If something cannot be drawn.
        Cancelled: If the ticket was cancelled.
    """
    with whole_or_not(folder):
        drawn = []
        for part, (letter, ask) in enumerate(zip(LETTERS, asks, strict=False)):
            drawn.append(_draw_followed(ticket, shelf, ask, folder / letter, part=part, of=len(asks)))
        archive = pack_all(folder, COMPARISON, [one.command for one, _ in drawn])
    differing = differences([(one.request.model, one.request.protocol) for one, _ in drawn])
    columns = [
        Column(letter, str(ask.protocol), differs, one, film)
        for letter, ask, differs, (one, film) in zip(LETTERS, asks, differing, drawn, strict=False)
    ]
    return Comparison(columns, archive)


def _draw_followed(ticket: Ticket, shelf: Shelf, ask: Ask, folder: Path, *, part: int, of: int) -> tuple[Drawn, Film]:
    """Draw a column; the folder's name is its letter."""
    followers: list[Follower] = []

    def follow(pipeline: Pipeline, request: Request) -> Follower:
        followers.append(Follower(pipeline, request))
        return followers[0]

    name = f"{folder.name}, {ask.model}"
    drawn = draw(ticket, shelf, ask, folder, part=part, of=of, name=name, also=follow)
    return drawn, followers[0].save(folder / "frames", drawn.files)


def differences(columns: Sequence[tuple[str, Protocol]]) -> list[dict[str, str]]:
    """Of each column, its checkpoint's name and the settings of its protocol that are not the same in all."""
    told = [{"checkpoint": model, **protocol.model_dump(exclude=set(UNSEEN))} for model, protocol in columns]
    for one in told:
        one["steps"] = "its own" if one["solver"] == "dopri5" else one["steps"]
    keys = [key for key in told[0] if any(one[key] != told[0][key] for one in told)]
    return [{key: _said(one[key]) for key in keys} for one in told]


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_said, value))
    return f"{value:g}" if isinstance(value, float) else "all" if value is None else str(value)


def pack_all(folder: Path, name: str, commands: Sequence[str]) -> Path:
    """Everything in a folder as a zip in it, with the commands as a text beside; the zips inside are left out."""
    atomic_write(folder / COMMANDS, "".join(f"{command}\n" for command in commands).encode())
    with atomic_open(folder / name) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and path.name != ZIP and not path.name.startswith("."):
                archive.writestr(zipfile.ZipInfo(inner.as_posix()), path.read_bytes())
    return folder / name


def sweep(ticket: Ticket, shelf: Shelf, asks: Sequence[Ask], folder: Path, axis: str) -> Sweep:
    """Draw the same images with each value of a setting, and make one picture of all.

    Args:
        ticket: Told of every step; it stops the work.
        shelf: Gives the pipeline.
        asks: A column each.
        folder: It does not exist yet, and stays only if all goes well.
        axis: The setting that differs.

    Raises:
        UserError: If something cannot be drawn.
        Cancelled: If the ticket was cancelled.
    """
    drawn, labels = [], []
    with whole_or_not(folder):
        for part, ask in enumerate(asks):
            labels.append(_said(getattr(make_protocol(str(ask.protocol), ask.overrides), axis)))
            place, name = folder / f"{axis}-{labels[-1]}", f"{axis} {labels[-1]}"
            drawn.append(draw(ticket, shelf, ask, place, part=part, of=len(asks), name=name))
        rows = drawn[0].captions
        pixels = np.stack([read_images(one.files) for one in drawn], axis=1)
        picture = labelled_grid(pixels, labels, ["\n".join(row.rsplit(" · ", 1)) for row in rows], corner=f"{axis} =")
        atomic_write(folder / PICTURE, pictures.encode(picture, "png"))
        archive = pack_all(folder, SWEEP, [one.command for one in drawn])
    return Sweep(axis, labels, rows, drawn, folder / PICTURE, archive)
