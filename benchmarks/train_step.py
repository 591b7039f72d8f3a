"""What does alignment cost a training step, in time and in memory?

    python benchmarks/train_step.py            # SiT-B/2, batch 8, on a CPU; needs 20 GB of memory
    python benchmarks/train_step.py --quick    # a tiny model, to see that it works; writes nothing

A step is the training loop's own (`Run.advance`): draws, teacher, student, losses, backward, clipping, AdamW, EMA. Data
and weights are random, shapes are those of ImageNet-256 with DINOv2-B. "HASTE naive" forms the maps of attention and is
otherwise ours.

Time: the five kinds of runs take turns in one process, each round beginning with another one; medians of rounds with
their spread, and ratios within a round likewise. Memory: the peak of a process of its own over three steps, with that
run and nothing else in it; where alignment has ended, of a run that was resumed after the end. On CUDA it is SiT-XL/2,
batch 32, bf16, and memory is what torch allocated. Needs Linux. Writes benchmarks/results/train_step.json.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
from attention_memory import naive_attention_alignment
from dated import RESULTS, date_and_device
from sampling_speed import spread

from hastezoo.alignment.config import AlignmentConfig, TerminationConfig

if TYPE_CHECKING:
    from hastezoo.alignment.teachers import Teacher
    from hastezoo.data.batch import Batch
    from hastezoo.training.run import Run

XL = AlignmentConfig()  # L's too
B = AlignmentConfig(feature_layer=5, attention_pairs=((2, 7), (3, 9), (4, 11)))
REPA: dict[str, Any] = {"attention_weight": 0.0}
ENDED: dict[str, Any] = {"termination": TerminationConfig(kind="step", step=1)}
PLAIN, BASE, NAIVE, OURS, AFTER = "plain", "REPA", "HASTE naive", "HASTE ours", "after termination"
# How each kind differs from HASTE; None for no alignment.
KINDS: dict[str, dict[str, Any] | None] = {PLAIN: None, BASE: REPA, NAIVE: {}, OURS: {}, AFTER: ENDED}
LIMITS = {"seconds": 1.05, "peak_bytes": 1.02}  # of HASTE ours, over REPA
STEPS = 3
PIXELS = 256
OUT = RESULTS / "train_step.json"
CLASSES = 1000


@dataclass(frozen=True)
class Plan:
    """What is measured, on what."""

    architecture: str
    batch_size: int
    precision: str
    teacher: str
    backend: str

    @property
    def haste(self) -> AlignmentConfig:
        """The pairs of blocks that the paper takes for this size."""
        return XL if re.match("sit_(l|xl)_", self.architecture) else B


def find_plan(architecture: str | None, batch_size: int | None, device: str, quick: bool) -> Plan:
    """The plan for a device, where the command line does not say otherwise."""
    from hastezoo.devices import find_device

    kind = find_device(device).type
    cuda = kind == "cuda"
    usual = ("sit_ti_2", 2) if quick else ("sit_xl_2", 32) if cuda else ("sit_b_2", 8)
    teacher = "vit_tiny_patch16_224.augreg_in21k" if quick else "vit_base_patch14_dinov2.lvd142m"
    return Plan(architecture or usual[0], batch_size or usual[1], "bf16" if cuda else "fp32", teacher, kind)


class RandomSamples:
    """Latents, labels and images of the shapes of ImageNet-256; a batch is a function of its first index."""

    shape: tuple[int, ...] = (4, 32, 32)
    variants = 1

    def __len__(self) -> int:
        return 1 << 20

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        import torch

        from hastezoo.data.batch import Batch

        source, count = torch.Generator().manual_seed(indices[0]), len(indices)
        latents = torch.randn(count, *self.shape, generator=source)
        labels = torch.randint(CLASSES, (count,), generator=source)
        pixels = torch.randint(256, (count, 3, PIXELS, PIXELS), generator=source, dtype=torch.uint8)
        return Batch(latents, labels, pixels)


@functools.cache
def shared_teacher(plan: Plan, attention_layers: tuple[int, ...]) -> Teacher:
    """A teacher with random weights, one for all runs that ask for the same."""
    import torch

    from hastezoo.alignment.teachers import create_teacher

    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    return create_teacher(
        plan.teacher, attention_layers=attention_layers, pretrained=False, device=plan.backend, dtype=dtype
    )


def create_run(kind: str, plan: Plan, out: Path, *, resumed: bool = False) -> Run:
    """A run of a kind, in a folder of its own. AFTER aligns for one step, unless that has been taken already."""
    import torch

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.models.registry import create_model
    from hastezoo.processes import Processes
    from hastezoo.sampling.interpolants import Linear
    from hastezoo.training.config import TrainConfig
    from hastezoo.training.objective import Objective
    from hastezoo.training.run import Run

    torch.manual_seed(0)
    model: Any = create_model(plan.architecture, input_size=32, in_channels=4, num_classes=CLASSES)
    changes, alignment = KINDS[kind], None
    if changes is not None:
        config = plan.haste.model_copy(update=changes)
        teach = functools.partial(shared_teacher, plan, config.teacher_blocks)
        alignment = HolisticAlignment(config, width=model.config.width, grid=model.config.grid, teach=teach)
        if resumed:
            alignment.termination.pass_step(1)
    train = TrainConfig.model_validate({"steps": 1000, "batch_size": plan.batch_size, "precision": plan.precision})
    (out / kind).mkdir()
    processes = Processes(0, 1, torch.device(plan.backend))
    return Run(model, Objective(Linear(), CLASSES, alignment), train, out / kind, processes)


def timed_step(kind: str, run: Run, samples: RandomSamples, batch: Batch) -> float:
    """Seconds of one step; alignment ends after it where it should."""
    import torch

    from hastezoo.alignment import holistic

    wait: Callable[[], object] = torch.cuda.synchronize if run.processes.device.type == "cuda" else lambda: None
    loss = naive_attention_alignment if kind == NAIVE else holistic.attention_alignment
    with mock.patch.object(holistic, "attention_alignment", loss):
        wait()
        began = time.perf_counter()
        run.advance(batch, samples.shape)
        wait()
        seconds = time.perf_counter() - began
    run.consider_ending_alignment(samples)
    return seconds


def measure_seconds(plan: Plan, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind's steps, taking turns; the first round warms up, and ends AFTER's alignment."""
    samples = RandomSamples()
    kinds = list(KINDS)
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        runs = {kind: create_run(kind, plan, Path(folder)) for kind in kinds}
        for turn in range(rounds + 1):
            batch = samples.__getitems__(range(turn * plan.batch_size, (turn + 1) * plan.batch_size))
            for kind in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]:
                spent = timed_step(kind, runs[kind], samples, batch)
                if turn:
                    seconds[kind].append(spent)
            click.echo(f"round {turn} of {rounds}", err=True)
    return seconds


def peak_bytes(kind: str, plan: Plan) -> int:
    """Peak memory of this process, once it has taken some steps."""
    import torch

    samples = RandomSamples()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(kind, plan, Path(folder), resumed=True)
        for step in range(STEPS):
            batch = samples.__getitems__(range(step * plan.batch_size, (step + 1) * plan.batch_size))
            timed_step(kind, run, samples, batch)
    if plan.backend == "cuda":
        return torch.cuda.max_memory_allocated()
    # VmHWM and not ru_maxrss: the latter starts at what the parent held when it forked.
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def measure_peak(kind: str, arguments: list[str]) -> int:
    """Peak memory of a new process of this file, with one run in it."""
    command = [sys.executable, __file__, "--peak-of", kind, *arguments]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    click.echo(f"memory of {kind}", err=True)
    return int(result.stdout.rpartition("PEAK")[2])


def summary(seconds: dict[str, list[float]], peaks: dict[str, int]) -> dict[str, dict[str, Any]]:
    """A row for each kind."""

    def over(kind: str, base: str) -> dict[str, Any]:
        rounds = [one / other for one, other in zip(seconds[kind], seconds[base], strict=True)]
        return {"seconds": spread(rounds), "peak_bytes": round(peaks[kind] / peaks[base], 4)}

    return {
        kind: {
            "seconds": spread(seconds[kind]),
            "peak_bytes": peaks[kind],
            "over REPA": over(kind, BASE),
            "over plain": over(kind, PLAIN),
        }
        for kind in KINDS
    }


def targets(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """HASTE ours over REPA, against the limits."""
    ratios = rows[OURS]["over REPA"]
    measured = {"seconds": ratios["seconds"]["median"], "peak_bytes": ratios["peak_bytes"]}
    return {
        name: {"limit": limit, "measured": measured[name], "met": measured[name] <= limit}
        for name, limit in LIMITS.items()
    }


def show(result: dict[str, Any]) -> None:
    """The table and the targets."""
    from rich.console import Console
    from rich.table import Table

    def ranged(values: dict[str, float], digits: int) -> str:
        return f"{values['median']:.{digits}f} ({values['least']:.{digits}f}..{values['most']:.{digits}f})"

    setting = f"{result['architecture']}, batch {result['batch_size']}, {result['precision']}, {result['device']}"
    table = Table(title=f"a training step of {setting}")
    for column in ("run", "seconds", "/ REPA", "/ plain", "peak GB", "/ REPA", "/ plain"):
        table.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    for kind, row in result["runs"].items():
        bases = row["over REPA"], row["over plain"]
        times = [ranged(row["seconds"], 2), *(ranged(base["seconds"], 3) for base in bases)]
        table.add_row(kind, *times, f"{row['peak_bytes'] / 1e9:.2f}", *(f"{base['peak_bytes']:.3f}" for base in bases))
    console = Console(width=120)
    console.print(table)
    for name, target in result["targets"].items():
        verdict = "met" if target["met"] else "NOT met"
        console.print(f"{OURS} <= {target['limit']} x REPA in {name}: {target['measured']:.3f}, {verdict}")


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Steps of each kind that are timed.")
@click.option("--architecture", help="[default: sit_b_2; sit_xl_2 on CUDA]")
@click.option("--batch-size", type=int, help="[default: 8; 32 on CUDA]")
@click.option("--device", default="auto", show_default=True)
@click.option("--quick", is_flag=True, help="A tiny student and teacher, to see that it works.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help=f"[default: results/{OUT.name}]")
@click.option("--peak-of", type=click.Choice(list(KINDS)), hidden=True)
def main(
    rounds: int, architecture: str | None, batch_size: int | None, device: str, quick: bool, out: Path | None,
    peak_of: str | None,
) -> None:  # fmt: skip
    """Measure and write the result."""
    from hastezoo.files import write_json

    plan = find_plan(architecture, batch_size, device, quick)
    if peak_of:
        click.echo(f"PEAK {peak_bytes(peak_of, plan)}")
        return
    arguments = ["--architecture", plan.architecture, "--batch-size", str(plan.batch_size), "--device", device]
    peaks = {kind: measure_peak(kind, arguments + ["--quick"] * quick) for kind in KINDS}
    rows = summary(measure_seconds(plan, rounds), peaks)
    result = {**asdict(plan), **date_and_device(), "rounds": rounds, "runs": rows, "targets": targets(rows)}
    out = out or (None if quick else OUT)
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        write_json(out, result)
    show(result)


if __name__ == "__main__":
    main()
