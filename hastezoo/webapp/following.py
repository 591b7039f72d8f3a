"""What is seen of an evaluation under way: how far it is, and the first of its images as they come."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hastezoo.evaluation.following import Follower
from hastezoo.evaluation.run import GRID
from hastezoo.webapp.preview import OFTEN, SHARE, as_data, seen
from hastezoo.webapp.turns import Ticket

if TYPE_CHECKING:
    from hastezoo.evaluation.images import Images
    from hastezoo.pipeline import Pipeline
    from hastezoo.sampling.solvers import StepInfo

DRAWING = 0.9  # of an evaluation's time; the rest goes to the metrics
STAGES = 5  # metrics at most
SMALL = 32  # side in pixels up to which many images are shown
MANY, SOME = 64, 16  # images shown of small ones, and of large ones
WIDEST = 1040  # pixels of a sheet that is shown


class Watched(Follower):
    """Turns an evaluation's progress into a ticket's.

    Args:
        ticket: Told; it stops the evaluation by raising Cancelled.
        pipeline: That draws.
        count: Images in all.
    """

    def __init__(self, ticket: Ticket, pipeline: Pipeline, count: int) -> None:
        self.ticket, self.pipeline, self.count = ticket, pipeline, count
        self.notes: list[str] = []
        self.most = MANY if pipeline.card.resolution <= SMALL else SOME
        self._done = self._stages = 0
        self._begun: int | None = None
        self._first: list[np.ndarray] = []
        self._next = 0.0

    def say(self, text: str) -> None:
        """Where statistics are kept is the server's own affair."""
        self.ticket.check()

    def warn(self, text: str) -> None:
        """What to know before the numbers are believed: kept for the result."""
        self.notes.append(text)

    def reference(self, done: int, total: int) -> None:
        """So many of the reference's images were seen."""
        self.ticket.report(text=f"looking at the reference: {done:,} of {total:,} images")

    def images(self, done: int) -> None:
        """So many samples have their features."""
        self._done = done
        self.ticket.report(text=self._text(), fraction=self._fraction(done))

    def step(self, info: StepInfo) -> None:
        """A step of a batch was taken."""
        if self._begun is None:
            self._begun = self._done
        share = (info.index + 1) / info.steps if info.steps else 1 - info.t
        self.ticket.report(
            text=self._text(),
            fraction=self._fraction(self._done + share * len(info.x)),
            step=info.index + 1,
            steps=info.steps,
            evaluations=info.evaluations,
            **self._predicted(info),
        )

    def stage(self, text: str) -> None:
        """What is being computed of them."""
        self._stages = min(self._stages + 1, STAGES)
        fraction = DRAWING + (1 - DRAWING) * (self._stages - 1) / STAGES
        self.ticket.report(text=f"computing {text}", fraction=fraction, step=0, steps=None, evaluations=0)

    def see(self, start: int, pixels: np.ndarray) -> None:
        """A batch is drawn, from the image of that number on; the first ones are shown."""
        if start == len(self._sheet()) and start < self.most:
            self._first.append(pixels)
            self.ticket.report(preview=as_data(self._sheet()))

    def look(self, folder: Path) -> None:
        """Show the first images of an evaluation that goes on."""
        if (folder / GRID).exists():
            self._next = float("inf")  # they are there, so none has to be predicted
            self.ticket.report(preview=picture(folder / GRID))

    def _text(self) -> str:
        return f"{self._done:,} of {self.count:,} images"

    def _fraction(self, images: float) -> float:
        """Of what is left to do, so that the time that is left can be told from it."""
        begun = self._done if self._begun is None else self._begun
        return DRAWING * max(0.0, images - begun) / max(1, self.count - begun)

    def _sheet(self) -> np.ndarray:
        return np.concatenate(self._first)[: self.most] if self._first else np.empty((0, 1, 1, 1), np.uint8)

    def _predicted(self, info: StepInfo) -> dict[str, str]:
        """The first images that are done, and what is predicted of those after them."""
        began = time.monotonic()
        room = self.most - len(self._sheet())
        if began < self._next or room <= 0:
            return {}
        found = as_data(np.concatenate([*self._first, seen(self.pipeline, info)[:room]]))
        ended = time.monotonic()
        self._next = ended + max(OFTEN, (ended - began) / SHARE)
        return {"preview": found}


class Shown:
    """Images that somebody looks at while they are drawn; to an evaluation they are the same.

    Args:
        images: That are drawn.
        see: Handed the number of the first image of a batch, and the batch.
    """

    def __init__(self, images: Images, see: Callable[[int, np.ndarray], None]) -> None:
        self._images, self._see = images, see
        self.description, self.identity, self.count = images.description, images.identity, images.count
        self.shape, self.lossy, self.labels = images.shape, images.lossy, images.labels

    def read(self, start: int, stop: int) -> np.ndarray:
        """Draw a batch, and show it."""
        pixels = self._images.read(start, stop)
        self._see(start, pixels)
        return pixels


def picture(path: Path) -> str:
    """A picture as a data address, no wider than it is shown; small ones without loss."""
    with Image.open(path) as image:
        if image.width <= WIDEST:
            return _address("png", path.read_bytes())
        small = image.convert("RGB")
        small.thumbnail((WIDEST, WIDEST * 4))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return _address("webp", buffer.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
