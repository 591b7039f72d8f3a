"""What 1, 2 and 4 processes of one thread take on this machine, over gloo: measured, and by the cost model.

Every process takes `Run.advance`, a step of the real loop, on random latents: a small SiT, the same batch however many
processes share it, in float32. Engines take turns, and so does the same step alone, without anybody to tell, while the
other processes do likewise: its time is what n busy processes compute at, however few cores they share. Rates are
measured too, of messages of the sizes that are sent, with the copies that FSDP makes of them, and what a message takes
that is empty. The model gets these, and clipping, the optimizer's step and the average, which it does not count, are
measured and added to its bounds.

Saving: what `Run.save` keeps the training thread for, steps that are taken until the checkpoint is written, and when it
is; one file, for which all wait, and shards. The first checkpoint, for which memory is made, is left out. It is
measured with the steps' batch and with a larger one: copying a checkpoint does not take longer where steps do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dated import date_and_device
from sampling_speed import spread

if TYPE_CHECKING:
    from hastezoo.data.batch import Batch
    from hastezoo.processes import Processes
    from hastezoo.training.run import Run

COUNTS = (1, 2, 4)
MODEL: dict[str, Any] = {
    "input_size": 16, "in_channels": 4, "width": 384, "depth": 6, "heads": 6, "num_classes": 1000,
}  # fmt: skip
QUICK = {**MODEL, "width": 48, "depth": 2, "heads": 2}
BATCH = 8
SAVING_BATCHES = (BATCH, 32)
SHAPE = (MODEL["in_channels"], MODEL["input_size"], MODEL["input_size"])
SAVES, BEFORE, MOST = 4, 3, 12  # checkpoints; steps before each; and while it is written, at most
# Engine and checkpoints of each run; alone, fsdp would be ddp.
RUNS = {"ddp": {"engine": "ddp", "checkpoints": "file"}, "fsdp": {"engine": "fsdp"}}
RUNS_ALONE = {"alone": {"checkpoints": "file"}, "alone, shards": {"checkpoints": "sharded"}}


def measure(rounds: int, quick: bool) -> dict[str, Any]:
    """All counts, one after the other, each a launch of its own."""
    found = {}
    for count in COUNTS:
        raw = launch(count, rounds, quick)
        found[str(count)] = against_the_model(count, raw, QUICK if quick else MODEL)
        click.echo(f"{count} processes: measured", err=True)
    return {
        **date_and_device(), "cores": os.cpu_count(), "threads_each": 1, "model": QUICK if quick else MODEL,
        "batch": BATCH, "rounds": rounds, "processes": found,
    }  # fmt: skip


def launch(count: int, rounds: int, quick: bool) -> dict[str, Any]:
    """What so many processes of this file measure."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += [__file__, folder, str(rounds), *(["--quick"] if quick else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        subprocess.run(command, check=True, env=environment)
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text())
        return found


def against_the_model(count: int, raw: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """The measured beside the model's bounds, which are made of measured rates."""
    from hastezoo.training.estimate import step_cost
    from hastezoo.training.scaling import StepTime, Wait, exchanges, find_layout, find_work

    work = find_work(step_cost("sit", model, None, batch=1, precision="fp32"), "fp32", aligned=False)
    images, passes = BATCH / count, raw["passes"]["median"]
    flops = images * (work.forward_flops + work.backward_flops) / passes
    steps = {}
    for engine, seconds in raw["steps"].items():
        layout = find_layout("ddp" if count == 1 else engine, count)
        waits = tuple(
            Wait(
                one,
                False,
                one.bytes / (1e9 * raw["links"][one.kind]["gb_per_second"])
                + one.messages * one.turns * 1e-6 * raw["links"][one.kind]["microseconds"],
            )
            for one in exchanges(work, layout)
        )
        time_ = StepTime(images * work.forward_flops / flops, images * work.backward_flops / flops, waits)
        also = raw["updates"][engine]["median"]
        steps[engine] = {
            "seconds": seconds,
            "compute": round(time_.compute + also, 4),
            "communication": round(time_.communication, 4),
            "least": round(time_.least + also, 4),
            "most": round(time_.most + also, 4),
            "sent_mb": round(sum(one.bytes for one in exchanges(work, layout)) / 1e6, 1),
        }
    return {
        "gflops_each": round(flops / 1e9, 2), "passes_seconds": raw["passes"], "update_seconds": raw["updates"],
        "links": raw["links"], "steps": steps, "saving": raw["saving"],
    }  # fmt: skip


# What follows runs in each of the processes.


def create_run(name: str, parallel: dict[str, str], model: dict[str, Any], processes: Processes, out: Path) -> Run:
    """A run of the small model."""
    import torch

    from hastezoo.models.registry import create_model
    from hastezoo.sampling.interpolants import Linear
    from hastezoo.training.config import TrainConfig
    from hastezoo.training.objective import Objective
    from hastezoo.training.run import Run

    torch.manual_seed(0)
    batch = BATCH // int(os.environ["WORLD_SIZE"]) * processes.count
    config = TrainConfig.model_validate({"steps": 10_000, "batch_size": batch, "keep": 1, "parallel": parallel})
    (out / name).mkdir(exist_ok=True)
    objective = Objective(Linear(), model["num_classes"], None)
    return Run(create_model("sit", **model), objective, config, out / name, processes)


def random_batch(rank: int, whole: int = BATCH) -> Batch:
    """This process' part of a batch of so many."""
    import torch

    from hastezoo.data.batch import Batch

    source, count = torch.Generator().manual_seed(rank), whole // int(os.environ["WORLD_SIZE"])
    return Batch(
        torch.randn(count, *SHAPE, generator=source), torch.randint(MODEL["num_classes"], (count,), generator=source)
    )  # fmt: skip


def timed(call: Callable[[], object], processes: Processes) -> float:
    """Seconds until all processes have done it, which begin together."""
    import torch
    import torch.distributed as dist

    processes.wait()
    began = time.perf_counter()
    call()
    seconds = torch.tensor(time.perf_counter() - began)
    if processes.count > 1:
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)


def update(run: Run) -> None:
    """What follows the backward pass in a step."""
    from torch import nn

    nn.utils.clip_grad_norm_(run.student.parameters(), 1.0)
    run.optimizer.step()
    run.ema.update(run.model)


def time_steps(runs: dict[str, Run], lone: Run, processes: Processes, rounds: int) -> dict[str, Any]:
    """Seconds of a step of each run, of the same alone, and of its part after the backward pass, taking turns."""
    batch = random_batch(processes.rank)
    calls: dict[str, Callable[[], object]] = {
        name: (lambda run=run: run.advance(batch, SHAPE)) for name, run in {**runs, "lone": lone}.items()
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    after: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds + 2):
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            seconds = timed(calls[name], processes)
            again = timed(lambda run={**runs, "lone": lone}[name]: update(run), processes)  # its gradients are there
            if turn > 1:
                found[name].append(seconds)
                after[name].append(again)
    passes = [whole - part for whole, part in zip(found["lone"], after["lone"], strict=True)]
    return {
        "steps": {name: spread(found[name]) for name in runs},
        "updates": {name: spread(after[name]) for name in runs},
        "passes": spread(passes),
    }


def time_links(run: Run, processes: Processes, rounds: int) -> dict[str, Any]:
    """Of each kind of message GB/s that a process sends, and microseconds of a turn of an empty one.

    Args:
        run: With FSDP. Its blocks are gathered as they are in a step; gradients are laid side by side before they are
            summed up and spread, as it does. DDP's lie in their buckets already.
        processes: All of them.
        rounds: How often.
    """
    import torch
    import torch.distributed as dist

    from hastezoo.training.scaling import BUCKET

    count = processes.count
    if count == 1:
        return {}
    blocks: Any = run.model.blocks
    sizes = [one.numel() // count * count for one in blocks[0].parameters()]
    # As many as a step has: one alone would be found in a cache.
    gradients = [[torch.ones(size) for size in sizes] for _ in blocks]
    buckets = [torch.ones(BUCKET // 4) for _ in blocks]

    def gather() -> None:
        for block in blocks:
            block.unshard()
            block.reshard()

    def scatter() -> None:
        for parts in gradients:
            whole = torch.cat(parts)
            dist.reduce_scatter_tensor(torch.empty(len(whole) // count), whole)

    def reduce() -> None:
        for bucket in buckets:
            dist.all_reduce(bucket)

    whole, part = torch.ones(count), torch.ones(1)
    empty: dict[str, Callable[[], object]] = {
        "gather": lambda: dist.all_gather_into_tensor(whole, part),
        "scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "reduce": lambda: dist.all_reduce(part),
    }
    found = {}
    for kind, messages in (("gather", gather), ("scatter", scatter), ("reduce", reduce)):
        size = BUCKET // 4 if kind == "reduce" else sum(sizes)
        times = [(timed(empty[kind], processes), timed(messages, processes) / len(blocks)) for _ in range(rounds + 2)]
        waiting, taking = (statistics.median(one) for one in zip(*times[2:], strict=True))
        turns = (2 if kind == "reduce" else 1) * (count - 1)
        found[kind] = {
            "bytes": 4 * size,
            "gb_per_second": round(turns / count * 4 * size / max(taking - waiting, 1e-6) / 1e9, 3),
            "microseconds": round(1e6 * waiting / turns, 1),
        }
    return found


def time_saving(run: Run, processes: Processes, whole: int) -> dict[str, Any]:
    """What a checkpoint costs the steps around it, of so many samples."""
    batch = random_batch(processes.rank, whole)
    run.config = run.config.model_copy(update={"batch_size": whole})
    steps, blocked, slowed, written = [], [], [], []

    def advance() -> float:
        return timed(lambda: run.advance(batch, SHAPE), processes)

    def writing() -> bool:
        begun = getattr(run.saver, "begun", None)
        return processes.any(begun is not None and not begun[1].done())

    for turn in range(SAVES):
        before = [advance() for _ in range(BEFORE)]
        began = time.perf_counter()
        kept = timed(run.save, processes)
        during = []
        while writing() and len(during) < MOST:
            during.append(advance())
        run.saver.finish()
        if turn:
            steps += before
            blocked.append(kept)
            slowed += during
            written.append(time.perf_counter() - began)
    size = sum(one.stat().st_size for one in run.checkpoints.folder.rglob("*") if one.is_file())
    return {
        "bytes": size, "step_seconds": spread(steps), "blocked_seconds": spread(blocked),
        "slowed_seconds": spread(slowed) if slowed else None, "written_seconds": spread(written),
    }  # fmt: skip


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("rounds", type=int)
@click.option("--quick", is_flag=True)
def main(folder: Path, rounds: int, quick: bool) -> None:
    """One process of a launch."""
    import torch

    from hastezoo.files import write_json
    from hastezoo.processes import Processes, join_processes, leave_processes

    torch.set_num_threads(1)
    processes = join_processes(torch.device("cpu"))
    model = QUICK if quick else MODEL
    alone = processes.count == 1
    runs = {
        name: create_run(name, parallel, model, processes, folder)
        for name, parallel in (RUNS_ALONE if alone else RUNS).items()
    }
    itself = Processes(0, 1, processes.device)
    lone = create_run(f"lone {processes.rank}", {}, model, itself, folder)
    first = dict(list(runs.items())[:1]) if alone else runs  # alone both take the same steps
    found = {
        **time_steps(first, lone, processes, rounds),
        "links": time_links(list(runs.values())[-1], processes, rounds),
        "saving": {
            name: {str(whole): time_saving(run, processes, whole) for whole in SAVING_BATCHES}
            for name, run in runs.items()
        },
    }
    if processes.main:
        write_json(folder / "found.json", found)
    for run in (*runs.values(), lone):
        run.close()
    leave_processes()


if __name__ == "__main__":
    main()
