"""A sampling job: a request in, image files out. It streams, can be interrupted, and repeats itself exactly.

Images are made in fixed batches of the request's order. A batch whose files are all there is skipped; any other is
drawn whole, so that every image meets the same neighbours, and comes out the same, in an interrupted run.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hastezoo import __version__, pictures
from hastezoo.autoencoders import to_bytes
from hastezoo.errors import UserError, explain
from hastezoo.files import atomic_write, write_json
from hastezoo.pipeline import Batch, Pipeline
from hastezoo.sampling.protocol import Protocol
from hastezoo.sampling.solvers import StepInfo
from hastezoo.stores import ArrayFile, ImageFiles, Store

GRID_LIMIT = 100  # images shown in a grid
TRAJECTORY_LIMIT = 16  # images shown in an animation
TRAJECTORY_FRAMES = 60
RECORD = "samples.json"


class Request(BaseModel):
    """Everything that decides the images and their files; written into samples.json.

    Attributes:
        weights, vae: What was named instead of the card's, and the autoencoder used; their digests pin both.
        labels, seeds: One per image, in order.
        conditions: How many conditions were crossed with seeds, for the shape of the grid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    weights: str | None = None
    weights_sha256: str
    vae: str | None = None
    vae_sha256: str = ""
    vae_tiling: bool = False
    protocol: Protocol
    labels: list[Annotated[int, Field(ge=0)]]
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(min_length=1)
    conditions: int = Field(1, ge=1)
    batch_size: int = Field(ge=1)
    device: str
    dtype: str
    compile: bool = False
    format: Literal["png", "npz", "webp"] = "png"

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if len(self.labels) != len(self.seeds):
            raise ValueError(f"{len(self.labels)} labels do not pair with {len(self.seeds)} seeds")
        return self


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


def read_record(path: Path) -> Request:
    """The request in a samples.json (or in the folder that holds one).

    Raises:
        UserError: If it cannot be read or is no such file.
    """
    path = path / RECORD if path.is_dir() else path
    try:
        return Request.model_validate(json.loads(path.read_text(encoding="utf-8"))["request"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(explain(error, Request, str(path))) from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{path} is not a samples.json of hastezoo") from None


def _has_images(folder: Path) -> bool:
    """Whether a folder with a record holds more than it: a job that failed before its first batch left nothing else."""
    if not (folder / RECORD).exists():
        return False
    return any(path.name != RECORD and not path.name.startswith(".") for path in folder.iterdir())


def with_recorded_batch_size(request: Request, out: Path) -> Request:
    """The request with the batch size of the same job in `out`, if one began there.

    For a batch size of "auto", which may come out differently when another program holds memory: going on with what
    the job began with keeps its images the same.
    """
    if not (out / RECORD).exists():
        return request
    begun = read_record(out / RECORD)
    adopted = request.model_copy(update={"batch_size": begun.batch_size})
    return adopted if adopted == begun else request


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
        self.store: Store = (
            ArrayFile(out, request.labels)
            if request.format == "npz"
            else ImageFiles(out, request.labels, request.seeds, request.format)
        )
        if max(request.labels) >= len(pipeline.names):
            raise UserError(
                f"label {max(request.labels)} is out of range: {request.model} has {len(pipeline.names)} classes"
            )
        self._claim()

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
            frames = _Frames(self) if self.trajectory and first == 0 and not self._trajectory_path.exists() else None
            if frames is None and self.store.has(indices):
                report.found += len(indices)
            else:
                batch = self._draw(indices, report.made + report.found, frames, progress)
                self.store.write(indices, batch.pixels)
                report.made += len(indices)
                report.evaluations, report.passes = batch.evaluations, batch.passes
                if frames is not None:
                    frames.save(batch)
            progress(report.made + report.found, None)
        report.seconds = time.perf_counter() - began
        self._finish(report)
        return report

    def _draw(self, indices: range, done: int, frames: _Frames | None, progress: Progress) -> Batch:
        def after_step(info: StepInfo) -> None:
            progress(done, info)
            if frames is not None:
                frames.add(info)

        request = self.request
        labels, seeds = request.labels[indices.start : indices.stop], request.seeds[indices.start : indices.stop]
        return self.pipeline.draw(labels, seeds, request.protocol, after_step)

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
        sheet = pictures.grid(shown, pictures.columns_for(len(shown), conditions))
        atomic_write(self.out / "grid.png", pictures.encode(sheet, "png"))

    @property
    def _trajectory_path(self) -> Path:
        return self.out / f"trajectory.{self.trajectory}"

    def _record(self, report: Report | None) -> dict[str, Any]:
        request = self.request
        names = self.pipeline.names
        rows = zip(self.store.names(), request.labels, request.seeds, strict=True)
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
            "request": request.model_dump(),
            "spent": spent,
            "environment": environment(self.pipeline),
            "samples": [
                {"file": file, "class": label, "name": names[label], "seed": seed} for file, label, seed in rows
            ],
        }


class _Frames:
    """States on the way from noise to image, thinned to a bounded number, of the first few images."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.columns = pictures.columns_for(min(TRAJECTORY_LIMIT, len(job.request.seeds), job.request.batch_size))
        self.states: list[np.ndarray] = []

    def add(self, info: StepInfo) -> None:
        stride = 1 if info.steps is None else -(-info.steps // TRAJECTORY_FRAMES)
        if info.index % stride == 0 and len(self.states) < TRAJECTORY_FRAMES:
            pixels = self.job.pipeline.autoencoder.decode(info.x[:TRAJECTORY_LIMIT])
            self.states.append(to_bytes(pixels, self.job.request.protocol.rounding).cpu().numpy())

    def save(self, batch: Batch) -> None:
        states = [*self.states, batch.pixels[:TRAJECTORY_LIMIT]]
        frames = [pictures.grid(state, self.columns) for state in states]
        pictures.save_animation(self.job._trajectory_path, frames)


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
