"""What processes of a run tell one another, and what that adds to its hours: part of the dry run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hastezoo.training.config import TrainConfig
    from hastezoo.training.estimate import Cost
    from hastezoo.training.links import Fabric


@dataclass(frozen=True)
class Communication:
    """Of a whole run, on GPUs that compute at an assumed rate.

    Attributes:
        engine: ddp or fsdp.
        shards: Processes that hold a copy of the network together.
        gpus, gpus_per_node: Of the machine.
        link, between, ports: What joins GPUs of a node, and nodes, by how many ports of each.
        sent_bytes: Of a GPU, in a step.
        least_hours, most_hours: That it adds: as far as it cannot hide behind computing, or all of it.
        dominates_from: The smallest number of GPUs, at the same batch, from which on it takes longer than the backward
            pass, behind which it could hide; None if it never does.
        most_gpus: Over which the batch divides.
    """

    engine: str
    shards: int
    gpus: int
    gpus_per_node: int
    link: str
    between: str
    ports: int
    sent_bytes: float
    least_hours: float
    most_hours: float
    dominates_from: int | None
    most_gpus: int

    @property
    def words(self) -> str:
        """In a line."""
        hybrid = 1 < self.shards < self.gpus
        way = f"with {self.engine}{f' in groups of {self.shards}' if hybrid else ''}"
        from_ = (
            f"{way} it outlasts the backward pass from {self.dominates_from} GPUs on"
            if self.dominates_from
            else f"{way} the backward pass hides it, up to {self.most_gpus} GPUs"
        )
        if self.gpus == 1:
            return f"none with one GPU; {from_}"
        nodes = -(-self.gpus // self.gpus_per_node)
        joined = f"; {nodes} nodes by {self.ports} x {self.between}" if nodes > 1 else ""
        return (
            f"adds {self.least_hours:,.1f} to {self.most_hours:,.1f} hours: a GPU sends {self.sent_bytes / 1e9:.2f} GB "
            f"a step, in a node over {self.link}{joined}; {from_}"
        )


def communication(
    cost: Cost, train: TrainConfig, fabric: Fabric, *, gpus: int, flops: float, aligned_steps: int
) -> Communication:
    """What a run's processes tell one another.

    Args:
        cost: Of a step.
        train: The settings of the loop.
        fabric: What joins the GPUs.
        gpus: How many.
        flops: FLOP/s that each reaches.
        aligned_steps: How many of the steps have alignment.

    Raises:
        UserError: If the processes do not divide into groups of shards.
    """
    from hastezoo.training.scaling import counts, dominates_from, exchanges, find_layout, find_work, step_time

    parallel, again, batch = train.parallel, train.activation_checkpointing, train.batch_size
    shards, portions = parallel.shards, train.accumulation
    layout = find_layout(parallel.engine, gpus, shards, portions)
    work = {aligned: find_work(cost, train.precision, aligned=aligned, recompute=again) for aligned in (True, False)}
    steps = ((True, aligned_steps), (False, train.steps - aligned_steps))
    times = [
        (count / 3600, step_time(work[aligned], layout, fabric, batch=batch, flops=flops)) for aligned, count in steps
    ]
    usual = work[2 * aligned_steps > train.steps]
    return Communication(
        engine=parallel.engine,
        shards=layout.shards,
        gpus=gpus,
        gpus_per_node=fabric.gpus_per_node,
        link=fabric.within.name,
        between=fabric.between.name,
        ports=fabric.ports,
        sent_bytes=sum(exchange.bytes for exchange in exchanges(usual, layout)),
        least_hours=sum(hours * (time.least - time.compute) for hours, time in times),
        most_hours=sum(hours * time.communication for hours, time in times),
        dominates_from=dominates_from(
            usual, fabric, engine=parallel.engine, batch=batch, flops=flops, shards=shards, accumulation=portions
        ),
        most_gpus=max(counts(batch, shards=shards, accumulation=portions), default=1),
    )
