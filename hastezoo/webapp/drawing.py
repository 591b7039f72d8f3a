"""The work of a request for images: a job in a folder of its own, watched."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.files import atomic_open
from hastezoo.webapp.preview import Watcher
from hastezoo.webapp.shelf import Shelf
from hastezoo.webapp.turns import Ticket

if TYPE_CHECKING:
    from hastezoo.asking import Ask
    from hastezoo.pipeline import Pipeline
    from hastezoo.request import Request
    from hastezoo.sampling.solvers import StepInfo

ZIP = "images.zip"


@dataclass(frozen=True)
class Drawn:
    """What came of a request.

    Attributes:
        request: In full.
        folder: With the images, `samples.json`, `grid.png`, and all images as a zip.
        files, captions: Of each image.
        evaluations, passes: Velocities and network passes per image.
        seconds: Spent drawing.
        command, script: What draws the same images again.
        notes: What to know of the prompts.
    """

    request: Request
    folder: Path
    files: list[Path]
    captions: list[str]
    evaluations: int
    passes: int
    seconds: float
    command: str
    script: str
    notes: list[str] = field(default_factory=list)

    @property
    def grid(self) -> Path:
        """All images on a sheet."""
        return self.folder / "grid.png"

    @property
    def archive(self) -> Path:
        """All images, and how they came about."""
        return self.folder / ZIP


@contextmanager
def whole_or_not(folder: Path) -> Iterator[Path]:
    """A folder that is removed unless the block ends well."""
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def draw(
    ticket: Ticket,
    shelf: Shelf,
    ask: Ask,
    folder: Path,
    *,
    part: int = 0,
    of: int = 1,
    name: str = "",
    also: Callable[[Pipeline, Request], Callable[[StepInfo], None]] | None = None,
) -> Drawn:
    """Draw what is asked for into a folder.

    Args:
        ticket: Told of every step; it stops the work.
        shelf: Gives the pipeline.
        ask: What to draw.
        folder: It does not exist yet, and stays only if all goes well.
        part, of, name: Where there are several such requests in one ticket.
        also: Given the pipeline and the request, makes what wants to see every step.

    Raises:
        UserError: If it cannot be drawn.
        Cancelled: If the ticket was cancelled.
    """
    from hastezoo.asking import make_request
    from hastezoo.job import Job

    pipeline = shelf.get(ask.model, ticket)
    with warnings.catch_warnings(record=True) as noted, whole_or_not(folder):
        warnings.simplefilter("always", UserWarning)
        request = make_request(ask, pipeline)
        job = Job(pipeline, request, folder)
        watcher = Watcher(
            ticket,
            pipeline,
            len(request.seeds),
            part=part,
            of=of,
            name=name,
            also=also(pipeline, request) if also else None,
        )
        report = job.run(watcher.update)
        files = [folder / one for one in job.store.names()]
        pack(folder / ZIP, [*files, folder / "samples.json"])
    return Drawn(
        request=request,
        folder=folder,
        files=files,
        captions=captions(request, pipeline.conditions),
        evaluations=report.evaluations,
        passes=report.passes,
        seconds=report.seconds,
        notes=[str(one.message) for one in noted if issubclass(one.category, UserWarning)],
        **said(request, ask),
    )


def said(request: Request, ask: Ask) -> dict[str, str]:
    """The same request as a command and as Python."""
    from hastezoo.commands import as_command, as_python

    device = None if ask.device == "auto" else ask.device
    return {"command": as_command(request, device=device), "script": as_python(request)}


def captions(request: Request, conditions: Any) -> list[str]:
    """What each image is of, and its seed."""
    from hastezoo.conditioning.prompts import shown

    texts = request.asked
    named = [shown(one) if isinstance(one, str) else f"{one} {conditions.names[one]}" for one in texts]
    return [f"{text} · seed {seed}" for text, seed in zip(named, request.seeds, strict=True)]


def pack(path: Path, files: Sequence[Path]) -> None:
    """Files as a zip, whole or not at all; the same files make the same bytes. Images are compressed already."""
    with atomic_open(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
