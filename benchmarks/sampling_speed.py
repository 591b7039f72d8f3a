"""How fast does the embedded checkpoint draw?

    python benchmarks/sampling_speed.py [--compile]

The command as a user types it, import included, and images/s by batch size in one process: the settings take turns, and
medians are reported with their spread, as ratios to one image at a time. Writes benchmarks/results/sampling_speed.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from dated import RESULTS, date_and_device

COUNT = 128
ROUNDS = 7


def command_seconds(count: int) -> float:
    """Wall time of `hastezoo sample -n COUNT` in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "hastezoo",
            "sample",
            "-n",
            str(count),
            "--out",
            str(Path(folder) / "x"),
            "--quiet",
        ]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - began


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def throughput(compiled: bool) -> dict[str, Any]:
    """Images/s by batch size, the settings interleaved."""
    from hastezoo.pipeline import Pipeline

    pipelines = {"eager": Pipeline.from_pretrained()}
    if compiled:
        pipelines["compiled"] = Pipeline.from_pretrained(compile=True)
    cases = [(kind, size) for kind in pipelines for size in (1, 32, 128)]
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for turn in range(ROUNDS + 1):
        for kind, size in cases:
            count = max(8, min(COUNT, 2 * size))
            began = time.perf_counter()
            pipelines[kind](seeds=range(count), batch_size=size)
            if turn:  # the first turn warms up
                rates[kind, size].append(count / (time.perf_counter() - began))
    base = statistics.median(rates["eager", 1])
    return {
        f"{kind}, batch {size}": {**spread(values), "ratio": round(statistics.median(values) / base, 2)}
        for (kind, size), values in rates.items()
    }


@click.command()
@click.option("--compile", "compiled", is_flag=True, help="Also through torch.compile.")
def main(compiled: bool) -> None:
    """Measure and write the result."""
    from hastezoo.files import write_json

    result = {
        **date_and_device(),
        "command": "hastezoo sample -n 16",
        "command_seconds": spread([command_seconds(16) for _ in range(ROUNDS)]),
        "images_per_second": throughput(compiled),
        "rounds": ROUNDS,
    }
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "sampling_speed.json", result)
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
