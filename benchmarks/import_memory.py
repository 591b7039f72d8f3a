"""What does importing a released SiT-XL/2 take, against the obvious way?

    python benchmarks/import_memory.py [--size b]

A container of random weights as REPA and HASTE write it (EMA and raw weights, no optimizer state) is turned into
safetensors by `torch.load` and `safetensors.torch.save_file`, and by `hastezoo import`, which also hashes both files
and checks every shape; each in a process of its own, taking turns, the container in the page cache. Seconds and peak
resident memory, as ratios to the obvious way. Needs Linux, 14 GB of disk and 9 GB of memory for xl.
Writes benchmarks/results/import_memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from dated import RESULTS, date_and_device
from sampling_speed import spread

ROUNDS = 3
NAMES = {"b": "sit-b-haste", "l": "sit-l-haste", "xl": "sit-xl-haste"}
PEAK = """
from pathlib import Path
import re
print("PEAK", 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
"""
OBVIOUS = """
import argparse, sys, torch
from safetensors.torch import save_file
torch.serialization.add_safe_globals([argparse.Namespace])
loaded = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
save_file(loaded["ema"], sys.argv[2])
"""
OURS = """
import sys
from hastezoo.cli.main import main
try:
    main(["import", sys.argv[3], sys.argv[1], "--quiet"])
except SystemExit as stop:
    assert not stop.code
"""


def make(path: Path, size: str) -> None:
    """The container."""
    import torch

    from hastezoo.models.registry import create_model

    state = create_model(f"sit_{size}_2").state_dict()
    raw = {key: value + 1 for key, value in state.items()}
    args = argparse.Namespace(attn_coeff=0.5, num_classes=1000)
    torch.save({"model": raw, "ema": state, "opt": {}, "args": args, "steps": 1}, path)


def measure(code: str, folder: Path, name: str) -> tuple[float, float]:
    """(seconds, peak GB) of a way."""
    arguments = [str(folder / "released.pt"), str(folder / "obvious.safetensors"), name]
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)  # so that no digest is known from the turn before
    began = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", code + PEAK, *arguments],
        env={**os.environ, "HASTEZOO_HOME": str(home)},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"PEAK (\d+)", result.stdout)
    assert found
    return time.perf_counter() - began, int(found[1]) / 1e9


@click.command()
@click.option("--size", type=click.Choice(list(NAMES)), default="xl", show_default=True)
def main(size: str) -> None:
    """Measure and write the result."""
    from hastezoo.files import write_json

    ways = {"torch.load and save_file": OBVIOUS, "hastezoo import": OURS}
    seen: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "released.pt", size)
        for _ in range(ROUNDS):
            for way, code in ways.items():
                seen[way].append(measure(code, folder, NAMES[size]))
        sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.suffix in (".pt", ".safetensors")}
    rows: dict[str, Any] = {
        way: {"seconds": spread([one[0] for one in values]), "peak_gb": spread([one[1] for one in values])}
        for way, values in seen.items()
    }
    obvious, ours = rows.values()
    ratios = {key: round(ours[key]["median"] / obvious[key]["median"], 2) for key in ("seconds", "peak_gb")}
    result = {**date_and_device(), "model": f"sit_{size}_2", "bytes": sizes, "rounds": ROUNDS, **rows, "ratios": ratios}
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / "import_memory.json", result)
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
