"""Classifier-free guidance (Ho and Salimans 2022), limited to an interval of time (Kynkaanniemi et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hastezoo.sampling.steps import Velocity

Model = Callable[[Tensor, Tensor, Tensor], Tensor]


def guided(
    model: Model,
    condition: Tensor,
    null: Tensor,
    *,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
    channels: int | None = None,
) -> Velocity:
    """A velocity function v(x, t) = v_null + scale (v_condition - v_null) where low <= t <= high.

    Inside the interval the model is called once, on a batch of the conditions followed by the nulls; outside it, and
    everywhere for scale 1, once on the conditions alone. Nothing is cast.

    Args:
        model: `model(x, t, condition)` with t (B,).
        condition: (B, ...) labels, token ids or context.
        null: The same for "no condition"; a batch of 1 is broadcast.
        scale: 1 is no guidance.
        interval: (low, high) in our time, where 0 is data; t is the time of the evaluation.
        channels: Guide only the first so many channels; the others keep the conditional velocity. None for all.

    Raises:
        ValueError: If the interval is not 0 <= low <= high <= 1.
    """
    low, high = interval
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance interval ({low}, {high}) is not 0 <= low <= high <= 1")
    null = null.expand_as(condition)
    both = torch.cat([condition, null])

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)
        if scale == 1 or not low <= t <= high:
            return model(x, times, condition)
        with_condition, without = model(torch.cat([x, x]), torch.cat([times, times]), both).chunk(2)
        mixed = without + scale * (with_condition - without)
        if channels is None or channels >= x.shape[1]:
            return mixed
        return torch.cat([mixed[:, :channels], with_condition[:, channels:]], dim=1)

    return velocity
