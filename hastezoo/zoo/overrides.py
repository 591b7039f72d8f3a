"""By which settings two protocols draw other images, whatever they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hastezoo.errors import UserError
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo.registry import protocols

NOT_OF_AN_IMAGE = {"count", "labels"}  # these say which images there are, not what one looks like
SDE = {"diffusion", "diffusion_norm", "last_step", "last_step_size"}


def read_protocol(settings: Mapping[str, Any] | None) -> Protocol | None:
    """A protocol from its written form; None where there is none, or it has what this version does not know."""
    if settings is None:
        return None
    try:
        return Protocol.model_validate(settings)
    except (ValidationError, UserError):
        return None


def stated_protocol(name: str, overrides: Mapping[str, Any]) -> Protocol | None:
    """The named protocol with some settings changed; None where the name is empty or not known."""
    named = protocols().get(name)
    return named and read_protocol({**named.model_dump(), **overrides})


def differing(a: Protocol, b: Protocol, path: str = "linear") -> dict[str, tuple[Any, Any]]:
    """Settings by which images are drawn otherwise, each with both values.

    What has no effect is passed over: the interval without guidance, the diffusion of an ODE, the steps of dopri5, and
    on the linear path the form of the diffusion `sigma` for `linear`, which are both 2 t.

    Args:
        a, b: Protocols.
        path: The interpolant of the model that draws.
    """
    left, right = _effective(a, path), _effective(b, path)
    # A setting has an effect under one of them only where another differs: cfg or the solver.
    return {key: (left[key], right[key]) for key in left if key in right and left[key] != right[key]}


def _effective(protocol: Protocol, path: str) -> dict[str, Any]:
    values = protocol.model_dump(exclude=NOT_OF_AN_IMAGE)
    idle = {"steps"} if protocol.solver == "dopri5" else {"rtol", "atol"}
    if protocol.cfg == 1:
        idle |= {"interval", "channels"}
    if not protocol.stochastic:
        idle |= SDE
    elif protocol.last_step == "none":
        idle |= {"last_step_size"}
    if path == "linear" and protocol.diffusion == "sigma":
        values["diffusion"] = "linear"
    return {key: value for key, value in values.items() if key not in idle}


def overridden(settings: Mapping[str, Any] | None, name: str | None) -> dict[str, Any]:
    """What of a protocol's written form is not as the named protocol has it, whatever the path of the model.

    Args:
        settings: All settings that were used.
        name: Of the protocol they began from.
    """
    used, named = read_protocol(settings), protocols().get(name or "")
    if used is None or named is None:
        return {}
    # Also what has no effect under the named protocol, such as an interval that came with guidance.
    return {key: value for key, value in _effective(used, "").items() if value != getattr(named, key)}


def setting(key: str, value: Any) -> str:
    """A setting in words: `steps 50`, `interval [0, 0.72]`, `channels all`."""
    return f"{key} {words(value)}"


def words(value: Any) -> str:
    """A setting's value in words."""
    if value is None:
        return "all"  # channels, the only setting of a protocol that may be unset and has an effect
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(words, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
