"""Links against the arithmetic of their data sheets, and how they are named."""

from __future__ import annotations

import pytest

from hastezoo.errors import UserError
from hastezoo.training.gpus import list_gpus
from hastezoo.training.links import find_fabric, find_link, list_links

NVLINK = {"v100": 300, "a100": 600, "h100": 900, "h200": 900, "b200": 1800}  # GB/s, both directions
TRANSFERS = {"3": 8, "4": 16, "5": 32}  # GT/s of a lane of PCI Express; of 130 bits 128 are data
GIGABITS = {"infiniband-hdr": 200, "infiniband-ndr": 400}  # of a port of four lanes


def test_rates_are_those_of_data_sheets_in_one_direction() -> None:
    for name, link in list_links().items():
        kind, _, size = name.partition("-")
        if kind == "nvlink":
            wanted, sheet = NVLINK[size] / 2, f"{NVLINK[size]} GB/s" if NVLINK[size] < 1000 else "1.8 TB/s"
        elif kind.startswith("pcie"):
            lane = TRANSFERS[kind.removeprefix("pcie")]
            wanted, sheet = lane * 16 * 128 / 130 / 8, f"{lane} GT/s"
        else:
            gigabits = GIGABITS.get(name) or int(size.removesuffix("g"))
            wanted, sheet = gigabits / 8, f"{gigabits} Gb/s"
        assert link.rate == pytest.approx(wanted, rel=1e-3) and sheet in link.about, name
        assert link.per == ("gpu" if kind.startswith(("nvlink", "pcie")) else "port") and link.latency > 0


def test_what_is_needed_is_there() -> None:
    assert {f"ethernet-{rate}g" for rate in (10, 25, 100, 200, 400)} <= set(list_links())
    assert all(list_links()[gpu.link].per == "gpu" for gpu in list_gpus().values())
    assert list_gpus()["h100"].link == "nvlink-h100"


@pytest.mark.parametrize(
    ("between", "ports", "rate"),
    [
        ("infiniband-ndr", 1, 50),
        ("8xinfiniband-ndr", 8, 400),
        ("8 X InfiniBand-NDR", 8, 400),
        ("ethernet-25g", 1, 3.125),
        ("nvlink-h100", 4, 1800),  # of many nodes: a GPU's own
        ("1xpcie4-x16", 1, 31.5),
    ],
)
def test_a_fabric_by_its_names(between: str, ports: int, rate: float) -> None:
    fabric = find_fabric(4, "PCIe5-x16", between)
    assert (fabric.gpus_per_node, fabric.within.name, fabric.ports) == (4, "pcie5-x16", ports)
    assert fabric.node_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, "nvlink-h10", "ethernet-25g"), "unknown link 'nvlink-h10'; near it: nvlink-h100"),
        ((8, "nvlink-h100", "8xethernet-25"), "unknown link 'ethernet-25'; near it: ethernet-25g"),
        ((8, "nvlink-h100", ""), "unknown link ''"),
        ((8, "nvlink-h100", "0xethernet-25g"), "1 or more ports to others, not '0xethernet-25g'"),
        ((0, "nvlink-h100", "ethernet-25g"), "1 or more GPUs, not 0"),
        ((8, "ethernet-25g", "ethernet-25g"), "ethernet-25g joins nodes; within a node take nvlink-v100, .*pcie5-x16"),
    ],
)
def test_what_cannot_be(arguments: tuple[int, str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_fabric(*arguments)


def test_a_name_that_is_near_nothing_is_shown_all() -> None:
    with pytest.raises(UserError, match=r"pcie3-x16, .*roce-400g"):
        find_link("?")
