"""What models of text have in common, whoever reads the prompts: CLIP's text encoder, or the model by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hastezoo
from hastezoo.pipeline import Pipeline
from tests.text_models import write_text_checkpoint
from tests.word_models import write_word_checkpoint

SETTINGS: dict[str, Any] = {"solver": "euler-maruyama", "steps": 4, "cfg": 2.0, "interval": (0.2, 0.9)}


@pytest.fixture(params=["tiny-text", "tiny-words"])
def pipe(request: pytest.FixtureRequest, own_home: Path, tiny_clip: Path, tiny_vae: Path) -> Pipeline:
    """Each with random weights, its checkpoint in the user's store."""
    if request.param == "tiny-text":
        write_text_checkpoint(own_home, tiny_clip, tiny_vae)
    else:
        write_word_checkpoint(own_home)
    return hastezoo.Pipeline.from_pretrained(request.param, device="cpu")


def test_prompts_and_seeds_are_zipped_and_one_is_broadcast(pipe: Pipeline) -> None:
    several = pipe(prompts=["a cat", "a bus"], seeds=[4, 5], steps=1)
    assert several.prompts == ["a cat", "a bus"] and several.labels == [] and several.seeds == [4, 5]
    assert several.pixels.shape == (2, pipe.card.resolution, pipe.card.resolution, 3)
    assert pipe(prompts="a cat", seeds=[4, 5], steps=1).prompts == ["a cat", "a cat"]
    assert pipe(prompts=["a  cat\n", "hats"], steps=1).prompts == ["a cat", "hats"]


def test_an_image_is_the_same_alone_and_in_a_batch(pipe: Pipeline, states: list[torch.Tensor]) -> None:
    prompts = ["a cat", "a red bus", "", "two hats", "a cat"]
    pipe(prompts=prompts, seeds=range(5), batch_size=5, **SETTINGS)
    pipe(prompts=prompts, seeds=range(5), batch_size=2, **SETTINGS)
    together, parts = states[0], torch.cat(states[1:])
    assert (together - parts).abs().max() < 1e-4
    assert (together[0] - together[4]).abs().max() > 0.1, "one prompt, two seeds"


def test_prompts_and_negative_prompts_matter_and_no_text_is_no_guidance(
    pipe: Pipeline, states: list[torch.Tensor]
) -> None:
    for prompt, negative, cfg in (
        ("a cat", "", 2.0), ("a bus", "", 2.0), ("a cat", "a bus", 2.0), ("a cat", "a bus", 1.0), ("a cat", "", 1.0),
        ("", "", 2.0), ("", "", 1.0),
    ):  # fmt: skip
        pipe(prompts=prompt, seeds=[3], negative=negative, steps=3, cfg=cfg)
    cat, bus, away, unguided_away, unguided, empty, empty_unguided = states
    for other in (bus, away, unguided, empty):
        assert (cat - other).abs().max() > 1e-3
    assert torch.equal(unguided_away, unguided), "without guidance there is nothing to lead away from"
    assert torch.allclose(empty, empty_unguided, atol=1e-5)
