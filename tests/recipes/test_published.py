"""The recipes' settings are the papers', and what is not is said."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from hastezoo.alignment.config import AlignmentConfig
from hastezoo.errors import UserError
from hastezoo.models.layers import parameter_count
from hastezoo.models.registry import create_model
from hastezoo.recipes.latents import LatentsConfig, checkpoints, measured_by, recipe_config
from hastezoo.recipes.published import differences, variants_of
from hastezoo.zoo.registry import package_cards

REFERENCE = tomllib.loads((Path(__file__).parents[1] / "reference" / "training.toml").read_text())
NAMES = list(REFERENCE["checkpoints"])
# What a config calls the papers' things.
TEACHERS = {"vit_base_patch14_dinov2.lvd142m": "DINOv2-B/14"}
PROJECTORS = {"mlp": "mlp of 3 linears"}


def papers(name: str) -> dict[str, Any]:
    """What the reference says of a checkpoint."""
    method = package_cards()[name].method
    return {**REFERENCE["every"], **REFERENCE[method], **REFERENCE["checkpoints"][name]}


def in_the_papers_words(config: LatentsConfig) -> dict[str, Any]:
    train = config.train
    words: dict[str, Any] = {
        "lr": train.optimizer.lr,
        "warmup": train.optimizer.warmup_steps,
        "betas": list(train.optimizer.betas),
        "weight_decay": train.optimizer.weight_decay,
        "eps": train.optimizer.eps,
        "clip": "none" if train.clip is None else train.clip,
        "ema": train.ema_decay,
        "batch": train.batch_size,
        "label_dropout": train.label_dropout,
        "times": train.times.kind,
        "flip": config.data.flip,
        "steps": train.steps,
        "teacher": "none",
    }
    if config.alignment is None:
        return words
    alignment = config.alignment
    words |= {
        "teacher": TEACHERS[alignment.teacher.name],
        "projector": PROJECTORS[alignment.projector],
        "projector_width": alignment.projector_width,
        "feature_weight": alignment.feature_weight,
        "attention_weight": alignment.attention_weight,
        "feature_layer": alignment.feature_layer,
        "tau": alignment.termination.step or alignment.termination.kind,
    }
    if alignment.attention_weight:
        words["pairs"] = [f"{student} <- {teacher}" for student, teacher in alignment.attention_pairs]
    return words


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_the_papers(name: str) -> None:
    """All but precision, which the recipes choose, and what a config has no word for."""
    wanted = papers(name)
    for other in ("optimizer", "precision", "teacher_blocks", "ours"):
        wanted.pop(other, None)
    config = recipe_config(package_cards()[name])
    assert in_the_papers_words(config) == wanted
    assert config.train.seed == 0 and config.train.accumulation == 1 and config.data.path is None
    if config.alignment is not None:
        assert config.alignment.heads == "index" and config.alignment.low_pass is None


def test_every_card_of_the_recipes_is_in_the_reference_and_no_other() -> None:
    """Also by the command's own list: 256 px and 512 px, classes and text, each by its recipe."""
    cards = package_cards()
    wanted = {name for name, card in cards.items() if card.recipe not in ("digits", "emoji")}
    assert set(NAMES) == wanted
    recipes = ("imagenet256", "imagenet512", "coco256")
    assert {name for name, card in cards.items() if card.recipe in recipes} == wanted
    for recipe in recipes:
        of_text, resolution = recipe.startswith("coco"), int(recipe[-3:])
        assert set(checkpoints(recipe)) == {
            name
            for name in wanted
            if cards[name].resolution == resolution and (cards[name].text is not None) == of_text
        }


TEXT = [name for name in NAMES if name.startswith("mmdit")]


@pytest.mark.parametrize("variant", REFERENCE["variants"])
@pytest.mark.parametrize("name", TEXT)
def test_variants_are_the_reviews(name: str, variant: str) -> None:
    """Laid over a checkpoint's settings they change what they say and nothing else; alignment where there is some."""
    card = package_cards()[name]
    if variant not in variants_of(card):
        assert variant == "attention-only" and card.method != "haste"
        return
    changes = {key: value for key, value in REFERENCE["variants"][variant].items() if key != "images"}
    before, after = (in_the_papers_words(recipe_config(card, chosen)) for chosen in ((), (variant,)))
    if card.method == "plain":
        changes.pop("tau", None)
    assert after == {**before, **changes}
    assert str(REFERENCE["variants"][variant].get("images", "")) in variants_of(card)[variant].about.replace(",", "")


def test_variants_add_up() -> None:
    config = recipe_config(package_cards()["mmdit-coco-haste"], ("20k-images", "attention-only"))
    assert config.alignment is not None and config.alignment.termination.kind == "never"
    assert (config.train.batch_size, config.alignment.feature_weight, config.alignment.attention_weight) == (64, 0, 0.5)
    with pytest.raises(UserError, match="sit-b-haste has no variant '150k', nor any other"):
        recipe_config(package_cards()["sit-b-haste"], ("150k",))


@pytest.mark.parametrize("name", NAMES)
def test_the_model_has_the_cards_parameters_and_the_blocks_that_are_aligned(name: str) -> None:
    card = package_cards()[name]
    config = recipe_config(card)
    with torch.device("meta"):
        model: Any = create_model(config.architecture, **config.model)
    assert parameter_count(model) == card.parameters
    if card.text is not None:
        assert model.config.context_length == card.text.length
    assert model.config.in_channels == 4 and model.config.size == (card.resolution // 8,) * 2
    if config.alignment is not None:
        assert config.alignment.reach <= model.config.depth
        assert max(config.alignment.teacher_blocks, default=0) < papers(name)["teacher_blocks"]


@pytest.mark.parametrize("name", NAMES)
def test_what_differs_from_the_papers_is_said(name: str) -> None:
    """Precision of each method, steps that nobody published, and what the method alone has; `here` is the config's."""
    card = package_cards()[name]
    config, found = recipe_config(card), {row.what: row for row in differences(card)}
    assert len(found) == len(differences(card)), "each thing once"
    wanted = {"precision", *papers(name)["ours"]}
    wanted |= {
        "plain": set() if card.text else {"latents", "flips"},
        "repa": {"teacher's precision"},
        "haste": {"teacher's precision", "after the end of alignment"},
    }[card.method]
    if card.text:
        wanted |= {"latents", "attention loss"} if card.method == "haste" else {"latents"}
    assert set(found) == wanted
    paper = {"fp16": "fp16 with a scaled loss", "fp32": "float32 (TF32 matrix products)"}[papers(name)["precision"]]
    assert found["precision"].paper == paper
    assert found["precision"].here.startswith("bf16 autocast") and config.train.precision == "bf16"
    if "steps" in found:
        assert found["steps"].here == f"{config.train.steps:,}"
    if "attention loss" in found:
        assert config.alignment is not None
        assert found["attention loss"].here == f"weighs {config.alignment.attention_weight:g}"
    if config.alignment is not None:
        assert found["teacher's precision"].here == config.alignment.teacher.dtype
    assert all(row.paper != row.here and row.why for row in found.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sit-s"])
def test_runs_without_pairs_are_looked_at_by_hastes(name: str) -> None:
    """By layers and pairs of HASTE's checkpoint of the same size, whatever trains it; a run with pairs by its own."""
    card = package_cards()[name]
    config = recipe_config(card)
    family, size = name.split("-")[:2]
    haste = recipe_config(package_cards()[f"{family}-{size}-haste"]).alignment
    measured = measured_by(card, config)
    assert haste is not None
    assert (measured.attention_pairs, measured.feature_layer) == (haste.attention_pairs, haste.feature_layer)
    assert measured.attention_weight == 0.5
    if config.alignment is not None:
        assert measured.teacher == config.alignment.teacher


def test_s_which_haste_was_not_tried_on_is_looked_at_by_the_defaults() -> None:
    card = package_cards()["sit-s"]
    assert measured_by(card, recipe_config(card)) == AlignmentConfig()
