"""When alignment stops: never, after a fixed number of steps, or when its gradient turns against denoising's.

HASTE's finding: a teacher's guidance speeds up the first part of training and holds back the rest. Ending is one-shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hastezoo.alignment.config import TerminationConfig


class Termination:
    """The state of one run's alignment.

    Attributes:
        ended_at: The step after which it ended, or None while it is active.
        history: Every look at the gradients: step, and the cosine at each of the configured times.
    """

    def __init__(self, config: TerminationConfig) -> None:
        self.config = config
        self.ended_at: int | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def active(self) -> bool:
        return self.ended_at is None

    def wants_cosines(self, step: int) -> bool:
        """Whether the gradients are to be looked at after this step; once, also when a run is resumed there."""
        config = self.config
        due = config.kind == "gradient" and step >= config.start and (step - config.start) % config.every == 0
        return self.active and due and all(seen["step"] != step for seen in self.history)

    def observe(self, step: int, cosines: Sequence[float]) -> None:
        """Take note of the cosines after a step, and end if their mean is below the threshold."""
        self.history.append({"step": step, "cosines": [float(cosine) for cosine in cosines]})
        if sum(cosines) / len(cosines) < self.config.threshold:
            self.ended_at = step

    def pass_step(self, step: int) -> None:
        """Take note that a step is done, and end if it was the last with alignment."""
        if self.active and self.config.step is not None and step >= self.config.step:
            self.ended_at = step

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"ended_at": self.ended_at, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's values."""
        self.ended_at, self.history = state["ended_at"], list(state["history"])
