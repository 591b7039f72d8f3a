"""How GPUs are joined: links by name, by their data sheets (`links.toml`), within a node and between nodes."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from hastezoo.errors import UserError, nearest


@dataclass(frozen=True)
class Link:
    """A link by its data sheet.

    Attributes:
        name: Such as `nvlink-h100`.
        per: Whether each GPU has one, or a node some ports.
        rate: GB/s in one direction.
        latency: Microseconds from a process to the next; assumed.
        about: What the data sheet says.
    """

    name: str
    per: Literal["gpu", "port"]
    rate: float
    latency: float
    about: str


@cache
def list_links() -> dict[str, Link]:
    """The links of `links.toml` by name."""
    table = tomllib.loads(Path(__file__).with_name("links.toml").read_text(encoding="utf-8"))
    return {name: Link(name, **values) for name, values in table.items()}


def find_link(name: str) -> Link:
    """A link by name.

    Raises:
        UserError: If it is not known; the message names the nearest.
    """
    known = list_links()
    if name.lower() not in known:
        near = nearest(name, known) or list(known)
        raise UserError(f"unknown link {name!r}; near it: {', '.join(near)}")
    return known[name.lower()]


def _of_gpus() -> list[str]:
    return [link.name for link in list_links().values() if link.per == "gpu"]


@dataclass(frozen=True)
class Fabric:
    """How the GPUs of a run are joined.

    Attributes:
        gpus_per_node: How many a node has.
        within: Joins the GPUs of a node.
        between: Joins nodes.
        ports: How many of `between` a node has. One of a GPU each, such as an NVLink of many nodes, counts as many.
    """

    gpus_per_node: int
    within: Link
    between: Link
    ports: int = 1

    @property
    def node_rate(self) -> float:
        """GB/s that leave a node, all ports together."""
        return self.between.rate * self.ports


def find_fabric(gpus_per_node: int, within: str, between: str) -> Fabric:
    """A fabric by the names of its links.

    Args:
        gpus_per_node: How many a node has.
        within: Name of a link.
        between: Name of a link, or how many ports of it a node has and its name: `8xinfiniband-ndr`.

    Raises:
        UserError: If a link is not known or in the wrong place, or there is no GPU or port.
    """
    if gpus_per_node < 1:
        raise UserError(f"a node has 1 or more GPUs, not {gpus_per_node}")
    found = re.fullmatch(r"(?:(\d+)\s*x\s*)?(.+)", between.strip(), re.IGNORECASE)
    count, name = found.groups() if found else (None, between)
    ports = 1 if count is None else int(count)
    if ports < 1:
        raise UserError(f"a node has 1 or more ports to others, not {between!r}")
    inside, link = find_link(within), find_link(name)
    if inside.per != "gpu":
        raise UserError(f"{inside.name} joins nodes; within a node take {', '.join(_of_gpus())}")
    if count is None and link.per == "gpu":
        ports = gpus_per_node
    return Fabric(gpus_per_node, inside, link, ports)
