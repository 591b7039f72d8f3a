"""Where the network runs, in which dtype, and how many images fit at a time."""

from __future__ import annotations

import os
from typing import Any

import torch

from hastezoo.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO_LIMIT = 256  # a bound, so that progress stays visible; not a measured optimum
# On a CPU, buffers beyond about this size leave the cache and are handed back to the system each time: the page faults
# cost more than larger matrices gain (benchmarks/sampling_speed.py: a batch of 128 is slower than one of 32).
CPU_BUFFER_BYTES = 2 << 20


def find_device(name: str) -> torch.device:
    """A device by name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: If the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device {name!r}: auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} is not there: this machine or this build of torch has no CUDA; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} is not there: the machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device {name!r} is not there: this machine has no MPS; use cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"unknown device {name!r}: auto, cpu, cuda, cuda:1 or mps")
    return device


def find_dtype(name: str) -> torch.dtype:
    """A dtype of the network by name.

    Raises:
        UserError: If it is not one of float32, bfloat16, float16.
    """
    if name not in DTYPES:
        raise UserError(f"unknown dtype {name!r}: one of {', '.join(DTYPES)}")
    return DTYPES[name]


def fitting_batch_size(network: Any, config: Any, device: torch.device, dtype: torch.dtype) -> int:
    """The largest power of two, at most 256, whose guided call fits in half of the free memory, and on a CPU the cache.

    On CUDA one call on two rows is measured; elsewhere activations are estimated from the shapes, so that the same
    machine gives the same answer, and with it the same bytes.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        per_row = _measured_bytes_per_row(network, config, device, dtype)
    else:
        free = _free_memory()
        token_bytes = config.tokens * config.width * torch.finfo(dtype).bits / 8
        # Held at once without gradients: tokens, their norm, q, k, v and the MLP's hidden layer before and after GELU.
        per_row = token_bytes * (6 + 2 * config.mlp_ratio)
        if device.type == "cpu":
            free = min(free, int(2 * CPU_BUFFER_BYTES * per_row / (token_bytes * config.mlp_ratio)))
    fitting = max(1, int(free / 2 / (2 * per_row)))
    return min(AUTO_LIMIT, 1 << (fitting.bit_length() - 1))


@torch.inference_mode()
def _measured_bytes_per_row(network: Any, config: Any, device: torch.device, dtype: torch.dtype) -> float:
    x = torch.zeros(2, config.in_channels, *config.size, device=device, dtype=dtype)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(x, torch.zeros(2, device=device), network.blank_condition(2, device=device, dtype=dtype))
    return max(1.0, (torch.cuda.max_memory_allocated(device) - before) / 2)


def _free_memory() -> int:
    """Free memory of the machine in bytes; 4 GB where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30
