"""The way from noise to images, as a bounded number of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hastezoo.autoencoders import to_bytes

if TYPE_CHECKING:
    import numpy as np

    from hastezoo.autoencoders import Autoencoder, Rounding
    from hastezoo.sampling.steps import StepInfo

LIMIT = 16  # images followed
FRAMES = 60


class Frames:
    """Follows the first few images of the first batch, as a callback of a solver or called by one.

    Steps are kept at equal distances, the first among them. Where a solver does not know how many there will be
    (dopri5), every second of those kept is dropped whenever there are enough, and the distance doubled.

    Args:
        autoencoder: Turns states into pixels.
        rounding: Turns pixels into bytes, as the images' protocol does.
        limit: Images followed at most.
        frames: Steps kept at most; at least 2.
        clean: Keep the clean images that the velocity predicts at each step, instead of the states themselves.

    Attributes:
        states: uint8 (B, H, W, C) of each step kept.
        times: When each of these steps began; 1 is noise.

    Raises:
        ValueError: If `limit` or `frames` is too small.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        rounding: Rounding,
        *,
        limit: int = LIMIT,
        frames: int = FRAMES,
        clean: bool = False,
    ) -> None:
        if limit < 1 or frames < 2:
            raise ValueError(f"at least 1 image and 2 frames are followed, not {limit} and {frames}")
        self.autoencoder, self.rounding = autoencoder, rounding
        self.limit, self.frames, self.clean = limit, frames, clean
        self.states: list[np.ndarray] = []
        self.times: list[float] = []
        self._stride = 0
        self._batches = 0

    def __call__(self, info: StepInfo) -> None:
        """See a step; those of later batches are passed over."""
        self._batches += info.index == 0
        if self._batches > 1:
            return
        self._stride = self._stride or (1 if info.steps is None else -(-info.steps // self.frames))
        if info.index % self._stride == 0 and len(self.states) == self.frames:
            self._thin()
        if info.index % self._stride == 0:
            shown = (info.clean if self.clean else info.x)[: self.limit]
            self.states.append(to_bytes(self.autoencoder.decode(shown), self.rounding).cpu().numpy())
            self.times.append(info.t)

    def _thin(self) -> None:
        self.states, self.times = self.states[::2], self.times[::2]
        self._stride *= 2
