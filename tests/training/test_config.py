"""Configuration: precedence, unknown keys, and which run a folder belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hastezoo.errors import UserError
from hastezoo.recipes.digits import DigitsConfig
from hastezoo.training.config import TrainConfig, claim_run, configure


def test_recipe_below_file_below_command_line(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[train]\nsteps = 11\nbatch_size = 22\n[train.optimizer]\nlr = 0.5\n")
    recipe = DigitsConfig()
    config = configure(recipe, file, ["train.batch_size=33", "train.precision=bf16", "train.clip=none"])
    assert config.train.seed == recipe.train.seed and config.train.optimizer.betas == recipe.train.optimizer.betas
    assert (config.train.steps, config.train.optimizer.lr) == (11, 0.5)
    assert (config.train.batch_size, config.train.precision, config.train.clip) == (33, "bf16", None)


def test_json_files_and_nested_settings(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"model": {"depth": 2}}))
    config = configure(DigitsConfig(), file, ["train.optimizer.betas=[0.8, 0.9]"])
    assert config.model["depth"] == 2 and config.model["num_classes"] == 10
    assert config.train.optimizer.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.stepz=3", "unknown key 'train.stepz'; nearest: steps"),
        ("train.optimizer.lrr=3", "unknown key 'train.optimizer.lrr'; nearest: lr"),
        ("trian.steps=3", "unknown key 'trian'; nearest: train"),
        ("train.steps=0", "train.steps: input should be greater than or equal to 1"),
        ("train.steps=many", "train.steps"),
        ("train.optimizer.lr=nan", "train.optimizer.lr"),
        ("train.steps", "--set takes key=value"),
    ],
)
def test_bad_settings_are_one_line(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        configure(DigitsConfig(), None, [setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"), [("x.toml", "a = "), ("x.json", "{"), ("y.json", "[1]"), ("none.toml", None)]
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        configure(DigitsConfig(), tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_defaults_are_the_papers() -> None:
    config = TrainConfig(steps=1)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay, optimizer.eps) == (1e-4, (0.9, 0.999), 0, 1e-8)
    assert (config.batch_size, config.ema_decay, config.clip, config.label_dropout) == (256, 0.9999, 1.0, 0.1)


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    claim_run(tmp_path / "run", DigitsConfig())
    claim_run(tmp_path / "run", configure(DigitsConfig(), None, ["train.steps=9", "train.log_every=1"]))
    before = (tmp_path / "run" / "config.json").read_text()
    for setting in ("train.seed=1", "model.depth=3", "train.optimizer.lr=0.1"):
        with pytest.raises(UserError, match=setting.split("=")[0]):
            claim_run(tmp_path / "run", configure(DigitsConfig(), None, [setting]))
    assert (tmp_path / "run" / "config.json").read_text() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        claim_run(tmp_path / "file" / "run", DigitsConfig())
