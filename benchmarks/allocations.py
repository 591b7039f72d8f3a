"""What a call takes from torch's allocator: the peak above its start, and the largest piece at once."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces itself on every start

DEVICE_TYPES = {"cpu": 0, "cuda": 1}  # c10's numbers, as the trace has them


class Allocations(NamedTuple):
    """Bytes.

    Attributes:
        peak: The most that was held at once beyond what was there before the call.
        largest: The largest single allocation.
    """

    peak: int
    largest: int


def allocations(call: Callable[[], object], device: str = "cpu") -> Allocations:
    """What `call` allocates, results included. It is called twice: what is made once and for all is not counted.

    Scratch memory that a library of kernels takes without asking torch (MKL's packed blocks) is not seen.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    call()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        sizes = _sizes(path, device)
    peak = max(itertools.accumulate(sizes, initial=0))
    if device == "cuda":  # which also counts what the caching allocator rounds up to
        peak = torch.cuda.max_memory_allocated() - before
    return Allocations(peak, max(sizes, default=0))


def _sizes(trace: Path, device: str) -> list[int]:
    """Bytes allocated (positive) and freed (negative) on a device, in the order of time."""
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    here = [event for event in events if event["args"]["Device Type"] == DEVICE_TYPES[device]]
    return [event["args"]["Bytes"] for event in sorted(here, key=lambda event: event["ts"])]
