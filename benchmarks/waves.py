"""Trains the runs of a study, several at a time, each in a process of its own with one thread."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click


def train_in_waves(script: str, plan: Mapping[str, Sequence[Any]], out: Path, jobs: int) -> None:
    """Train every run that is not finished, those that others fork from first.

    Args:
        script: Of the study; `SCRIPT train --only NAME --out OUT` trains one run.
        plan: What each run is: (arm, seed, tau), where a run with a tau forks from another's checkpoint.
        out: Where each run has a folder, and a log beside it.
        jobs: Runs at a time.

    Raises:
        ClickException: If a run failed; the others of its wave are trained even so.
    """
    forks = [name for name, (_, _, tau) in plan.items() if tau is not None]
    for wave in ([name for name in plan if name not in forks], forks):
        with ThreadPoolExecutor(jobs) as pool:
            for name, code in zip(wave, pool.map(lambda name: _train(script, name, out), wave), strict=True):
                if code:
                    raise click.ClickException(f"{name} ended with {code}; its output is in {out / name}.log")


def _train(script: str, name: str, out: Path) -> int:
    if (out / name / f"{name}.safetensors").exists():
        return 0
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, script, "train", "--only", name, "--out", str(out)]
    with (out / f"{name}.log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, env=environment, stdout=log, stderr=log).returncode
    click.echo(f"{name}: {'done' if not code else f'failed with {code}'}")
    return code
