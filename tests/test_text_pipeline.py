"""Drawing from text: a small MMDiT, a small CLIP text encoder and a small autoencoder, all with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hastezoo
from hastezoo.conditioning.clip import ClipText
from hastezoo.conditioning.conditions import Prompts
from hastezoo.errors import UserError
from hastezoo.pipeline import Pipeline
from tests.clip import save_clip
from tests.text_models import write_text_checkpoint


@pytest.fixture
def pipe(own_home: Path, tiny_clip: Path, tiny_vae: Path) -> Pipeline:
    write_text_checkpoint(own_home, tiny_clip, tiny_vae)
    return hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu")


SETTINGS: dict[str, Any] = {"solver": "euler-maruyama", "steps": 4, "cfg": 2.0, "interval": (0.2, 0.9)}


@pytest.mark.parametrize("negative", ["", "a blurry cat"])
def test_the_pipeline_is_the_sum_of_its_parts(
    pipe: Pipeline, states: list[torch.Tensor], tiny_clip: Path, negative: str
) -> None:
    """CLIP's states, guidance away from those of the negative prompt, and the solver, put together by hand."""
    from hastezoo.sampling import guidance, interpolants, noise, solvers

    pipe(prompts=["a cat", "a red bus"], seeds=[11, 12], negative=negative, **SETTINGS)
    encoder = ClipText.from_pretrained(tiny_clip, device="cpu")

    def model(x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return pipe.network(x.float(), t.float(), context).double()

    field = guidance.guided(
        model, encoder.states(["a cat", "a red bus"]), encoder.states([negative]), scale=2.0, interval=(0.2, 0.9)
    )
    source = noise.NoiseSource([11, 12])
    x = solvers.integrate(
        "euler-maruyama", field, source.initial((2, 4, 4, 4)), steps=4, interpolant=interpolants.Linear(), noise=source
    )
    assert torch.equal(x, states[0])


def test_dtypes(pipe: Pipeline, tiny_clip: Path) -> None:
    exact = pipe(prompts="a cat", seeds=[3], steps=3).pixels.astype(int)
    half = hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu", dtype="bfloat16")
    rough = half(prompts="a cat", seeds=[3], steps=3).pixels.astype(int)
    assert 0 < np.abs(exact - rough).mean() < 8


def test_what_does_not_go_together(pipe: Pipeline) -> None:
    for refused, words in (
        ({"classes": [3]}, "tiny-text draws from text: give it prompts"),
        ({}, "draws from text: give it prompts"),
        ({"prompts": [3]}, "a prompt is a text, not 3"),
        ({"prompts": ["a", "b"], "seeds": [1, 2, 3]}, "2 prompts do not pair with 3 seeds"),
        ({"prompts": "a\x00b"}, "U\\+0000"),
        ({"prompts": "a", "negative": "b\x1b"}, "U\\+001B"),
    ):
        with pytest.raises(UserError, match=words):
            pipe(**refused, steps=1)
    digits = hastezoo.Pipeline.from_pretrained("sit-ti-digits", device="cpu")
    with pytest.raises(UserError, match="sit-ti-digits draws from classes: give it classes"):
        digits(prompts="a seven", steps=1)
    with pytest.raises(UserError, match="a negative prompt is for models that draw from text"):
        digits(classes=7, negative="an eight", steps=1)
    with pytest.raises(UserError, match="sit-ti-digits draws classes: it takes no text encoder"):
        hastezoo.Pipeline.from_pretrained("sit-ti-digits", text_encoder="somewhere")


def test_another_encoder(pipe: Pipeline, tmp_path: Path) -> None:
    other = save_clip(tmp_path / "other", width=32, seed=9)
    found = hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu", text_encoder=other)
    assert isinstance(found.conditions, Prompts) and isinstance(pipe.conditions, Prompts)
    assert found.conditions.encoder.sha256 != pipe.conditions.encoder.sha256
    assert not np.array_equal(found(prompts="a cat", steps=2).pixels, pipe(prompts="a cat", steps=2).pixels)
    wide = save_clip(tmp_path / "wide", width=48, heads=2)
    with pytest.raises(UserError, match="has states of 48 values, tiny-text takes 32"):
        hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu", text_encoder=wide)
    with pytest.raises(UserError, match="nowhere"):
        hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu", text_encoder=tmp_path / "nowhere")


def test_ready_made_conditions(pipe: Pipeline, tiny_clip: Path, own_home: Path) -> None:
    """Whoever has states need not have the encoder."""
    from hastezoo.conditioning.text import StoredText

    encoder = ClipText.from_pretrained(tiny_clip, device="cpu")
    known = dict(zip(["", "a cat"], encoder.states(["", "a cat"]), strict=True))
    stored = Prompts(StoredText(known, length=77, width=32, source="here", sha256="0"))
    other = hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu", conditions=stored)
    wanted, found = pipe(prompts="a cat", seeds=[5], steps=3), other(prompts="a cat", seeds=[5], steps=3)
    assert np.array_equal(wanted.pixels, found.pixels)
    with pytest.raises(UserError, match="a bus"):
        other(prompts="a bus", steps=1)
