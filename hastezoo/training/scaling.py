"""How long a step takes on many GPUs, by formulas: what it computes, and what processes tell one another.

Processes form rings, in which each passes pieces on to the next. Of S bytes each of n sends S (n - 1) / n to gather
what lies spread, as many to sum up and spread (reduce-scatter), and twice as many to sum up for all (all-reduce), in
n - 1 or twice n - 1 turns. A ring that crosses nodes leaves each node once, over all of its ports, and runs at the
slowest link on its way; rings that leave a node together share its ports. Libraries know better than rings where
messages are small and processes many (trees), so that times of turns are upper bounds there.

Not counted: the gradient's norm, losses and signals to stop, which are a number each; what shares are rounded up to;
the optimizer's step and the average; and that small portions reach a smaller part of a GPU's peak.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hastezoo.errors import UserError
from hastezoo.training.links import Fabric

if TYPE_CHECKING:
    from hastezoo.training.estimate import Cost

BUCKET = 25 * 2**20  # bytes of gradients that DDP collects before it sends them
FLOAT, HALF = 4, 2  # bytes


@dataclass(frozen=True)
class Work:
    """What a step computes for an image, and what of a network processes exchange.

    Attributes:
        forward_flops, backward_flops: Of an image; the teacher's are in the first.
        blocks, block_parameters: Units that FSDP gathers each time they run.
        others, other_parameters: Networks' parameters outside of blocks, and the projector; gathered once, in float32.
        gathered: Bytes of a block's parameter on the way.
    """

    forward_flops: float
    backward_flops: float
    blocks: int
    block_parameters: int
    others: int
    other_parameters: int
    gathered: int

    @property
    def parameters(self) -> int:
        """All that are trained."""
        return self.block_parameters + self.other_parameters


def find_work(cost: Cost, precision: str, *, aligned: bool, recompute: bool = False) -> Work:
    """The work of a step.

    Args:
        cost: Of the step.
        precision: In bf16 FSDP gathers blocks in bfloat16.
        aligned: Whether there is a teacher and a projector.
        recompute: Whether the backward pass runs the blocks a second time, of which the cost knows.
    """
    student = cost.aligned_flops if aligned else cost.plain_flops
    forward = student / (4 if recompute else 3)  # the backward pass has two products for each of the forward's
    projected = aligned and cost.projector_parameters > 0
    return Work(
        forward_flops=forward + (cost.teacher_flops if aligned else 0),
        backward_flops=student - forward,
        blocks=cost.blocks,
        block_parameters=cost.block_parameters,
        others=2 if projected else 1,
        other_parameters=cost.parameters - cost.block_parameters + (cost.projector_parameters if projected else 0),
        gathered=HALF if precision == "bf16" else FLOAT,
    )


@dataclass(frozen=True)
class Layout:
    """How a run lies over its processes.

    Attributes:
        processes: One a GPU.
        shards: Processes that hold a copy together: 1 is DDP, all is FSDP, and anything between hybrid.
        accumulation: Portions of a process' part of a step.
    """

    processes: int
    shards: int = 1
    accumulation: int = 1

    @property
    def copies(self) -> int:
        """Of the network."""
        return self.processes // self.shards


def find_layout(engine: str, processes: int, shards: int | None = None, accumulation: int = 1) -> Layout:
    """The layout that the settings of `train.parallel` mean. Alone, a process has everything.

    Raises:
        UserError: If the processes do not divide over it.
    """
    if engine == "ddp" or processes == 1:
        return Layout(processes, 1, accumulation)
    shards = shards or processes
    if processes % shards:
        raise UserError(f"{processes} processes do not divide into groups of parallel.shards = {shards}")
    return Layout(processes, shards, accumulation)


@dataclass(frozen=True)
class Exchange:
    """Messages of one kind of a step.

    Attributes:
        kind: gather, scatter (a reduce-scatter) or reduce (an all-reduce).
        backward: Whether they go on during the backward pass, or the forward pass.
        bytes: That each process sends in them.
        messages: How many.
        size, stride: Processes of a ring, and how far apart in rank neighbours are.
        once: Whether they are sent with the step's last portion, or with each.
    """

    kind: Literal["gather", "scatter", "reduce"]
    backward: bool
    bytes: float
    messages: int
    size: int
    stride: int = 1
    once: bool = False

    @property
    def turns(self) -> int:
        """Of a message around the ring."""
        return (2 if self.kind == "reduce" else 1) * (self.size - 1)

    def rings_leaving(self, processes: int, gpus_per_node: int) -> int:
        """How many rings leave a node together, of the node that most leave; 0 where all stay in theirs."""
        leaving: Counter[int] = Counter()
        span = self.size * self.stride
        for first in (base + offset for base in range(0, processes, span) for offset in range(self.stride)):
            nodes = {(first + place * self.stride) // gpus_per_node for place in range(self.size)}
            leaving.update(nodes if len(nodes) > 1 else ())
        return max(leaving.values(), default=0)

    def wait(self, processes: int, fabric: Fabric) -> Wait:
        """How long they take, one after the other."""
        rings = self.rings_leaving(processes, fabric.gpus_per_node)
        inside = self.stride < fabric.gpus_per_node  # or every hop leaves a node
        rates = [fabric.within.rate] if inside else []
        latencies = [fabric.within.latency] if inside else []
        if rings:
            rates.append(fabric.node_rate / rings)
            latencies.append(fabric.between.latency)
        seconds = self.bytes / (min(rates) * 1e9) + self.messages * self.turns * max(latencies) * 1e-6
        return Wait(self, rings > 0, seconds)


def exchanges(work: Work, layout: Layout) -> list[Exchange]:
    """What each process sends in a step: none of them alone."""
    found: list[Exchange] = []
    shards, copies, portions = layout.shards, layout.copies, layout.accumulation
    units = work.blocks + work.others
    if shards > 1:
        sent, blocks, others = portions * (shards - 1) / shards, work.block_parameters, work.other_parameters
        before = sent * (work.gathered * blocks + FLOAT * others)
        found = [
            Exchange("gather", False, before, portions * units, shards),
            Exchange("gather", True, sent * work.gathered * blocks, portions * work.blocks, shards),
            Exchange("scatter", True, sent * FLOAT * work.parameters, portions * units, shards),
        ]
    if copies > 1:
        gradients = FLOAT * work.parameters
        messages = units if shards > 1 else math.ceil(gradients / BUCKET) + 1  # the first bucket is a small one
        reduced = 2 * (copies - 1) / copies * gradients / shards
        found.append(Exchange("reduce", True, reduced, messages, copies, shards, once=True))
    return found


@dataclass(frozen=True)
class Wait:
    """What an exchange takes.

    Attributes:
        exchange: Which.
        crosses: Whether between nodes, or within one.
        seconds: Of a step.
    """

    exchange: Exchange
    crosses: bool
    seconds: float


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        forward, backward: Of computing.
        waits: Of communicating.
        accumulation: Portions of the step.
    """

    forward: float
    backward: float
    waits: tuple[Wait, ...] = ()
    accumulation: int = 1

    @property
    def compute(self) -> float:
        return self.forward + self.backward

    @property
    def communication(self) -> float:
        """One after the other."""
        return sum(wait.seconds for wait in self.waits)

    @property
    def most(self) -> float:
        """Where nothing is done at once."""
        return self.compute + self.communication

    @property
    def least(self) -> float:
        """Where computing, links within nodes and links between them are all busy at once, as far as they can."""
        return max(self.compute, *(sum(wait.seconds for wait in self._over(crosses)) for crosses in (False, True)))

    @property
    def dominated(self) -> bool:
        """Whether some link needs longer than the last portion's backward pass, behind which it could hide."""
        window = self.backward / self.accumulation
        return any(
            sum(wait.seconds / (1 if wait.exchange.once else self.accumulation) for wait in behind) > window
            for behind in ([wait for wait in self._over(way) if wait.exchange.backward] for way in (False, True))
        )

    def _over(self, crosses: bool) -> list[Wait]:
        return [wait for wait in self.waits if wait.crosses == crosses]


def step_time(work: Work, layout: Layout, fabric: Fabric, *, batch: int, flops: float) -> StepTime:
    """What a step takes.

    Args:
        work: Of an image.
        layout: Over which processes.
        fabric: That joins them.
        batch: Images of all processes together.
        flops: FLOP/s that a GPU reaches.
    """
    images = batch / layout.processes
    waits = tuple(exchange.wait(layout.processes, fabric) for exchange in exchanges(work, layout))
    forward, backward = (images * one / flops for one in (work.forward_flops, work.backward_flops))
    return StepTime(forward, backward, waits, layout.accumulation)


def counts(batch: int, *, shards: int | None = None, accumulation: int = 1) -> list[int]:
    """Numbers of processes over which a batch divides, in groups of `shards`."""
    portions = batch // accumulation if batch % accumulation == 0 else 0
    return [count for count in range(1, portions + 1) if portions % count == 0 and count % (shards or 1) == 0]


def dominates_from(
    work: Work,
    fabric: Fabric,
    *,
    engine: str,
    batch: int,
    flops: float,
    shards: int | None = None,
    accumulation: int = 1,
) -> int | None:
    """The smallest number of processes at which communication dominates (`StepTime.dominated`), of those over which the
    batch, which stays the same, divides; None if it does with none."""
    for count in counts(batch, shards=shards if engine == "fsdp" else None, accumulation=accumulation):
        layout = find_layout(engine, count, shards, accumulation)
        if step_time(work, layout, fabric, batch=batch, flops=flops).dominated:
            return count
    return None
