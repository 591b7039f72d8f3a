"""What the commands of evaluation share: the extractor asked for; a bar of images and metrics; the table at the end."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hastezoo.evaluation.following import Follower

if TYPE_CHECKING:
    from hastezoo.data.ranks import Missing
    from hastezoo.evaluation.extractors import Extractor
    from hastezoo.evaluation.results.result import EvaluationResult
    from hastezoo.evaluation.run import Plan


def load_extractor(options: dict[str, Any], device: str, *, quiet: bool) -> Extractor:
    """What --features, --inception and --dinov2 ask for.

    Raises:
        UserError: If weights are given of other features, which is a mistake and not to be passed over.
    """
    from hastezoo.cli.transfers import transfers
    from hastezoo.evaluation.extractors import create_extractor, own_weights

    features = options["features"]
    weights = own_weights(features, {name: options[name] for name in ("inception", "dinov2")})
    with transfers(f"downloading {features}", quiet=quiet) as (_, progress):
        return create_extractor(features, weights=weights, device=device, progress=progress)


class EvaluationBar(Follower):
    """Progress over the reference's images, the samples, the metrics; silent where there is no terminal."""

    def __init__(self, plan: Plan, *, quiet: bool) -> None:
        self.plan, self.quiet, self.done = plan, quiet, 0
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.say(f"{plan.count:,} images {plan.images.description}, {plan.extractor.name} features; in {plan.out}")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            click.echo(text, err=True)

    def reference(self, done: int, total: int) -> None:
        """So many of the reference's images were seen."""
        self._update("reference", done, total)

    def images(self, done: int) -> None:
        """So many samples have their features."""
        self.done = done
        self._update("samples", done, self.plan.count)

    def stage(self, text: str) -> None:
        """What is being computed of them."""
        for task in self.tasks.values():
            self.bar.update(task, visible=False)
        self.tasks["stage"] = self.bar.add_task(text, total=None)

    def waits(self, missing: Missing) -> None:
        """What of the other processes' features is missing, and how one of them is started again."""
        self.say(missing.line("chunks", shlex.join(["hastezoo", *sys.argv[1:]])))

    def _update(self, name: str, done: int, total: int) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(name, total=total)
        self.bar.update(self.tasks[name], completed=done, total=total)

    def interrupted(self) -> None:
        """Say what an interruption left."""
        self.say(
            f"interrupted: the features of {self.done:,} of {self.plan.count:,} images are in {self.plan.out}; "
            "the same command goes on"
        )


def show(result: EvaluationResult, files: list[Path], seconds: float) -> None:
    """The numbers, what they were expected to be, and where everything is."""
    from hastezoo.cli.tables import print_table
    from hastezoo.evaluation.results.result import footnotes, table_rows

    print_table(table_rows(result), right=("value", "error", "expected"))
    for line in footnotes(result):
        click.echo(line)
    click.echo(f"{', '.join(map(str, files))}; {seconds:.0f} s")
