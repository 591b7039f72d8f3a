"""What a run says of itself: JSON lines in a file, and a bar on the terminal."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from hastezoo.files import atomic_write
from hastezoo.processes import Processes


class JsonLines:
    """`metrics.jsonl`, one object a line.

    A resumed run drops the lines after the step it resumes from, so that each step stands there once.
    """

    def __init__(self, path: Path, resumed_step: int = 0) -> None:
        self.path = path
        if path.exists():
            atomic_write(
                path, b"".join(line for line in path.read_bytes().splitlines(True) if _kept(line, resumed_step))
            )

    def log(self, **values: Any) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")


def _kept(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):  # the line a kill cut short
        return False


class Window:
    """The values of each step since the last report: the losses by name, their sum, the gradient norm.

    They stay on their device until somebody asks. A loss may be absent from the later steps: alignment ends.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Take note of one step."""
        for name, value in values.items():
            self.values.setdefault(name, []).append(value.detach().float())

    def means(self, processes: Processes) -> dict[str, float]:
        """The mean of each over steps and processes."""
        means = processes.mean(torch.stack([torch.stack(values).mean() for values in self.values.values()]))
        return dict(zip(self.values, means.tolist(), strict=True))

    def broken(self, processes: Processes) -> str | None:
        """Which value was the first, in any process, that is not finite."""
        first: list[tuple[int, str]] = []
        for name, values in self.values.items():
            bad = torch.isfinite(processes.mean(torch.stack(values))).logical_not().nonzero()
            if len(bad):
                first.append((int(bad[0]), name))
        # Of the values of one step the losses come first, and their sum and gradient follow from them.
        return min(first, key=lambda found: found[0])[1] if first else None

    def last(self) -> str:
        """The newest values, for a message."""
        return ", ".join(f"{name} {float(values[-1]):g}" for name, values in self.values.items())


class TrainingBar:
    """Loss, steps/s and time left: a bar on a terminal, otherwise a line now and then.

    Args:
        start, steps: Where the run begins and ends.
        quiet: Say nothing.
        seconds: Between two lines where there is no terminal.
    """

    def __init__(self, start: int, steps: int, *, quiet: bool = False, seconds: float = 30.0) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.quiet, self.seconds = quiet, seconds
        self.lines = not console.is_terminal
        self.start, self.steps = start, steps
        self.began = self.spoke = time.perf_counter()
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} steps/s"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or self.lines,
        )
        self.task = self.bar.add_task("training", total=steps, completed=start, loss="-", rate="-")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self.bar.console.print(text, highlight=False)

    def update(self, step: int, loss: float | None = None) -> None:
        """Show that `step` steps are done; the loss, where it was just measured."""
        now = time.perf_counter()
        rate = (step - self.start) / max(now - self.began, 1e-9)
        shown: dict[str, Any] = {} if loss is None else {"loss": f"{loss:.4f}"}
        self.bar.update(self.task, completed=step, rate=f"{rate:.1f}", **shown)
        if self.lines and not self.quiet and loss is not None and now - self.spoke >= self.seconds:
            left = (self.steps - step) / max(rate, 1e-9)
            print(
                f"step {step}/{self.steps}  loss {loss:.4f}  {rate:.1f} steps/s  {left / 60:.1f} min left",
                file=sys.stderr,
                flush=True,
            )
            self.spoke = now
