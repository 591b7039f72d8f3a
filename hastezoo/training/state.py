"""What of a run a checkpoint holds: tensors by name, which may be spread over processes, and plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hastezoo.errors import UserError
from hastezoo.training.engines import put


@dataclass(frozen=True)
class State:
    """The parts of a run that change, as they are now.

    Attributes:
        step: Steps done.
        model, ema, projector: Networks; no projector where alignment is none, or has ended.
        optimizer: AdamW over the parameters of model and projector, in this order.
        values: Plain ones beside them: whether alignment has ended, and what its trigger saw.
    """

    step: int
    model: nn.Module
    ema: nn.Module
    projector: nn.Module | None
    optimizer: torch.optim.Optimizer
    values: dict[str, Any]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """By their names in a checkpoint."""
        own = {"model": self.model, "ema": self.ema}
        return own if self.projector is None else {**own, "projector": self.projector}

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The optimizer's parameters by name, in its order."""
        parts = [(part, network) for part, network in self.networks.items() if part != "ema"]
        return {f"{part}.{name}": one for part, network in parts for name, one in network.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors: `model.NAME`, `ema.NAME`, `projector.NAME`, and `optimizer.NAME.KEY` for a parameter NAME."""
        found = {
            f"{part}.{name}": tensor
            for part, network in self.networks.items()
            for name, tensor in network.state_dict().items()
        }
        for name, parameter in self.trained.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer.{name}.{key}"] = value
        return found

    def nested(self) -> dict[str, Any]:
        """As one file holds it: the state dict of every part, the optimizer's by the numbers of its parameters."""
        states = {part: network.state_dict() for part, network in self.networks.items()}
        return {"step": self.step, **states, "optimizer": self.optimizer.state_dict(), **self.values}

    @torch.no_grad()
    def begin_optimizer(self) -> None:
        """Make what AdamW makes at its first step, to be read into."""
        for parameter in self.trained.values():
            moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            self.optimizer.state[parameter] = {"step": torch.zeros(()), **moments}

    def read_nested(self, nested: dict[str, Any], source: object) -> None:
        """Take the values of what `nested` gave, which every process has whole.

        Raises:
            UserError: If a tensor is missing, or of another shape.
        """
        names = list(self.trained)
        found = {f"{part}.{name}": one for part in self.networks for name, one in nested.get(part, {}).items()}
        for index, values in nested["optimizer"]["state"].items():
            if index < len(names):
                found |= {f"optimizer.{names[index]}.{key}": value for key, value in values.items()}
        for name, target in self.tensors().items():
            if name not in found or found[name].shape != target.shape:
                raise UserError(f"checkpoint {source} does not fit the run: it has no {name} of {tuple(target.shape)}")
            put(target, found[name])
