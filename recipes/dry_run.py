"""What a run will take, before it takes it: steps, memory, FLOPs, hours, disk, and where it differs from the paper."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from hastezoo.zoo.card import Card

from .communication import Communication, communication
from .conditions import SIZES
from .latents import LatentsConfig, recipe_config
from .published import Difference, differences

if TYPE_CHECKING:
    from hastezoo.data.manifest import Manifest
    from hastezoo.training.config import TrainConfig

GIGABYTE = 1e9
FRAMEWORK_BYTES = 1_500_000_000  # CUDA's context, its libraries' workspaces, what an allocator cannot use; a guess
BETWEEN = "8xinfiniband-ndr"  # of nodes, where nothing is said: a port for each of eight GPUs


@dataclass(frozen=True)
class Machine:
    """On what.

    Attributes:
        gpu: By name, of `hastezoo/training/gpus.toml`.
        gpus: How many, a process each.
        utilisation: Share of the peak that is reached.
        price: Of a GPU for an hour; None for no cost.
        gpus_per_node: How many a node has.
        link: What joins them, of `hastezoo/training/links.toml`; None for what the GPU has.
        between: What joins nodes, and how many ports of it each has.
    """

    gpu: str = "h100"
    gpus: int = 8
    utilisation: float = 0.25
    price: float | None = None
    gpus_per_node: int = 8
    link: str | None = None
    between: str = BETWEEN


@dataclass(frozen=True)
class Plan:
    """What a run will take; bytes are of one process' GPU but for the disk's."""

    checkpoint: str
    architecture: str
    parameters: int
    projector_parameters: int
    teacher: str
    teacher_parameters: int
    samples: int
    steps: int
    aligned_steps: int
    epochs: float
    batch_size: int
    processes: int
    accumulation: int
    portion: int
    state_bytes: int
    activation_bytes: int
    transit_bytes: int
    flops_per_image: float
    flops: float
    teacher_share: float
    gpu: str
    gpu_bytes: int
    utilisation: float
    gpu_hours: float
    hours: float
    cost: float | None
    communication: Communication
    checkpoint_bytes: int
    checkpoint_share_bytes: int
    checkpoints: int
    data_bytes: int
    data_measured: bool
    differences: list[Difference] = field(default_factory=list)
    changes: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def memory_bytes(self) -> int:
        """Of one GPU."""
        return self.state_bytes + self.activation_bytes + self.transit_bytes + FRAMEWORK_BYTES


def plan(
    card: Card,
    config: LatentsConfig,
    machine: Machine,
    manifest: Manifest | None = None,
    base: LatentsConfig | None = None,
) -> Plan:
    """What a run will take; needs neither data nor weights, and allocates nothing.

    Args:
        card: The checkpoint.
        config: Its settings.
        machine: On what.
        manifest: Of the data, if there is some; the numbers of ImageNet's or COCO's training set otherwise.
        base: The recipe's settings before anybody changed them; the checkpoint's own where there are none.

    Raises:
        UserError: If the model, the teacher, the GPU or a link is unknown, or the batch or the processes do not divide.
    """
    from hastezoo.training import estimate, gpus, links, scaling, shares
    from hastezoo.training.feeding import check_batch

    train, termination = config.train, config.alignment.termination if config.alignment else None
    samples = _images(card, config, manifest) * (2 if config.data.flip else 1)
    check_batch(train, samples, machine.gpus)
    portion = train.batch_size // machine.gpus // train.accumulation
    gpu = gpus.find_gpu(machine.gpu)
    cost = estimate.step_cost(
        config.architecture, config.model, config.alignment,
        batch=portion, precision=train.precision, recompute=train.activation_checkpointing,
    )  # fmt: skip
    aligned = estimate.aligned_steps(termination, train.steps) if termination else 0
    flops = estimate.run_flops(cost, train.steps, train.batch_size, aligned)
    hours = gpus.hours(flops.total, gpu, machine.gpus, machine.utilisation, train.precision)
    layout = scaling.find_layout(train.parallel.engine, machine.gpus, train.parallel.shards)
    work = scaling.find_work(cost, train.precision, aligned=bool(aligned))
    fabric = links.find_fabric(machine.gpus_per_node, machine.link or gpu.link, machine.between)
    data, measured = _data_bytes(card, config, manifest)
    return Plan(
        checkpoint=card.name,
        architecture=config.architecture,
        parameters=cost.parameters,
        projector_parameters=cost.projector_parameters,
        teacher=config.alignment.teacher.name if config.alignment else "",
        teacher_parameters=cost.teacher_parameters,
        samples=samples,
        steps=train.steps,
        aligned_steps=aligned,
        epochs=train.steps * train.batch_size / samples,
        batch_size=train.batch_size,
        processes=machine.gpus,
        accumulation=train.accumulation,
        portion=portion,
        state_bytes=shares.state_bytes(cost, layout),
        activation_bytes=shares.saved_bytes(cost, layout, aligned=bool(aligned)),
        transit_bytes=shares.transit_bytes(layout, work),
        flops_per_image=cost.plain_flops,
        flops=flops.total,
        teacher_share=flops.teacher_share,
        gpu=gpu.name,
        gpu_bytes=int(gpu.memory * 1e9),
        utilisation=machine.utilisation,
        gpu_hours=hours * machine.gpus,
        hours=hours,
        cost=None if machine.price is None else hours * machine.gpus * machine.price,
        communication=communication(
            cost,
            train,
            fabric,
            gpus=machine.gpus,
            flops=gpu.flops(machine.utilisation, train.precision),
            aligned_steps=aligned,
        ),
        checkpoint_bytes=cost.checkpoint_bytes,
        checkpoint_share_bytes=shares.checkpoint_share(cost, layout, sharded=train.parallel.sharded_checkpoints),
        checkpoints=_checkpoints(train),
        data_bytes=data,
        data_measured=measured,
        differences=differences(card),
        changes=changes(base or recipe_config(card), config),
    )


def _checkpoints(train: TrainConfig) -> int:
    """How many lie there in the end: the last few, and the milestones."""
    stay = {step for step in train.keep_at if step <= train.steps}
    if train.milestone_every:
        stay |= set(range(train.milestone_every, train.steps + 1, train.milestone_every))
    return min(train.keep, -(-train.steps // train.checkpoint_every)) + len(stay)


def _data_bytes(card: Card, config: LatentsConfig, manifest: Manifest | None) -> tuple[int, bool]:
    """Of the prepared data, and whether that is known; otherwise a bound, for a PNG takes no more than raw pixels."""
    if manifest is not None:
        return manifest.bytes, True
    side, channels = config.model["input_size"], config.model["in_channels"]
    places = side**2 if isinstance(side, int) else side[0] * side[1]
    moments = 2 * channels * places * 2 * (2 if config.data.flip else 1)
    samples, (whole, captions) = _images(card, config, None), SIZES[card.recipe]
    states = 0 if card.text is None else captions * 2 * card.text.length * config.model["context_width"]
    return samples * (moments + 3 * 8**2 * places) + states * samples // whole, False


def _images(card: Card, config: LatentsConfig, manifest: Manifest | None) -> int:
    """Of the data; where there is none yet, of what the settings are for, or the whole training set."""
    return manifest.samples if manifest else config.data.images or SIZES[card.recipe][0]


def changes(recipe: LatentsConfig, config: LatentsConfig) -> dict[str, list[Any]]:
    """Settings that somebody changed: name -> [the recipe's, now]."""
    found: dict[str, list[Any]] = {}

    def compare(before: Any, now: Any, place: str) -> None:
        if isinstance(before, dict) and isinstance(now, dict):
            for key in sorted(before.keys() | now.keys()):
                compare(before.get(key), now.get(key), f"{place}.{key}" if place else key)
        elif before != now and place not in ("data.path", "data.fingerprint"):
            found[place] = [before, now]

    compare(recipe.model_dump(mode="json"), config.model_dump(mode="json"), "")
    return found


def show(plan: Plan) -> None:
    """Print it."""
    from hastezoo.cli.tables import print_facts, print_table

    print_facts(_facts(plan))
    if plan.differences:
        click.echo("\nWhere the recipe differs from the paper:")
        print_table([asdict(one) for one in plan.differences])
    if plan.changes:
        click.echo("\nChanged from the recipe:")
        print_table([{"setting": key, "recipe": old, "here": new} for key, (old, new) in plan.changes.items()])
    click.echo(
        "\nHours are FLOPs over the GPU's peak at the assumed utilisation; links run at their data sheets' rates"
    )
    click.echo("with assumed latencies; nothing was run.")


def _facts(plan: Plan) -> dict[str, object]:
    from hastezoo.training.feeding import counted

    aligned = f", the first {plan.aligned_steps:,} with the teacher {plan.teacher}" if plan.aligned_steps else ""
    facts: dict[str, object] = {
        "checkpoint": f"{plan.checkpoint} ({plan.architecture}, {plan.parameters:,} parameters)",
        "steps": f"{plan.steps:,}{aligned}",
        "epochs": f"{plan.epochs:,.1f} of {plan.samples:,} samples",
        "effective batch": f"{counted(plan.processes)} x accumulation {plan.accumulation} x {plan.portion} samples = "
        f"{plan.batch_size}",
        "memory": _memory(plan),
        "FLOPs": f"{plan.flops:.3g} ({plan.flops_per_image / 1e9:,.0f} G an image, forward and backward; the teacher's "
        f"share {100 * plan.teacher_share:.1f} %)",
        "time": f"{plan.hours:,.1f} hours on {plan.processes} x {plan.gpu} at {100 * plan.utilisation:.0f} % of the "
        f"peak ({plan.gpu_hours:,.1f} GPU hours)",
        "communication": plan.communication.words,
    }
    if plan.cost is not None:
        facts["cost"] = f"{plan.cost:,.0f} at the given price"
    facts["disk"] = _disk(plan)
    return facts


def _memory(plan: Plan) -> str:
    parts = {
        "weights, gradients, AdamW, EMA and teacher": plan.state_bytes,
        "activations": plan.activation_bytes,
        "what fsdp gathers": plan.transit_bytes,
        "framework": FRAMEWORK_BYTES,
    }
    shown = ", ".join(f"{name} {size / GIGABYTE:.1f}" for name, size in parts.items() if size)
    fits = "fits" if plan.memory_bytes < plan.gpu_bytes else f"does NOT fit: {_help(plan)}"
    return (
        f"about {plan.memory_bytes / GIGABYTE:.1f} GB a GPU: {shown} (assumed); {fits} a {plan.gpu} of "
        f"{plan.gpu_bytes / GIGABYTE:.0f} GB"
    )


def _disk(plan: Plan) -> str:
    bound = "" if plan.data_measured else "at most, raw "
    checkpoints = plan.checkpoint_bytes * plan.checkpoints / GIGABYTE
    share = plan.checkpoint_share_bytes
    each = f", {share / GIGABYTE:.2f} GB of one by each process" if share < plan.checkpoint_bytes else ""
    return (
        f"data {bound}{plan.data_bytes / GIGABYTE:,.1f} GB; {plan.checkpoints} checkpoints of "
        f"{plan.checkpoint_bytes / GIGABYTE:.1f} GB = {checkpoints:,.1f} GB{each}"
    )


def _help(plan: Plan) -> str:
    """What to do where a step does not fit a GPU."""
    copied = plan.communication.engine == "ddp" and plan.processes > 1
    if copied and plan.state_bytes + FRAMEWORK_BYTES > plan.gpu_bytes:
        return "set train.parallel.engine=fsdp"
    if plan.portion > 1:
        return "raise train.accumulation"
    return "set train.activation_checkpointing=true"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, for programs."""
    return {**asdict(plan), "memory_bytes": plan.memory_bytes}


def processes_here(given: int | None) -> int:
    """GPUs to plan for: as given, as torchrun started, or a node of eight."""
    return given or int(os.environ.get("WORLD_SIZE", "8"))
