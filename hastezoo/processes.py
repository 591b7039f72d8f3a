"""The processes of a run: one, or as many as torchrun started."""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hastezoo.errors import UserError
from hastezoo.heartbeat import Heart, Heartbeat, Silent

# Of collectives. Heartbeats tell sooner and better who is missing, and a quick FID may keep all others waiting.
PATIENCE = datetime.timedelta(hours=24)


@dataclass(frozen=True)
class Processes:
    """Which process this is, and where it computes.

    Attributes:
        heart: Tells the others how far this process is, and watches them.
    """

    rank: int
    count: int
    device: torch.device
    heart: Heart = field(default_factory=Silent)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
            value /= self.count
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return self.most(int(flag)) > 0

    def most(self, value: int) -> int:
        """The largest of the processes' numbers. CPUs ask each other, so that no GPU waits."""
        if self.count == 1:
            return value
        answer = torch.tensor(value)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return int(answer)

    def from_main(self, value: Any) -> Any:
        """What the main process has, on every process; a small plain value."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: torch.device, *, silence: float = 60.0, stall: float = 900.0) -> Processes:
    """Join what torchrun started (gloo on the CPU, NCCL on CUDA), or run alone.

    Args:
        device: Where this process computes; of CUDA each takes the GPU of its number.
        silence, stall: Seconds without a sign of life from a process, or without a step of any, that end the job.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(0, 1, device)
    _end_with_launcher()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    heart = Heartbeat.join(rank=int(os.environ["RANK"]), count=count, silence=silence, stall=stall)
    # Beside NCCL gloo, by which CPUs agree on things.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, _ = next(dist.rendezvous("env://", timeout=PATIENCE))
    # torchrun starts workers again beside the same store, where the addresses of those that ended still are.
    attempt = f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}-of-{count}"
    dist.init_process_group(
        backend, store=dist.PrefixStore(attempt, store), rank=rank, world_size=count, timeout=PATIENCE
    )
    return Processes(rank, count, device, heart)


def share_of_processes(device: torch.device) -> Processes:
    """This process among those of torchrun or a scheduler, for work that is shared out by number: they need not talk.

    Args:
        device: Where it computes; of CUDA it takes the GPU of LOCAL_RANK.

    Raises:
        UserError: If RANK, WORLD_SIZE or LOCAL_RANK is no number that it can be.
    """
    count = _number_of("WORLD_SIZE", 1)
    if count < 1:
        raise UserError(f"WORLD_SIZE={count} is no number of processes; it is 1 or more")
    if count == 1:
        return Processes(0, 1, device)
    _end_with_launcher()
    rank = _number_of("RANK", None)
    if not 0 <= rank < count:
        raise UserError(f"RANK={rank} is none of WORLD_SIZE={count}: ranks count from 0 to {count - 1}")
    if device.type == "cuda":
        gpu, gpus = _number_of("LOCAL_RANK", device.index or 0), torch.cuda.device_count()
        if not 0 <= gpu < gpus:
            raise UserError(f"LOCAL_RANK={gpu} has no GPU of its own: the machine has {gpus}, counted from 0")
        device = torch.device("cuda", gpu)
    return Processes(rank, count, device)


def _number_of(name: str, default: int | None) -> int:
    """What the environment says, of a process among several."""
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.removeprefix("-").isdecimal():
        given = f"is {text!r}" if text else "is not set"
        raise UserError(f"{name} {given}: a process of several needs RANK and WORLD_SIZE, as torchrun sets them")
    return int(text)


def _end_with_launcher() -> None:
    """End when torchrun is killed: its workers would train on unseen, beside those that the next command starts."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_launcher() -> None:
    """Have torchrun end, of whose workers this is the first; nothing where none started it.

    It would take workers that were stopped, and say so by their exit code, for failed ones, and start them again.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK") == "0":
        os.kill(os.getppid(), signal.SIGTERM)


def leave_processes() -> None:
    """Close the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
