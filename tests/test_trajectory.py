"""Frames of a trajectory against the states that a solver reports, thinned anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hastezoo.autoencoders import Identity
from hastezoo.pipeline import Pipeline
from hastezoo.sampling.solvers import StepInfo
from hastezoo.trajectory import Frames


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained(device="cpu")


def bytes_of(x: Tensor) -> np.ndarray:
    """Rounding "nearest" anew: [-1, 1] (B, C, H, W) -> uint8 (B, H, W, C)."""
    return np.clip(np.floor(127.5 * x.numpy() + 128), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def run(pipe: Pipeline, frames: Frames, **settings: Any) -> list[StepInfo]:
    """Draw five images, and record every step beside the frames."""
    seen: list[StepInfo] = []

    def watch(info: StepInfo) -> None:
        seen.append(info)
        frames(info)

    pipe(classes=7, seeds=range(5), batch_size=5, callback=watch, **settings)
    return seen


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize(("steps", "most", "kept"), [(6, 60, range(6)), (7, 3, (0, 3, 6)), (8, 4, (0, 2, 4, 6))])
def test_known_steps_are_thinned_evenly(pipe: Pipeline, clean: bool, steps: int, most: int, kept: Any) -> None:
    frames = Frames(pipe.autoencoder, "nearest", limit=3, frames=most, clean=clean)
    seen = run(pipe, frames, steps=steps, solver="euler")
    wanted = [bytes_of((seen[index].clean if clean else seen[index].x)[:3]) for index in kept]
    assert np.array_equal(frames.states, wanted) and frames.states[0].dtype == np.uint8
    assert frames.times == pytest.approx([1 - index / steps for index in kept])


def test_unknown_steps_stay_bounded_and_reach_the_end(pipe: Pipeline) -> None:
    frames = Frames(pipe.autoencoder, "nearest", frames=4)
    seen = run(pipe, frames, solver="dopri5", rtol=1e-7, atol=1e-7)
    assert seen[0].steps is None and len(seen) > 8
    stride = 1
    while -(-len(seen) // stride) > 4:
        stride *= 2
    assert np.array_equal(frames.states, [bytes_of(info.x) for info in seen[::stride]])
    assert frames.times == [info.t for info in seen[::stride]]


@pytest.mark.parametrize("most", [2, 3, 5, 60])
@pytest.mark.parametrize("steps", [1, 2, 3, 59, 60, 61, 1000])
def test_any_number_of_unknown_steps(most: int, steps: int) -> None:
    """Kept are the multiples of the smallest power of two that leaves no more than there may be."""
    frames = Frames(Identity(), "nearest", limit=1, frames=most)
    for index in range(steps):
        frames(made(index, None, value=index))
        assert len(frames.states) == len(frames.times) <= most
    stride = 1
    while len(range(0, steps, stride)) > most:
        stride *= 2
    assert frames.times == list(range(0, steps, stride))


def made(index: int, steps: int | None, value: float) -> Any:
    x = torch.zeros(2, 1, 2, 2)
    return SimpleNamespace(index=index, steps=steps, t=value, x=x, clean=x)


def test_later_batches_are_passed_over(pipe: Pipeline) -> None:
    frames = Frames(pipe.autoencoder, "nearest")
    pipe(classes=7, seeds=range(5), batch_size=2, callback=frames, steps=4, solver="euler")
    assert len(frames.states) == 4 and frames.states[0].shape == (2, 8, 8, 1)
    adaptive = Frames(Identity(), "nearest")
    for index in (0, 1, 2, 0, 1, 2, 3, 4):  # the second batch takes more steps than the first
        adaptive(made(index, None, value=index))
    assert adaptive.times == [0, 1, 2]


def test_only_what_is_kept_is_decoded() -> None:
    calls: list[int] = []

    class Counting(Identity):
        def decode(self, latents: Tensor) -> Tensor:
            calls.append(len(latents))
            return latents

    frames = Frames(Counting(), "truncate", limit=1, frames=10)
    for index in range(100):
        frames(made(index, 100, value=index))
    assert calls == [1] * 10


def test_too_few_are_refused() -> None:
    for few in ({"limit": 0}, {"frames": 1}):
        with pytest.raises(ValueError, match="at least 1 image and 2 frames"):
            Frames(Identity(), "nearest", **few)
