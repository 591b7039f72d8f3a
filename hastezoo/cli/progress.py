"""What `sample` says on the terminal: a line before, a bar meanwhile, a line after."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from hastezoo.job import Report
    from hastezoo.pipeline import Pipeline
    from hastezoo.request import Request
    from hastezoo.sampling.solvers import StepInfo


def _images(count: int) -> str:
    return f"{count} image" + ("" if count == 1 else "s")


def describe(request: Request, device: str) -> str:
    """One line of what will be done."""
    protocol = request.protocol
    steps = "" if protocol.solver == "dopri5" else f", {protocol.steps} steps"
    guidance = ""
    if protocol.cfg != 1:
        low, high = protocol.interval
        guidance = f", cfg {protocol.cfg:g}" + ("" if (low, high) == (0, 1) else f" in [{low:g}, {high:g}]")
    where = f"{device} (which has no float64: the solver's state is float32)" if device.startswith("mps") else device
    return f"{_images(len(request.seeds))} from {request.model}: {protocol.solver}{steps}{guidance}, {where}"


class SamplingBar:
    """Progress over images and steps; silent where there is no terminal, but for the lines before and after."""

    def __init__(self, request: Request, pipeline: Pipeline, *, quiet: bool) -> None:
        self.quiet, self.request = quiet, request
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self.total = len(request.seeds)
        self.done = 0
        self.task = self.bar.add_task("sampling", total=float(self.total))
        if not quiet:
            click.echo(describe(request, str(pipeline.device)), err=True)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, done: int, step: StepInfo | None) -> None:
        """So many images are done; of the batch under way, the step just taken."""
        self.done = done
        part, text = 0.0, f"{done}/{self.total} images"
        if step is not None:
            share = (step.index + 1) / step.steps if step.steps else 1 - step.t
            part = share * len(step.x)
            text += f", step {step.index + 1}" + (f"/{step.steps}" if step.steps else "")
        self.bar.update(self.task, completed=done + part, description=text)

    def interrupted(self, out: Path) -> None:
        """Say what an interruption left."""
        click.echo(
            f"interrupted: {self.done} of {_images(self.total)} are in {out}; the same command goes on", err=True
        )

    def finished(self, report: Report, out: Path, seconds: float) -> None:
        """Say where the files are and how fast it went."""
        if self.quiet:
            return
        shown = f" (look at {', '.join(str(path) for path in report.files)})" if report.files else ""
        if not report.made:
            click.echo(f"{_images(report.found)} already in {out}{shown}; nothing to do")
            return
        found = f", {report.found} were there" if report.found else ""
        speed = report.made / max(report.seconds, 1e-9)
        spent = f"{report.evaluations} evaluations, {speed:.1f} images/s, {seconds:.1f} s in all"
        click.echo(f"{_images(report.made)} in {out}{found}{shown}: {spent}")
