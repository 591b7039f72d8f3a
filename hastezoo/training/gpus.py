"""GPUs by name, by their data sheets (`gpus.toml`), and how long they take for so many FLOPs."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hastezoo.errors import UserError, nearest


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet.

    Attributes:
        name: Such as `h100`.
        bf16: Peak of dense matrices in bfloat16 (V100: float16) on tensor cores, in TFLOP/s.
        fp32: Peak in float32 without tensor cores, in TFLOP/s.
        memory: GB.
        link: What joins it to others in a node, of `links.toml`.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    link: str

    def flops(self, utilisation: float, precision: str = "bf16") -> float:
        """FLOP/s at a share of the peak in (0, 1].

        Raises:
            UserError: If the share is out of range.
        """
        if not 0 < utilisation <= 1:
            raise UserError(f"utilisation is a share of the peak above 0 and up to 1, not {utilisation}")
        return (self.bf16 if precision == "bf16" else self.fp32) * 1e12 * utilisation


@cache
def list_gpus() -> dict[str, Gpu]:
    """The GPUs of `gpus.toml` by name."""
    table = tomllib.loads(Path(__file__).with_name("gpus.toml").read_text(encoding="utf-8"))
    return {name: Gpu(name, **values) for name, values in table.items()}


def find_gpu(name: str) -> Gpu:
    """A GPU by name.

    Raises:
        UserError: If it is not known; the message names the nearest.
    """
    known = list_gpus()
    if name.lower() not in known:
        near = nearest(name, known) or list(known)
        raise UserError(f"unknown GPU {name!r}; near it: {', '.join(near)}")
    return known[name.lower()]


def hours(total_flops: float, gpu: Gpu, gpus: int, utilisation: float, precision: str = "bf16") -> float:
    """Hours that so many FLOPs take.

    Args:
        total_flops: Of the run.
        gpu, gpus: Which, and how many share the work.
        utilisation: Share of the peak that is reached, in (0, 1].
        precision: Whose peak, bf16 or fp32.

    Raises:
        UserError: If the number of GPUs or the utilisation is out of range.
    """
    if gpus < 1:
        raise UserError(f"1 or more GPUs are needed, not {gpus}")
    return total_flops / (gpu.flops(utilisation, precision) * gpus) / 3600
