"""What is seen of a run under way: how far it is, and the clean images that it predicts."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hastezoo import pictures
from hastezoo.webapp.turns import Ticket

if TYPE_CHECKING:
    import numpy as np

    from hastezoo.pipeline import Pipeline
    from hastezoo.sampling.solvers import StepInfo

SHARE = 0.1  # of the time, at most, that previews may cost
PIXEL_IMAGES, LATENT_IMAGES = 16, 4  # shown of a batch: decoding latents is dear
OFTEN = 0.2  # seconds between two previews at least


class Watcher:
    """Turns a job's progress into a ticket's.

    Args:
        ticket: Told; it stops the run by raising Cancelled.
        pipeline: That draws.
        total: Images of the job.
        part, of: Which of several jobs of a ticket this is, counted from 0.
        name: In front of what is said, where there are several.
        also: Wants to see every step too.
    """

    def __init__(
        self,
        ticket: Ticket,
        pipeline: Pipeline,
        total: int,
        *,
        part: int = 0,
        of: int = 1,
        name: str = "",
        also: Callable[[StepInfo], None] | None = None,
    ) -> None:
        self.ticket, self.pipeline, self.total = ticket, pipeline, total
        self.part, self.of, self.name, self.also = part, of, name, also
        self._next = 0.0

    def update(self, done: int, step: StepInfo | None) -> None:
        """So many images are done; of the batch under way, the step just taken.

        Raises:
            Cancelled: If the ticket was cancelled.
        """
        if step is None:
            self.ticket.report(fraction=self._overall(done))
            return
        if self.also is not None:
            self.also(step)
        share = (step.index + 1) / step.steps if step.steps else 1 - step.t
        images = f", {done} of {self.total} images done" if done else ""
        self.ticket.report(
            text=f"{self.name}{images}".removeprefix(", "),
            fraction=self._overall(done + share * len(step.x)),
            step=step.index + 1,
            steps=step.steps,
            evaluations=step.evaluations,
            **self._preview(step),
        )

    def _overall(self, images: float) -> float:
        return (self.part + images / self.total) / self.of

    def _preview(self, step: StepInfo) -> dict[str, str]:
        began = time.monotonic()
        if began < self._next:
            return {}
        found = as_data(seen(self.pipeline, step))
        ended = time.monotonic()
        self._next = ended + max(OFTEN, (ended - began) / SHARE)
        return {"preview": found}


def seen(pipeline: Pipeline, step: StepInfo) -> np.ndarray:
    """The first predicted clean images of a step, uint8 (B, H, W, C)."""
    from hastezoo.autoencoders import to_bytes

    most = PIXEL_IMAGES if pipeline.card.autoencoder.kind == "identity" else LATENT_IMAGES
    return to_bytes(pipeline.autoencoder.decode(step.clean[:most]), "nearest").cpu().numpy()


def as_data(pixels: np.ndarray) -> str:
    """A grid of images as a data address: no file is left behind. Large ones are compressed with loss."""
    sheet = pictures.grid(pixels)
    buffer = io.BytesIO()
    small = sheet.width * sheet.height <= 300**2
    sheet.save(buffer, "WEBP", lossless=small, quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
