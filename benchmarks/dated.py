"""What every result is dated with."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def date_and_device() -> dict[str, Any]:
    """Date, device and version of torch."""
    import torch

    device = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_cpu()}, {torch.get_num_threads()} threads"
    )
    return {"date": datetime.date.today().isoformat(), "device": device, "torch": torch.__version__}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
