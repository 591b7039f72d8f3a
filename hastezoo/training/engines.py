"""How a run lies over its processes: a copy of everything on each (DDP), or a share (FSDP2). The steps are the same.

Sources: torch.nn.parallel.DistributedDataParallel; torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hastezoo.errors import UserError
from hastezoo.processes import Processes
from hastezoo.training.config import TrainConfig


class Engine(Protocol):
    """Spreads networks over processes. What it does is done by all of them together."""

    def lay_out(self, network: nn.Module) -> None:
        """Spread a network's parameters, in place; before an optimizer is made for them."""

    def wrap(self, student: nn.Module) -> nn.Module:
        """What is called in the place of a student whose networks are laid out, so that its gradients are averaged."""

    def portion(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Around a forward and backward pass of a step, or the last of it, after which gradients are whole."""

    def whole(self, network: nn.Module, *, everywhere: bool = False) -> nn.Module | None:
        """The network with all of its parameters, as they are now.

        On the main process or `everywhere`, elsewhere None. The same object each time, to be looked at and not changed.
        """


class Replicated:
    """One process, or a copy on each of several."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def lay_out(self, network: nn.Module) -> None:
        """Every process has it."""

    def wrap(self, student: nn.Module) -> nn.Module:
        if self.processes.count == 1:
            return student
        devices = [self.processes.device] if self.processes.device.type == "cuda" else None
        with warnings.catch_warnings():  # the option gets another name, which torch of a year ago does not know
            warnings.simplefilter("ignore", FutureWarning)
            # The only buffer is the table of positions, the same everywhere; and gradients need not be kept twice.
            return DistributedDataParallel(
                student, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def portion(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[Any]:
        waiting = isinstance(wrapped, DistributedDataParallel) and not last
        context: AbstractContextManager[Any] = wrapped.no_sync() if waiting else nullcontext()  # type: ignore[operator]
        return context

    def whole(self, network: nn.Module, *, everywhere: bool = False) -> nn.Module | None:
        return network if self.processes.main or everywhere else None


class Sharded:
    """A share of every parameter on each process; all together, or a number of them, hold one copy (FSDP2).

    Each block is a unit that is gathered before it runs, forward and backward, and let go after. In bf16 blocks are
    gathered in bfloat16, to which autocast would round them anyway, and gradients are summed in float32.

    Raises:
        UserError: If the processes do not divide into groups of `shards`.
    """

    def __init__(self, processes: Processes, shards: int | None, precision: str) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        count = processes.count
        shards = shards or count
        if count % shards:
            raise UserError(f"{count} processes do not divide into groups of parallel.shards = {shards}")
        kind = processes.device.type
        self.hybrid = shards < count
        shape, names = ((count // shards, shards), ("replicate", "shard")) if self.hybrid else ((count,), ("shard",))
        self.mesh = init_device_mesh(kind, shape, mesh_dim_names=names)
        self.processes, self.precision = processes, precision
        self._outlines: dict[nn.Module, nn.Module] = {}  # of each network, without values
        self._copies: dict[nn.Module, nn.Module] = {}

    def lay_out(self, network: nn.Module) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # It warns that blocks put out views, which must not be changed in place; nobody does.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        self._outlines[network] = copy.deepcopy(network).to("meta")
        gathered = torch.bfloat16 if self.precision == "bf16" else None
        policy = MixedPrecisionPolicy(gathered, torch.float32, cast_forward_inputs=False)
        for block in getattr(network, "blocks", ()):
            fully_shard(block, mesh=self.mesh, mp_policy=policy)
        # What is outside of blocks is small, and the embedding of times must not be rounded.
        rest = MixedPrecisionPolicy(None, torch.float32, cast_forward_inputs=False)
        fully_shard(network, mesh=self.mesh, mp_policy=rest)

    def wrap(self, student: nn.Module) -> nn.Module:
        return student  # its networks average their gradients themselves

    def portion(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Gradients of every portion are shared out, since there is no room for whole ones; copies sum them up once."""
        from torch.distributed.fsdp import FSDPModule

        for network in wrapped.children():
            if isinstance(network, FSDPModule):
                network.set_requires_all_reduce(last or not self.hybrid)
        return nullcontext()

    @torch.no_grad()
    def whole(self, network: nn.Module, *, everywhere: bool = False) -> nn.Module | None:
        keeps = self.processes.main or everywhere
        if keeps and network not in self._copies:
            self._copies[network] = copy.deepcopy(self._outlines[network]).to_empty(device=self.processes.device)
        target = self._copies[network].state_dict() if keeps else {}
        for name, value in network.state_dict().items():
            value = gathered(value)
            if keeps:
                target[name].copy_(value)
        return self._copies.get(network) if keeps else None


def create_engine(config: TrainConfig, processes: Processes) -> Engine:
    """The engine that the settings name; alone, a process has everything.

    Raises:
        UserError: If the processes do not divide over it.
    """
    parallel = config.parallel
    if parallel.engine == "ddp" or processes.count == 1:
        return Replicated(processes)
    return Sharded(processes, parallel.shards, config.precision)


def compile_blocks(network: nn.Module) -> None:
    """Have the blocks of a network compiled when they first run. All are alike, so that it is done once, in seconds."""
    for block in network.blocks:  # type: ignore[union-attr]
        # The method and not the module: parameters keep their names, and hooks of an engine stay outside.
        block.forward = torch.compile(block.forward)


def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process may have a share; a collective then."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def own_share(tensor: Tensor) -> Tensor:
    """What this process has of a tensor, to be read or changed in place."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


@torch.no_grad()
def put(target: Tensor, whole: Tensor) -> None:
    """Write a whole tensor, which every process has, into one of which it may have a share."""
    if not hasattr(target, "full_tensor"):
        target.copy_(whole)
        return
    from torch.distributed.tensor import distribute_tensor

    whole = whole.to(target.device, target.dtype)
    target.copy_(distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None))  # type: ignore[attr-defined]
