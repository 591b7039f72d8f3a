"""When alignment ends, and what may be configured."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hastezoo.alignment.config import AlignmentConfig, TerminationConfig
from hastezoo.alignment.termination import Termination

# Measured in HASTE's reviews for SiT-B/2: the mean cosine at 50K, 60K, 70K and 80K steps.
REPORTED = {50_000: 0.0030, 60_000: 0.0041, 70_000: 0.0225, 80_000: -0.0668}


def test_never() -> None:
    termination = Termination(TerminationConfig())
    for step in (1, 50_000, 10**7):
        assert not termination.wants_cosines(step)
        termination.pass_step(step)
    assert termination.active and termination.ended_at is None


def test_a_fixed_step_ends_after_it_and_once() -> None:
    termination = Termination(TerminationConfig(kind="step", step=5))
    for step in range(1, 9):
        termination.pass_step(step)
        assert termination.active == (step < 5)
    assert termination.ended_at == 5


def test_the_trigger_finds_the_reported_step() -> None:
    """With the defaults, which are HASTE's, it ends at 80K on the reported cosines."""
    termination = Termination(TerminationConfig(kind="gradient"))
    looked = []
    for step in range(10_000, 100_001, 2_500):
        if termination.wants_cosines(step):
            looked.append(step)
            # Each of the four times is somewhere else; the mean counts.
            termination.observe(step, [REPORTED[step] + shift for shift in (-0.3, 0.1, 0.1, 0.1)])
    assert looked == list(REPORTED) and termination.ended_at == 80_000
    assert [seen["step"] for seen in termination.history] == looked


def test_its_state_goes_on_where_it_was() -> None:
    config = TerminationConfig(kind="gradient", start=4, every=4)
    termination = Termination(config)
    termination.observe(4, [0.5, 0.1, 0.2, 0.3])
    resumed = Termination(config)
    resumed.load_state_dict(termination.state_dict())
    assert resumed.history == [{"step": 4, "cosines": [0.5, 0.1, 0.2, 0.3]}]
    assert not resumed.wants_cosines(4), "it has been looked at"
    assert resumed.wants_cosines(8)
    resumed.observe(8, [-0.2] * 4)
    again = Termination(config)
    again.load_state_dict(resumed.state_dict())
    assert again.ended_at == 8 and not again.active and not again.wants_cosines(12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "step"}, "go together"),
        ({"step": 5}, "go together"),
        ({"kind": "gradient", "times": (0.5, 1.5)}, r"times are in 0\.\.1"),
        ({"kind": "gradient", "times": ()}, "at least 1"),
        ({"kind": "sometimes"}, "'never', 'step' or 'gradient'"),
    ],
)
def test_bad_terminations(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TerminationConfig.model_validate(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"feature_weight": 0, "attention_weight": 0}, "both 0"),
        ({"attention_pairs": ()}, "needs attention_pairs"),
        ({"termination": {"kind": "gradient", "block": 8}}, "ends before block 8"),
        (
            {"attention_weight": 0, "feature_layer": 4, "termination": {"kind": "gradient", "block": 4}},
            "before block 4",
        ),
    ],
)
def test_bad_alignments(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AlignmentConfig.model_validate(values)


def test_the_defaults_are_hastes() -> None:
    config = AlignmentConfig()
    assert (config.feature_weight, config.attention_weight, config.feature_layer) == (0.5, 0.5, 8)
    assert config.attention_pairs == ((4, 8), (5, 9), (6, 10), (7, 11)) and config.teacher_blocks == (8, 9, 10, 11)
    assert config.projector_width == 2048 and config.teacher.name == "vit_base_patch14_dinov2.lvd142m"
    trigger = config.termination
    assert (trigger.start, trigger.every, trigger.threshold, trigger.images, trigger.block) == (
        50_000, 10_000, -0.05, 2048, 4,
    )  # fmt: skip
    assert trigger.times == (0.02, 0.1, 0.5, 0.8)


def test_what_alignment_reaches() -> None:
    assert AlignmentConfig().reach == 8
    assert AlignmentConfig(feature_layer=3, attention_pairs=((5, 1),)).reach == 6
    assert AlignmentConfig(feature_weight=0, attention_pairs=((1, 2), (0, 2))).reach == 2
    assert AlignmentConfig(attention_weight=0).student_blocks == ()
