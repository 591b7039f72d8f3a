"""A figure to hold a measured number against: what it says, whether the two can be compared, and how they compare."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hastezoo.zoo.metrics import decimals, shown

SIGMAS = 2.0  # standard errors of a difference up to which it is noise
# How far the same images may lie from the ADM evaluator's number: absolute; of the Inception Score, relative.
TOLERANCES = {"fid": 0.002, "sfid": 0.002, "precision": 0.002, "recall": 0.002}
IS_TOLERANCE = 0.001


class Open(BaseModel):
    """A part of `result.json`. Keeps what it does not know, so that a later version's result can be read and shown."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Expected(Open):
    """A figure of the checkpoint's card, and what stands between it and an evaluation.

    Attributes:
        key: Of the metric.
        value, kind, source, protocol, note: As on the card.
        reasons: Why the evaluation cannot be held against it; empty where it can.
        remarks: What may differ, and is not known to matter.
    """

    key: str
    value: float
    kind: Literal["measured", "reported"]
    source: str
    protocol: str = ""
    note: str = ""
    reasons: list[str] = []
    remarks: list[str] = []

    def verdict(self, value: float | None, error: float | None = None) -> str:
        """How a measured number stands to the figure; nothing where they cannot be compared.

        The figure is of one draw of samples too, with an error that its source does not state; it is taken to be as
        large as the measured one's. Two standard errors of the difference are noise, or the evaluator's own tolerance
        where that is more, and so is what the figure was rounded by. Agreement is no proof: a large error agrees with
        much.

        Args:
            value: What was measured.
            error: Its standard error, where that was estimated.
        """
        if self.reasons or value is None:
            return ""
        difference = value - self.value
        noise = math.sqrt(2) * SIGMAS * (error or 0.0)
        if abs(difference) <= max(noise, self._tolerance) + self._rounded_by:
            return "agrees within the noise" if error else "agrees"
        text = f"differs by {shown(self.key, difference, error, '+')}"
        return f"{text}, more than the noise" if error else f"{text}; no error is known"

    @property
    def _tolerance(self) -> float:
        return IS_TOLERANCE * abs(self.value) if self.key == "is" else TOLERANCES.get(self.key, 0.0)

    @property
    def _rounded_by(self) -> float:
        """Half a unit of the last digit. 49.50 was read as 49.5, so no fewer decimals than are usual are supposed."""
        _, _, written = repr(self.value).partition(".")
        return 0.5 * 10.0 ** -max(0 if "e" in written else len(written), decimals(self.key))
