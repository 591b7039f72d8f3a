"""What four processes train, for test_engines.py: the same run by every engine, and stopped and gone on with."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from hastezoo import processes
from hastezoo.recipes.digits import run
from tests.training.test_alignment_run import small

# Digits with a teacher until step 4, small enough that four processes on two cores take a second or two for it.
SMALL = ("train.batch_size=40", "train.log_every=1", "train.checkpoint_every=3", "alignment.termination.step=4")
STEPS = 6
FSDP = "train.parallel.engine=fsdp"
SHARDED = "train.parallel.checkpoints=sharded"
TRIGGER = ("alignment.termination.start=2", "alignment.termination.every=2", "alignment.termination.images=40")

RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ddp": ("step", ()),
    "ddp-sharded": ("step", (SHARDED, "train.accumulation=2")),
    "fsdp": ("step", (FSDP,)),
    "fsdp-accumulated": ("step", (FSDP, "train.accumulation=5", "train.activation_checkpointing=true")),
    "hybrid": ("step", (FSDP, "train.parallel.shards=2", "train.accumulation=2")),
    "ddp-bf16": ("step", ("train.precision=bf16",)),
    "fsdp-bf16": ("step", (FSDP, "train.precision=bf16")),
    "ddp-gradient": ("gradient", TRIGGER),
    "fsdp-gradient": ("gradient", (FSDP, *TRIGGER)),
}
# Where a run is stopped, to go on: at the end of alignment, before it, after a look of the trigger.
BROKEN = {"ddp": 4, "fsdp": 3, "fsdp-gradient": 2}
LOOKED_AT = 2
LOOKS = ("train.diagnose_every=2", "train.sample_every=2")


def warm_up() -> None:
    """Import, once for all processes, what a run needs."""
    for module in (
        "timm", "sklearn.datasets", "safetensors.torch", "hastezoo.pipeline", "hastezoo.training.loop",
        "torch.distributed.fsdp", "torch.distributed.checkpoint.hf_storage", "hastezoo.alignment.teachers",
    ):  # fmt: skip
        importlib.import_module(module)


def train(out: Path, end: str, steps: int, *settings: str) -> None:
    """One run; its folder says what it is."""
    own = SMALL if end == "step" else SMALL[:-1]
    run("x", small(end, f"train.steps={steps}", *own, *settings), out, device="cpu", quiet=True)


def train_all(folder: Path) -> None:
    """Every run, those of two engines also stopped and gone on with, and one that others look at."""
    torch.set_num_threads(1)
    joined = processes.join_processes(torch.device("cpu"))  # once: a group that was left is not joined again
    leave = processes.leave_processes
    processes.join_processes, processes.leave_processes = (lambda device, **_: joined), (lambda: None)
    for name, (end, settings) in RUNS.items():
        train(folder / name, end, STEPS, *settings)
    for name in BROKEN:
        end, settings = RUNS[name]
        for steps in (BROKEN[name], STEPS):
            train(folder / f"{name}-broken", end, steps, *settings)
    train(folder / "looked-at", "step", LOOKED_AT, FSDP, *LOOKS)
    train(folder / "switched", "step", 2)
    train(folder / "switched", "step", 5, FSDP)
    train(folder / "switched", "step", STEPS, SHARDED)
    leave()
