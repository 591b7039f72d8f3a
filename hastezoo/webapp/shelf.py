"""The one pipeline that is loaded: asking for another frees it first."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

from hastezoo.webapp.turns import Ticket

if TYPE_CHECKING:
    from hastezoo.pipeline import Pipeline


class Shelf:
    """Holds at most one pipeline. Used by the thread that works, and by no other.

    Args:
        device, dtype: Of every pipeline.
    """

    def __init__(self, device: str, dtype: str) -> None:
        self.device, self.dtype = device, dtype
        self._name = ""
        self._pipeline: Pipeline | None = None

    def get(self, name: str, ticket: Ticket) -> Pipeline:
        """The pipeline of a checkpoint, loaded if it is not the one that is here; its download is reported.

        Raises:
            UserError: If its weights cannot be had.
            Cancelled: If the ticket was cancelled meanwhile.
        """
        if self._pipeline is not None and self._name == name:
            return self._pipeline
        self.clear()
        ticket.report(text=f"loading {name}")
        from hastezoo.pipeline import Pipeline

        def progress(done: int, total: int | None) -> None:
            share = f" of {total / 2**20:,.0f}" if total else ""
            ticket.report(text=f"fetching {name}: {done / 2**20:,.0f}{share} MiB")

        self._pipeline = Pipeline.from_pretrained(
            name, device=self.device, dtype=self.dtype, say=lambda text: ticket.report(text=text), progress=progress
        )
        self._name = name
        return self._pipeline

    def clear(self) -> None:
        """Let go of the pipeline, and of its memory."""
        self._pipeline, self._name = None, ""
        tidy()

    @property
    def loaded(self) -> str:
        """Name of the checkpoint that is loaded, or nothing."""
        return self._name


def tidy() -> None:
    """Give back what no longer is used: after a cancelled run a traceback's tensors, on a GPU the cached blocks."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
