"""The processes of a run: one, or as many as torchrun started."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """Which process this is, and where it computes."""

    rank: int
    count: int
    device: torch.device

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
        return flag if self.count == 1 else bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join what torchrun started (gloo on the CPU, NCCL on CUDA), or run alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(0, 1, device)
    _end_with_launcher()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), count, device)


def share_of_processes(device: torch.device) -> Processes:
    """This process among those of torchrun, for work that is shared out by number: they need not talk to each other."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(0, 1, device)
    _end_with_launcher()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return Processes(int(os.environ["RANK"]), count, device)


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


def leave_processes() -> None:
    """Close the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
