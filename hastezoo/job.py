"""A sampling job: a request in, image files out. It streams, can be interrupted, and repeats itself exactly.

Images are made in fixed batches of the request's order. A batch whose files are all there is skipped; any other is
drawn whole, so that every image meets the same neighbours, and comes out the same, in an interrupted run.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hastezoo import __version__, pictures
from hastezoo.conditioning.conditions import Labels
from hastezoo.conditioning.prompts import clean
from hastezoo.conditioning.words import refuse_unread
from hastezoo.errors import UserError
from hastezoo.files import atomic_write, write_json
from hastezoo.pipeline import Batch, Pipeline
from hastezoo.request import RECORD, Request, dumped, png_text, read_record
from hastezoo.sampling.solvers import StepInfo
from hastezoo.stores import ArrayFile, ImageFiles, Store
from hastezoo.trajectory import Frames

GRID_LIMIT = 100  # images shown in a grid


@dataclass
class Report:
    """What a job did.

    Attributes:
        made, found: Images drawn now, and images that were there already.
        evaluations, passes: Velocities and network passes per image.
        seconds: Spent drawing.
        files: The pictures to look at, best first.
    """

    made: int = 0
    found: int = 0
    evaluations: int = 0
    passes: int = 0
    seconds: float = 0.0
    files: list[Path] = field(default_factory=list)


Progress = Callable[[int, StepInfo | None], None]
"""Called with the number of finished images, and the step under way or None at the end of a batch."""


def _has_images(folder: Path) -> bool:
    """Whether a folder with a record holds more than it: a job that failed before its first batch left nothing else."""
    if not (folder / RECORD).exists():
        return False
    return any(path.name != RECORD and not path.name.startswith(".") for path in folder.iterdir())


class Job:
    """Runs a request into a folder.

    Args:
        pipeline: Loaded for the request.
        request: What to draw.
        out: The folder; made if needed.
        grid, trajectory: Which pictures to make beside the images.

    Raises:
        UserError: If the folder cannot be written, or holds the images of another request, or a label is no class.
    """

    def __init__(
        self, pipeline: Pipeline, request: Request, out: Path, *, grid: bool = True, trajectory: str | None = None
    ) -> None:
        self.pipeline, self.request, self.out = pipeline, request, out
        self.grid, self.trajectory = grid, trajectory
        self.asked = request.asked
        self.store: Store = (
            ArrayFile(out, request.labels)
            if request.format == "npz"
            else ImageFiles(out, request.marks, request.seeds, request.format, partial(png_text, request))
        )
        self._check_conditions()
        self._claim()

    def _check_conditions(self) -> None:
        """A record may be written by anybody."""
        request, conditions = self.request, self.pipeline.conditions
        if conditions.text != bool(request.prompts):
            kind = "prompts" if conditions.text else "classes"
            raise UserError(f"{request.model} draws from {kind}, and the request has none")
        if isinstance(conditions, Labels):
            if max(request.labels) >= len(conditions.names):
                raise UserError(
                    f"label {max(request.labels)} is out of range: {request.model} has {len(conditions.names)} classes"
                )
        elif any(clean(prompt) != prompt for prompt in (*request.prompts, request.negative)):
            raise UserError("a prompt of the request has spaces or characters that prompts are cleaned of")
        else:
            refuse_unread(conditions.encoder, (*request.prompts, request.negative))

    def _claim(self) -> None:
        record = self.out / RECORD
        try:
            ours = record.exists() and read_record(record) == self.request
            if not ours and _has_images(self.out):
                raise UserError(f"{self.out} holds images made with other settings; give another --out, or remove it")
            self.out.mkdir(parents=True, exist_ok=True)
            self.store.tidy()
            if not ours:
                write_json(record, self._record(None))
        except OSError as error:
            raise UserError(f"cannot write to {self.out}: {error.strerror}; give another --out") from None

    def run(self, progress: Progress = lambda done, step: None) -> Report:
        """Make what is missing."""
        report = Report()
        began = time.perf_counter()
        for first in range(0, len(self.request.seeds), self.request.batch_size):
            indices = range(first, min(first + self.request.batch_size, len(self.request.seeds)))
            frames = self._frames() if first == 0 else None
            if frames is None and self.store.has(indices):
                report.found += len(indices)
            else:
                batch = self._draw(indices, report.made + report.found, frames, progress)
                self.store.write(indices, batch.pixels)
                report.made += len(indices)
                report.evaluations, report.passes = batch.evaluations, batch.passes
                if frames is not None:
                    self._save_trajectory(frames, batch)
            progress(report.made + report.found, None)
        report.seconds = time.perf_counter() - began
        self._finish(report)
        return report

    def _frames(self) -> Frames | None:
        """What watches the first batch, if an animation is asked for and not there."""
        if not self.trajectory or self._trajectory_path.exists():
            return None
        return Frames(self.pipeline.autoencoder, self.request.protocol.rounding)

    def _save_trajectory(self, frames: Frames, batch: Batch) -> None:
        states = [*frames.states, batch.pixels[: frames.limit]]
        columns = pictures.columns_for(len(states[-1]))
        pictures.save_animation(self._trajectory_path, [pictures.grid(state, columns) for state in states])

    def _draw(self, indices: range, done: int, frames: Frames | None, progress: Progress) -> Batch:
        def after_step(info: StepInfo) -> None:
            progress(done, info)
            if frames is not None:
                frames(info)

        request, part = self.request, slice(indices.start, indices.stop)
        return self.pipeline.draw(
            self.asked[part], request.seeds[part], request.protocol, after_step, negative=request.negative
        )

    def _finish(self, report: Report) -> None:
        self.store.finish()
        if self.grid and (report.made or not (self.out / "grid.png").exists()):
            self._save_grid()
        if self.grid:
            report.files.append(self.out / "grid.png")
        if self.trajectory:
            report.files.append(self._trajectory_path)
        if report.made:
            write_json(self.out / RECORD, self._record(report))

    def _save_grid(self) -> None:
        shown = self.store.first(min(GRID_LIMIT, len(self.request.seeds)))
        conditions = self.request.conditions if len(shown) == len(self.request.seeds) else 1
        columns = pictures.columns_for(len(shown), conditions)
        # A row a prompt has its text once; where every image has a prompt of its own, each has its text.
        rows = conditions > 1 and columns == len(shown) // conditions and columns > 1
        said = self.asked[: len(shown) : columns if rows else 1] if self.request.prompts else None
        sheet = pictures.grid(shown, columns, captions=said)
        atomic_write(self.out / "grid.png", pictures.encode(sheet, "png"))

    @property
    def _trajectory_path(self) -> Path:
        return self.out / f"trajectory.{self.trajectory}"

    def _record(self, report: Report | None) -> dict[str, Any]:
        request = self.request
        rows = zip(self.store.names(), map(self._named, request.labels), request.seeds, strict=True)
        spent = None
        if report is not None:
            spent = {
                "images": report.made,
                "evaluations": report.evaluations,
                "network_passes_per_image": report.passes,
                "seconds": round(report.seconds, 3),
            }
        return {
            "hastezoo": __version__,
            "request": dumped(request),
            "spent": spent,
            "environment": environment(self.pipeline),
            "samples": [{"file": file, **named, "seed": seed} for file, named, seed in rows],
        }

    def _named(self, label: int) -> dict[str, Any]:
        """What an image is of, in its line of the record."""
        conditions = self.pipeline.conditions
        if isinstance(conditions, Labels):
            return {"class": label, "name": conditions.names[label]}
        return {"prompt": self.request.prompts[label]}


def environment(pipeline: Pipeline) -> dict[str, Any]:
    """What the bytes may depend on beyond the request."""
    import torch

    device = pipeline.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
    }
