"""What of a run lies on each GPU, and what each process writes of a checkpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hastezoo.training.scaling import FLOAT, Layout, Work

if TYPE_CHECKING:
    from hastezoo.training.estimate import Cost


def state_bytes(cost: Cost, layout: Layout) -> int:
    """Of a GPU: its share of weights, gradients, moments and the average; and the teacher, which each has whole."""
    return math.ceil(cost.trained_bytes / layout.shards) + cost.teacher_bytes


def transit_bytes(layout: Layout, work: Work) -> int:
    """Of a GPU: what FSDP holds whole for a while, at most.

    A block that runs, the next one, which is fetched, a block's gradient and its float32 copy on the way to the sum;
    and weights and gradients of all that is outside of blocks.
    """
    if layout.shards == 1:
        return 0
    block = math.ceil(work.block_parameters / max(1, work.blocks))
    return block * (2 * work.gathered + work.gathered + FLOAT) + 2 * FLOAT * work.other_parameters


def saved_bytes(cost: Cost, layout: Layout, *, aligned: bool) -> int:
    """Of a GPU: what is kept for the backward pass. Blocks that are gathered in bfloat16 need no copies in it."""
    saved = cost.aligned_saved if aligned else cost.plain_saved
    return saved - (cost.cast_bytes if layout.shards > 1 else 0)


def checkpoint_share(cost: Cost, layout: Layout, *, sharded: bool) -> int:
    """Bytes of a checkpoint that a process writes: the main one all of it, or each as much as the others."""
    return math.ceil(cost.checkpoint_bytes / layout.processes) if sharded else cost.checkpoint_bytes


def seconds_to_write(cost: Cost, layout: Layout, *, sharded: bool, gpus_per_node: int, disk: float) -> float:
    """What a checkpoint takes to be written.

    Args:
        cost, layout, sharded: As for `checkpoint_share`.
        gpus_per_node: Processes that share a disk.
        disk: GB/s that a node writes.
    """
    writers = min(layout.processes, gpus_per_node) if sharded else 1
    return writers * checkpoint_share(cost, layout, sharded=sharded) / (disk * 1e9)
