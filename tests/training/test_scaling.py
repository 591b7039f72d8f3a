"""The time of a step on many GPUs against closed forms, a count of every ring, and what a real step sends."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hastezoo.data.batch import Batch
from hastezoo.errors import UserError
from hastezoo.models.registry import create_model
from hastezoo.processes import Processes
from hastezoo.sampling.interpolants import Linear
from hastezoo.training.config import TrainConfig
from hastezoo.training.estimate import Cost, step_cost
from hastezoo.training.links import Fabric, Link
from hastezoo.training.objective import Objective
from hastezoo.training.run import Run
from hastezoo.training.scaling import (
    BUCKET,
    Exchange,
    Layout,
    StepTime,
    Wait,
    Work,
    counts,
    dominates_from,
    exchanges,
    find_layout,
    find_work,
    step_time,
)
from hastezoo.training.shares import checkpoint_share, saved_bytes, seconds_to_write, state_bytes, transit_bytes

# Blocks of 900 parameters, 100 beside them and 60 of a projector; 30 FLOPs an image, 36 with alignment; a teacher of 8.
COST = Cost(4, 1000, 60, 50, 30, 36, 8, 700, 900, 200, blocks=3, block_parameters=900, cast_bytes=170)
PLAIN, ALIGNED = (find_work(COST, "bf16", aligned=aligned) for aligned in (False, True))
FAST, SLOW = Link("fast", "gpu", 4.0, 2.0, ""), Link("slow", "port", 0.5, 7.0, "")
FABRIC = Fabric(8, FAST, SLOW, 2)
# Every size divides by four, so that no share is rounded up.
MODEL = {
    "input_size": 16, "in_channels": 4, "width": 48, "depth": 3, "heads": 3, "num_classes": 15,
}  # fmt: skip


def test_the_work_of_a_step() -> None:
    """The forward pass has a third of the student's FLOPs, a quarter where it is done again; and the teacher's."""
    assert Work(10, 20, 3, 900, 1, 100, 2) == PLAIN
    assert Work(12 + 8, 24, 3, 900, 2, 160, 2) == ALIGNED
    assert (PLAIN.parameters, ALIGNED.parameters) == (1000, 1060)
    again = find_work(COST, "fp32", aligned=False, recompute=True)
    assert again == Work(7.5, 22.5, 3, 900, 1, 100, 4)
    assert find_work(replace(COST, projector_parameters=0), "bf16", aligned=True).others == 1


def sent(work: Work, layout: Layout) -> dict[tuple[str, bool], tuple[float, int]]:
    """(kind, whether backward) -> bytes and messages."""
    return {(one.kind, one.backward): (one.bytes, one.messages) for one in exchanges(work, layout)}


def test_bytes_of_copies() -> None:
    """A ring's all-reduce: 2 (n - 1) / n of the gradients, in buckets."""
    for count in (2, 5, 64):
        assert sent(ALIGNED, Layout(count)) == {("reduce", True): (2 * (count - 1) / count * 4 * 1060, 2)}
    large = replace(PLAIN, other_parameters=10 * BUCKET)
    assert sent(large, Layout(2, 1, 4))["reduce", True] == (pytest.approx(4 * (10 * BUCKET + 900)), 42)


def test_bytes_of_shares() -> None:
    """Blocks are gathered twice, in two bytes, the rest once in four; all gradients are summed in four."""
    for count in (2, 8):
        for portions in (1, 3):
            share = portions * (count - 1) / count
            assert sent(ALIGNED, Layout(count, count, portions)) == {
                ("gather", False): (pytest.approx(share * (2 * 900 + 4 * 160)), 5 * portions),
                ("gather", True): (pytest.approx(share * 2 * 900), 3 * portions),
                ("scatter", True): (pytest.approx(share * 4 * 1060), 5 * portions),
            }


def test_bytes_of_groups() -> None:
    """Within a group those of shares, which do not grow; between groups an all-reduce of a share, once a step."""
    inside = sent(PLAIN, Layout(8, 8, 2))
    for copies in (2, 16):
        found = sent(PLAIN, Layout(8 * copies, 8, 2))
        assert found == {**inside, ("reduce", True): (2 * (copies - 1) / copies * 4 * 1000 / 8, 4)}


def test_limits() -> None:
    """Alone nothing is sent; groups of all are FSDP, groups of one are DDP; the settings mean that."""
    for engine in ("ddp", "fsdp"):
        alone = step_time(ALIGNED, find_layout(engine, 1, 8 if engine == "fsdp" else None), FABRIC, batch=16, flops=4)
        assert alone == StepTime(80, 96) and alone.least == alone.most == alone.compute == 176 and not alone.dominated
    assert find_layout("fsdp", 16, 16, 3) == find_layout("fsdp", 16, None, 3) == Layout(16, 16, 3)
    assert exchanges(PLAIN, find_layout("fsdp", 16, 1)) == exchanges(PLAIN, find_layout("ddp", 16))
    assert [find_layout("fsdp", 16, shards).copies for shards in (2, 8, None)] == [8, 2, 1]
    with pytest.raises(UserError, match=r"12 processes do not divide into groups of parallel\.shards = 8"):
        find_layout("fsdp", 12, 8)


def rings_of(processes: int, shards: int) -> dict[str, list[list[int]]]:
    """The processes of each ring: neighbours hold a copy, those of the same place in it hold the same share."""
    ranks = range(processes)
    copies = [[rank for rank in ranks if rank // shards == group] for group in range(processes // shards)]
    places = [[rank for rank in ranks if rank % shards == place] for place in range(shards)]
    return {"gather": copies, "scatter": copies, "reduce": places}


@pytest.mark.parametrize("gpus_per_node", [1, 2, 3, 6, 8])
def test_seconds_of_every_ring_counted_one_by_one(gpus_per_node: int) -> None:
    """Of each process that sends to its neighbour in a ring: over its own link, or over its node's ports, where what
    all its node's processes send out adds up; a turn takes as long as its slowest hop."""
    fabric = Fabric(gpus_per_node, FAST, SLOW, 2)
    for processes in (2, 4, 6, 12, 16, 24):
        for shards in (count for count in range(1, processes + 1) if processes % count == 0):
            for exchange in exchanges(PLAIN, Layout(processes, shards)):
                hops = [
                    (ring[place - 1] // gpus_per_node, rank // gpus_per_node)
                    for ring in rings_of(processes, shards)[exchange.kind]
                    for place, rank in enumerate(ring)
                ]
                out = Counter(before for before, after in hops if before != after)
                loads = [exchange.bytes * count / 1e9 for count in out.values()]
                seconds = max([exchange.bytes / 4e9 if sum(out.values()) < len(hops) else 0.0, *loads])
                latency = max((7.0 if before != after else 2.0) * 1e-6 for before, after in hops)
                seconds += exchange.messages * exchange.turns * latency
                wait = exchange.wait(processes, fabric)
                assert wait.crosses == bool(out), (processes, shards, exchange)
                assert wait.seconds == pytest.approx(seconds, rel=1e-12), (processes, shards, exchange)
                assert exchange.turns == (2 if exchange.kind == "reduce" else 1) * (exchange.size - 1)


def test_a_node_of_many_ports_is_held_back_by_its_links_and_the_other_way_round() -> None:
    """32 GPUs in nodes of 8: 4 GB/s within, 1 GB/s out of a node; of eight rings an eighth of that each."""
    (reduce,) = exchanges(PLAIN, Layout(32))
    assert reduce.wait(32, FABRIC).seconds == pytest.approx(reduce.bytes / 1e9 + 2 * 62 * 7e-6)
    many = replace(FABRIC, ports=100)
    assert reduce.wait(32, many).seconds == pytest.approx(reduce.bytes / 4e9 + 2 * 62 * 7e-6)
    *inside, between = exchanges(PLAIN, Layout(32, 8))
    assert between.wait(32, FABRIC).seconds == pytest.approx(between.bytes / (1e9 / 8) + 4 * 6 * 7e-6)
    assert [one.wait(32, FABRIC).crosses for one in inside] == [False] * 3
    assert sum(one.wait(32, FABRIC).seconds for one in inside) == pytest.approx(
        7 / 8 * (2 * 2 * 900 + 4 * 100 + 4 * 1000) / 4e9 + (4 + 3 + 4) * 7 * 2e-6
    )


def step(*waits: tuple[float, bool, bool, bool], accumulation: int = 1) -> StepTime:
    """3 s forward, 6 s backward, and waits of so many seconds: whether they cross, are backward, are sent once."""
    made = (
        Wait(Exchange("reduce", backward, 1, 1, 2, once=once), crosses, seconds)
        for seconds, crosses, backward, once in waits
    )
    return StepTime(3, 6, tuple(made), accumulation)


def test_bounds() -> None:
    """Links within nodes and between them may be busy at once, each with one thing at a time."""
    mixed = step((4, False, False, False), (5, False, True, False), (7, True, True, True))
    assert (mixed.compute, mixed.communication, mixed.most) == (9, 16, 25)
    assert mixed.least == 9 and step((4, False, False, False), (6, False, True, False)).least == 10
    assert step((4, False, False, False), (6, True, True, False)).least == 9
    assert step((3, True, True, True), (8, True, True, True)).least == 11


def test_what_dominates() -> None:
    """A kind of link that is busy for longer than the 6 s of the backward pass, or of its last portion."""
    assert not step((6, False, True, False), (6, True, True, True), (99, True, False, False)).dominated
    assert step((6.1, False, True, False)).dominated and step((3, True, True, False), (3.1, True, True, True)).dominated
    assert not step((6, False, True, False), accumulation=3).dominated  # 2 s with each portion
    assert step((6.1, False, True, False), accumulation=3).dominated
    assert step((2.1, True, True, True), accumulation=3).dominated
    assert not step((2, True, True, True), accumulation=3).dominated
    assert not step((3, True, True, False), (1, True, True, True), accumulation=3).dominated
    assert step((3, True, True, False), (1.1, True, True, True), accumulation=3).dominated


def test_counts() -> None:
    assert counts(12) == [1, 2, 3, 4, 6, 12] and counts(12, shards=2) == [2, 4, 6, 12]
    assert counts(12, accumulation=3) == [1, 2, 4] and counts(12, accumulation=5) == []
    assert counts(12, shards=8) == []


@pytest.mark.parametrize(("engine", "shards"), [("ddp", None), ("fsdp", None), ("fsdp", 8)])
@pytest.mark.parametrize("portions", [1, 2])
def test_dominates_from_the_smallest_number(engine: str, shards: int | None, portions: int) -> None:
    """At the count found it does, at none before, and at all after; faster GPUs find one that is not larger."""
    found = []
    for flops in (10 ** (power / 4) for power in range(32, 60)):
        how: Any = {"engine": engine, "shards": shards, "accumulation": portions}
        large = replace(PLAIN, block_parameters=10**6, forward_flops=1e8, backward_flops=2e8)
        first = dominates_from(large, FABRIC, batch=256, flops=flops, **how)
        for count in counts(256, shards=shards, accumulation=portions):
            time = step_time(large, find_layout(engine, count, shards, portions), FABRIC, batch=256, flops=flops)
            assert time.dominated == (first is not None and count >= first), (flops, count)
        found.append(first or 1000)
    assert found == sorted(found, reverse=True) and len(set(found)) > 3 and found[0] == 1000


def test_more_of_what_costs_costs_more() -> None:
    """Of random work: with more GPUs computing takes less and communicating not; faster links never take longer."""
    dice = random.Random(0)
    for _ in range(100):
        work = Work(*(dice.randint(1, 10**9) for _ in range(2)), dice.randint(1, 40), dice.randint(1, 10**9), 1, 999, 4)
        fabric = Fabric(8, replace(FAST, rate=dice.uniform(1, 500)), replace(SLOW, rate=dice.uniform(1, 500)), 4)
        for shards in (1, 8, None):
            times = [
                step_time(work, Layout(count, shards or count), fabric, batch=256, flops=1e9)
                for count in (8, 16, 32, 64, 256)
            ]
            assert all(time.compute <= time.least <= time.most for time in times)
            for fewer, more in pairwise(times):
                assert more.compute < fewer.compute and more.communication >= fewer.communication
            faster = replace(fabric, between=replace(fabric.between, rate=2 * fabric.between.rate))
            time = step_time(work, Layout(64, shards or 64), faster, batch=256, flops=1e9)
            assert time.communication <= times[3].communication and time.compute == times[3].compute


def test_memory_and_checkpoints() -> None:
    """20 bytes of each of 1000 parameters, 16 of the projector's 60, spread; the teacher's 200 on each."""
    assert [state_bytes(COST, Layout(16, shards)) for shards in (1, 8, 16)] == [21160, 2820, 1510]
    assert state_bytes(COST, Layout(16)) == COST.state_bytes
    assert [saved_bytes(COST, Layout(16, shards), aligned=True) for shards in (1, 8)] == [900, 900 - 170]
    assert saved_bytes(COST, Layout(16, 8), aligned=False) == 700 - 170
    assert transit_bytes(Layout(16, 8), ALIGNED) == 300 * (2 * 2 + 2 + 4) + 8 * 160
    assert transit_bytes(Layout(8), PLAIN) == 0
    assert COST.checkpoint_bytes == 16 * 1000 + 12 * 60 == 16720
    assert [checkpoint_share(COST, Layout(n), sharded=True) for n in (1, 8, 32)] == [16720, 2090, 523]
    assert checkpoint_share(COST, Layout(8, 8), sharded=False) == 16720

    def write(layout: Layout, sharded: bool) -> float:
        return seconds_to_write(COST, layout, sharded=sharded, gpus_per_node=8, disk=2.0)

    assert write(Layout(4), True) == write(Layout(8), True) == write(Layout(32), False) == pytest.approx(16720 / 2e9)
    assert write(Layout(32), True) == pytest.approx(8 * 523 / 2e9)


# What a real run says to the other processes, who are not there: torch has a group that sends nothing.


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes this process the first of so many, of whom none answers."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    monkeypatch.setattr(dist, "new_group", lambda **_: None)  # over gloo, for checkpoints

    def join(count: int) -> Processes:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
        return Processes(0, count, torch.device("cpu"))

    yield join
    dist.destroy_process_group()


def begin(processes: Processes, out: Path, precision: str, portions: int, again: bool = False, **how: Any) -> Run:
    train = {"steps": 9, "batch_size": processes.count * portions, "accumulation": portions, "precision": precision}
    config = TrainConfig.model_validate({**train, "parallel": how, "activation_checkpointing": again})
    return Run(create_model("sit", **MODEL), Objective(Linear(), 15, None), config, out, processes)


def advance(run: Run) -> None:
    count = run.config.accumulation
    run.advance(Batch(torch.randn(count, 4, 16, 16), torch.zeros(count, dtype=torch.int64)), (4, 16, 16))


class Overheard(torch.utils._python_dispatch.TorchDispatchMode):
    """Bytes and messages of each kind: the larger side of what lies spread, and what is summed up."""

    KINDS = {"_allgather_base_": "gather", "_reduce_scatter_base_": "scatter", "allreduce_": "reduce"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.messages: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            kind = self.KINDS[function._schema.name.partition("::")[2]]
            tensors = [one for one in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
            self.messages[kind] += 1
            self.bytes[kind] += max(one.nbytes for one in tensors)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("count", "shards", "precision", "portions", "again"),
    [(4, None, "bf16", 1, False), (8, 4, "bf16", 2, False), (8, 4, "fp32", 1, True)],
)
def test_a_real_step_of_shares_sends_what_is_said(
    count: int, shards: int | None, precision: str, portions: int, again: bool, nobody: Any, tmp_path: Path
) -> None:
    """To the byte and the message, in the second step, and so is what lies on a GPU."""
    run = begin(nobody(count), tmp_path, precision, portions, again, engine="fsdp", shards=shards)
    advance(run)
    with Overheard() as overheard:
        advance(run)
    cost = step_cost("sit", MODEL, None, batch=1, precision=precision, recompute=again)
    layout = find_layout("fsdp", count, shards, portions)
    wanted = exchanges(find_work(cost, precision, aligned=False, recompute=again), layout)
    for kind in ("gather", "scatter", "reduce"):
        of_kind = [one for one in wanted if one.kind == kind]
        assert overheard.messages[kind] == sum(one.messages for one in of_kind), kind
        whole = sum(one.bytes * one.size / (one.size - 1) / (2 if kind == "reduce" else 1) for one in of_kind)
        assert overheard.bytes[kind] == pytest.approx(whole, rel=1e-12), kind

    def here(tensors: Any) -> int:
        return sum(one.to_local().nbytes for one in tensors if one.ndim)

    weights = list(run.model.parameters())
    moments = [one for state in run.optimizer.state.values() for one in state.values()]
    gradients = [one.grad for one in weights]
    whole = here(weights) + here(gradients) + here(moments) + here(run.ema.model.parameters())
    assert whole == state_bytes(cost, layout)


@pytest.mark.parametrize("portions", [1, 2])
def test_a_real_step_of_copies_sends_what_is_said(portions: int, nobody: Any, tmp_path: Path) -> None:
    """All gradients, once a step, in no more buckets than are counted."""
    run = begin(nobody(4), tmp_path, "bf16", portions, engine="ddp")
    buckets: list[int] = []

    def listen(state, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and wants no strings
        buckets.append(bucket.buffer().nbytes)
        answer = torch.futures.Future()
        answer.set_result(bucket.buffer())
        return answer

    run.wrapped.register_comm_hook(None, listen)  # type: ignore[operator]
    advance(run)
    buckets.clear()
    advance(run)
    work = find_work(step_cost("sit", MODEL, None, batch=1, precision="bf16"), "bf16", aligned=False)
    (reduce,) = exchanges(work, Layout(4, 1, portions))
    assert 2 * 3 / 4 * sum(buckets) == reduce.bytes and len(buckets) <= reduce.messages


@pytest.mark.parametrize("name", ["sit_b_2", "sit_xl_2"])
def test_buckets_of_large_models_are_not_more_than_counted(name: str) -> None:
    """By torch's own rule: in the order of the backward pass, a small one first."""
    with torch.device("meta"):
        model = create_model(name, input_size=32, in_channels=4, num_classes=1000)
        weights = [torch.empty(one.shape) for one in reversed(list(model.parameters())) if one.requires_grad]
    buckets, _ = dist._compute_bucket_assignment_by_size(weights, [2**20, BUCKET], [False] * len(weights))
    blocks = sum(one.numel() for one in model.blocks.parameters())  # type: ignore[union-attr, operator]
    work = Work(1, 2, 1, blocks, 1, sum(one.numel() for one in weights) - blocks, 2)
    (reduce,) = exchanges(work, Layout(2))
    assert len(buckets) <= reduce.messages <= 2 * len(buckets)
    assert reduce.bytes == sum(one.nbytes for one in weights)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("architecture", ["sit", "mmdit"])
def test_blocks_in_bfloat16_keep_no_copies(architecture: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on blocks whose parameters are in bfloat16, as FSDP gathers them."""
    from hastezoo.training import estimate
    from tests.training.test_estimate import MODELS

    made = estimate._student

    def in_bfloat16(*arguments: Any) -> Any:
        student = made(*arguments)
        for part in student.blocks.modules():
            for name, weight in part.named_parameters(recurse=False):
                setattr(part, name, torch.nn.Parameter(weight.bfloat16()))
        return student

    def cost() -> Cost:
        estimate._count_step.cache_clear()
        return step_cost(architecture, MODELS[architecture], None, batch=5, precision="bf16", recompute=again)

    copying = cost()
    monkeypatch.setattr(estimate, "_student", in_bfloat16)
    plain = cost()
    estimate._count_step.cache_clear()
    assert copying.cast_bytes > 0
    assert copying.plain_saved - copying.cast_bytes == plain.plain_saved
    assert math.isclose(saved_bytes(copying, Layout(2, 2), aligned=False), plain.plain_saved)
