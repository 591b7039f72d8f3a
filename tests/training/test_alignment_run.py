"""Runs with a teacher: exact resume across the moment alignment ends, forks, what is logged, what breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.alignment.holistic import HolisticAlignment
from hastezoo.errors import UserError
from hastezoo.recipes.digits import ARMS, DigitsConfig, run
from hastezoo.training.config import configure
from tests.training.test_resume import assert_same, final

# 1437 digits in batches of 120: the twelfth step takes its last images from the second epoch. Most of the time is the
# teacher's, which looks at every image.
SMALL = [
    "model.depth=3", "model.width=32", "model.heads=2", "train.batch_size=120", "train.ema_decay=0.9",
    "train.sample_every=0", "train.log_every=2", "train.checkpoint_every=5", "train.optimizer.warmup_steps=6",
    "alignment.feature_layer=2", "alignment.attention_pairs=[[1, 2], [2, 3]]", "alignment.projector_width=16",
]  # fmt: skip
TRIGGER = [
    "alignment.termination.kind=gradient", "alignment.termination.step=none", "alignment.termination.start=4",
    "alignment.termination.every=4", "alignment.termination.images=90", "alignment.termination.block=1",
]  # fmt: skip
ENDS = {
    "never": ["alignment.termination.kind=never", "alignment.termination.step=none"],
    "step": ["alignment.termination.step=12"],
    "gradient": [*TRIGGER, "alignment.termination.threshold=0.999"],  # ends at its first look, after step 4
    "gradient in vain": [*TRIGGER, "alignment.termination.threshold=-0.999"],
}
ENDED = {"never": None, "step": 12, "gradient": 4, "gradient in vain": None}


def small(end: str, *settings: str, arm: str = "haste") -> DigitsConfig:
    return configure(DigitsConfig(alignment=ARMS[arm]), None, [*SMALL, *ENDS[end], *settings])


def train(out: Path, steps: int, end: str, *settings: str, arm: str = "haste", **options: Any) -> dict[str, Any]:
    run("x", small(end, f"train.steps={steps}", *settings, arm=arm), out, device="cpu", quiet=True, **options)
    return final(out)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Twenty steps in one go, for every way to end."""
    folder = tmp_path_factory.mktemp("runs")
    for end in ENDS:
        train(folder / end, 20, end, "train.keep_at=[12]")
    return {end: folder / end for end in ENDS}


@pytest.mark.parametrize("end", ENDS)
def test_alignment_ends_when_it_should(unbroken: dict[str, Path], end: str) -> None:
    state, ended = final(unbroken[end]), ENDED[end]
    assert state["alignment"]["ended_at"] == ended
    assert ("projector" in state) == (ended is None)
    assert len(state["optimizer"]["param_groups"]) == (2 if ended is None else 1)
    for row in lines(unbroken[end] / "metrics.jsonl"):
        assert ("attention" in row) == ("feature" in row) == (ended is None or row["step"] <= ended), row
    looks = [row for row in lines(unbroken[end] / "alignment.jsonl") if "cosines" in row] if "grad" in end else []
    assert [row["step"] for row in looks] == {"gradient": [4], "gradient in vain": [4, 8, 12, 16, 20]}.get(end, [])
    assert [row["cosines"] for row in looks] == [seen["cosines"] for seen in state["alignment"]["history"]]


@pytest.mark.parametrize(
    ("end", "stop"),
    [
        ("step", 11),
        ("step", 12),
        ("step", 13),
        ("gradient", 3),
        ("gradient", 4),
        ("gradient", 5),
        ("gradient in vain", 8),
    ],
)
def test_stop_and_resume_bit_for_bit(unbroken: dict[str, Path], tmp_path: Path, end: str, stop: int) -> None:
    """Just before, at and after the step at which alignment ends, or at a look that ends nothing."""
    train(tmp_path / "run", stop, end)
    assert_same(train(tmp_path / "run", 20, end), final(unbroken[end]))
    assert lines(tmp_path / "run" / "alignment.jsonl") == lines(unbroken[end] / "alignment.jsonl")


def test_a_fork_is_the_run_that_ends_there(unbroken: dict[str, Path], tmp_path: Path) -> None:
    """Forking the run that never ends at tau gives what training to tau and ending gives, to the bit."""
    origin = unbroken["never"] / "checkpoints" / "step-00000012.pt"
    assert_same(train(tmp_path / "fork", 20, "step", origin=origin), final(unbroken["step"]))
    assert lines(tmp_path / "fork" / "alignment.jsonl") == [{"step": 12, "ended": True}]
    before = final(tmp_path / "fork")
    assert_same(train(tmp_path / "fork", 20, "step", origin=origin), before)
    with pytest.raises(UserError, match="no checkpoint of a run"):
        train(tmp_path / "none", 20, "step", origin=tmp_path / "step-00000013.pt")
    assert not (tmp_path / "none").exists()


def test_the_teacher_stays_away_after_the_end(
    unbroken: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "run", 14, "step")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the teacher was called")

    monkeypatch.setattr("hastezoo.alignment.holistic.create_teacher", refuse)
    assert_same(train(tmp_path / "run", 20, "step"), final(unbroken["step"]))


@pytest.mark.parametrize(
    ("arm", "terms", "projector"),
    [
        ("none", set(), None),
        ("repa", {"feature"}, "4.weight"),
        ("attention", {"attention"}, None),
        ("haste", {"feature", "attention"}, "4.weight"),
        ("haste-irepa", {"feature", "attention"}, "conv.weight"),
    ],
)
def test_arms(tmp_path: Path, arm: str, terms: set[str], projector: str | None) -> None:
    config = DigitsConfig(alignment=ARMS[arm])
    settings = [setting for setting in SMALL if arm != "none" or not setting.startswith("alignment")]
    run("x", configure(config, None, [*settings, "train.steps=2"]), tmp_path, device="cpu", quiet=True)
    row = lines(tmp_path / "metrics.jsonl")[-1]
    assert set(row) - {"step", "loss", "denoising", "grad_norm", "lr", "seconds"} == terms
    assert row["loss"] == pytest.approx(row["denoising"] + 0.5 * sum(row[term] for term in terms), rel=1e-5)
    state = final(tmp_path)
    if projector is None:
        assert "projector" not in state
    else:
        assert projector in state["projector"]


def test_arms_start_from_the_same_weights(tmp_path: Path) -> None:
    """The teacher and the projector take nothing from the generator that initialises the student."""
    states = [
        train(tmp_path / arm, 1, end, "train.optimizer.lr=1e-30", "train.optimizer.warmup_steps=0", arm=arm)
        for arm, end in (("repa", "never"), ("haste", "step"))
    ]
    config = small("step")
    torch.manual_seed(config.train.seed)
    from hastezoo.models.registry import create_model

    start = create_model(config.architecture, **config.model).state_dict()
    for name, value in start.items():
        assert max((state["model"][name] - value).abs().max() for state in states) < 1e-20, name
    for name, value in states[0]["projector"].items():
        assert (value - states[1]["projector"][name]).abs().max() < 1e-20, name


def test_a_term_that_breaks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention loss turns to NaN after six steps: the run stops, says so, and the checkpoint of step 5 is good."""
    losses, calls = HolisticAlignment.losses, [0]

    def break_down(self: HolisticAlignment, *rest: Any) -> dict[str, torch.Tensor]:
        calls[0] += 1
        found = losses(self, *rest)
        return found | {"attention": found["attention"] * (float("nan") if calls[0] == 7 else 1)}

    monkeypatch.setattr(HolisticAlignment, "losses", break_down)
    with pytest.raises(UserError, match=r"the attention loss is not finite by step 8 .*checkpoint of step 5 is good"):
        train(tmp_path / "run", 20, "never")
    state = final(tmp_path / "run")
    assert state["step"] == 5 and all(torch.isfinite(value).all() for value in state["model"].values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["alignment.feature_layer=4"], r"feature_layer 4 is not in 1\.\.3"),
        (["alignment.attention_pairs=[[3, 1]]"], r"attention_layers \[3\] are not in 0\.\.2"),
        (["alignment.attention_pairs=[[1, 9]]"], r"attention_layers \[9\] are not in 0\.\.3"),
        (["alignment.teacher.name=local-dir:nowhere"], "nowhere"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(tmp_path / "run", 2, "step", *settings)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").glob("*")), "the mended command can take the folder"


def test_the_low_frequency_experiment_changes_the_loss_where_it_should(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", 2, "never")
    nowhere = train(tmp_path / "nowhere", 2, "never", "alignment.low_pass={cutoff = 0.3, interval = [2.0, 3.0]}")
    everywhere = train(tmp_path / "everywhere", 2, "never", "alignment.low_pass={cutoff = 0.3}")
    assert_same(nowhere["model"], plain["model"])
    rows = [lines(tmp_path / name / "metrics.jsonl")[-1]["feature"] for name in ("plain", "everywhere")]
    weights = [state["model"]["blocks.0.attn.qkv.weight"] for state in (plain, everywhere)]
    assert rows[0] != rows[1] and not torch.equal(*weights)


def test_diagnoses_are_recorded_for_every_arm(tmp_path: Path) -> None:
    looks = ("train.diagnose_every=4", "alignment.termination.images=90")
    train(tmp_path / "haste", 8, "step", *looks, "alignment.termination.step=6")
    rows = lines(tmp_path / "haste" / "diagnostics.jsonl")
    assert [row["step"] for row in rows] == [4, 8]
    assert len(rows[0]["cknna"]) == 3 and set(rows[0]["attention_kl"]) == {"1<-2", "2<-3"}
    assert all(value > 0 for row in rows for value in row["attention_kl"].values())
    assert len(rows[0]["cosines"]) == len(rows[0]["times"]) == 4 and "cosines" not in rows[1]
    plain = [setting for setting in SMALL if not setting.startswith("alignment")]
    config = configure(DigitsConfig(), None, [*plain, "train.steps=2", "train.diagnose_every=2"])
    run("x", config, tmp_path / "plain", device="cpu", quiet=True)
    row = lines(tmp_path / "plain" / "diagnostics.jsonl")[0]
    assert len(row["cknna"]) == 3 and "cosines" not in row
