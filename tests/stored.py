"""What a run's newest checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hastezoo.training.checkpoints import Checkpoints
from hastezoo.training.onefile import OneFile


def newest(out: Path) -> dict[str, Any] | None:
    """The state in a run's newest checkpoint that can be read, of either kind: {"step", "model", "ema", "optimizer",
    ...}; of a sharded one the optimizer's tensors are by name. None if there is none."""
    found = Checkpoints(out / "checkpoints").latest()
    if found is None or isinstance(found, OneFile):
        return None if found is None else found.nested
    parts = {part: found.read(part) for part in ("model", "ema", "projector", "optimizer")}
    return {"step": found.step, **found.values, **{part: tensors for part, tensors in parts.items() if tensors}}
