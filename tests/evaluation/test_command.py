"""An evaluation as a line: the command reads it as what was asked for."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hastezoo.cli.eval_fid import _ask
from hastezoo.cli.eval_fid import command as eval_fid
from hastezoo.evaluation.asking import EvaluationAsk, settled
from hastezoo.evaluation.command import evaluation_command
from hastezoo.zoo.registry import find_card

CARD = find_card("sit-ti-digits-haste")
INTERVAL = {"solver": "euler-maruyama", "cfg": 1.1 + 2.2, "interval": (0.1, 0.7), "last_step": "tweedie"}
CASES: list[dict[str, Any]] = [
    {},
    {"num": 7, "seed": 5, "labels": "balanced", "allow_few": True, "curve": False, "batch_size": "32"},
    {"overrides": INTERVAL, "protocol": "haste", "metrics": ("fid", "pr"), "device": "cpu", "dtype": "bfloat16"},
    {"weights": "-odd name.safetensors", "out": Path("a b"), "save_samples": "png", "compile": True},
    {"vae": "ema", "vae_tiling": True, "features": "inception", "inception": Path("w.pth"), "reference": "digits-test"},
    {"features": "dinov2", "dinov2": Path("d.pth"), "text_encoder": "t", "prompts": "p.txt"},
]


def read(line: str) -> EvaluationAsk:
    """As the command reads it."""
    words = shlex.split(line)
    assert words[:2] == ["hastezoo", "eval-fid"]
    return _ask(eval_fid.make_context("eval-fid", words[2:]).params)


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: ",".join(changes) or "nothing")
def test_the_command_reads_what_was_asked_for(changes: dict[str, Any]) -> None:
    said: dict[str, Any] = {"reference": "digits", "features": "pixels", "protocol": "digits-nocfg", "num": 9}
    asked = EvaluationAsk(**{**said, **changes})
    assert read(evaluation_command(asked)) == asked


def test_every_field_has_a_case() -> None:
    assert {key for case in CASES for key in case} >= {one.name for one in fields(EvaluationAsk)} - {"model", "samples"}


def test_existing_images_are_measured_without_a_checkpoint() -> None:
    line = evaluation_command(settled(EvaluationAsk(samples="some.npz", reference="digits"), None))
    assert line == "hastezoo eval-fid --samples some.npz --reference digits --features pixels"


def test_what_the_card_states_is_said_too_so_that_a_changed_card_changes_nothing() -> None:
    assert evaluation_command(settled(EvaluationAsk(), CARD)) == (
        "hastezoo eval-fid --model sit-ti-digits-haste --reference digits --features pixels --protocol digits-nocfg "
        "-n 1797"
    )
