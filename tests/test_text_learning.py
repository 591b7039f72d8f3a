"""A model of text learns to draw what it is asked for: digits by their names, through a random text encoder.

It is the whole way that a text takes, on real data: captions, dropped ones among them, through the encoder's states
into the MMDiT, trained with the recipes' loop; prompts through the same encoder, guidance, the solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from hastezoo.conditioning.clip import ClipText
from hastezoo.conditioning.conditions import Prompts
from hastezoo.conditioning.labels import class_names
from hastezoo.data.batch import Batch
from hastezoo.data.captioned import caption_of
from hastezoo.models.registry import create_model
from hastezoo.pipeline import Pipeline
from hastezoo.processes import Processes
from hastezoo.sampling.interpolants import Linear
from hastezoo.training.config import OptimizerConfig, TrainConfig
from hastezoo.training.loop import train
from hastezoo.training.objective import Objective
from hastezoo.zoo.card import Text
from hastezoo.zoo.registry import find_card

pytestmark = pytest.mark.slow

NAMES = list(class_names("digits"))
PHRASES = ("{}", "the digit {}", "a {} by hand")
LENGTH = 24  # tokens: a letter each, but for the few words that the small tokenizer knows


class CaptionedDigits:
    """Digits with three captions each; of which one is drawn by the sample's number, as in prepared data."""

    shape = (1, 8, 8)
    variants = 1 << 20

    def __init__(self, encoder: ClipText) -> None:
        digits = load_digits()
        self.pixels = torch.from_numpy(digits.images).float().unsqueeze(1) / 8 - 1
        self.labels = digits.target
        captions = [phrase.format(name) for name in NAMES for phrase in PHRASES]
        self.states = encoder.states(captions).unflatten(0, (len(NAMES), len(PHRASES)))

    def __len__(self) -> int:
        return len(self.labels)

    def without_images(self) -> Self:
        return self

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        turns, rows = np.divmod(np.asarray(indices), len(self))
        which = [caption_of(int(turn), len(PHRASES)) for turn in turns]
        return Batch(self.pixels[rows], self.states[self.labels[rows], which])


def test_digits_by_their_names(tiny_clip: Path, tmp_path: Path) -> None:
    encoder = ClipText.from_pretrained(tiny_clip, length=LENGTH)
    torch.manual_seed(0)
    model = create_model(
        "mmdit", input_size=8, in_channels=1, width=96, depth=4, heads=4, context_width=32, context_length=LENGTH,
        adaln_zero=True,
    )  # fmt: skip
    config = TrainConfig(
        steps=800, batch_size=64, optimizer=OptimizerConfig(lr=1e-3, warmup_steps=50), ema_decay=0.99,
        sample_every=0, checkpoint_every=800,
    )  # fmt: skip
    objective = Objective(Linear(), encoder.states([""])[0])
    outcome = train(
        model, objective, CaptionedDigits(encoder), config, tmp_path,
        processes=Processes(0, 1, torch.device("cpu")), quiet=True,
    )  # fmt: skip
    card = find_card("sit-ti-digits").model_copy(update={"classes": None, "text": Text(repo=str(tiny_clip))})
    pipe = Pipeline(outcome.model, card, device=torch.device("cpu"), dtype=torch.float32, conditions=Prompts(encoder))
    digits = load_digits()
    judge = KNeighborsClassifier(3).fit(digits.data, digits.target)
    wanted = np.repeat(np.arange(10), 20)
    shares = {}
    for phrase in PHRASES:
        prompts = [phrase.format(NAMES[label]) for label in wanted]
        drawn = pipe(prompts=prompts, seeds=range(len(wanted)), protocol="digits")
        found = judge.predict(drawn.pixels.reshape(len(wanted), 64) / 255 * 16)
        shares[phrase] = float((found == wanted).mean())
    print({phrase: f"{100 * share:.1f} %" for phrase, share in shares.items()})
    assert min(shares.values()) >= 0.9
    # Without text, any digit; and away from the digit asked for, another one.
    blind = judge.predict(pipe(prompts="", seeds=range(100), protocol="digits").pixels.reshape(100, 64) / 255 * 16)
    assert len(set(blind.tolist())) >= 6
    away = pipe(prompts="", negative="seven", seeds=range(100), protocol="digits").pixels.reshape(100, 64) / 255 * 16
    sevens = [float((found == 7).mean()) for found in (blind, judge.predict(away))]
    print(f"sevens without text {sevens[0]:.2f}, with the negative prompt seven {sevens[1]:.2f}")
    assert sevens[1] <= 0.02
