"""The command of the recipe of text: what it lists, plans, refuses and begins; nothing is trained here."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hastezoo.data.manifest import Manifest, TextFile, TextInfo
from hastezoo.recipes import latents
from hastezoo.recipes.coco256 import main
from hastezoo.recipes.dry_run import changes
from hastezoo.recipes.latents import check_fits, recipe_config
from hastezoo.training.config import configure
from hastezoo.zoo.registry import find_card
from tests.recipes.manifests import write_manifest

IMAGES, CAPTIONS = 82_783, 414_113  # of train2014
STATES = 2 * 77 * 768  # bytes of a caption's, in float16
WIDTH, DEPTH, PATCHES, TOKENS = 768, 24, 256, 77


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def refused(*words: str) -> str:
    result = invoke(*words)
    assert result.exit_code == 2 and result.output.startswith("error: "), result.output
    return result.output


def write_captioned(folder: Path, **changes: Any) -> Path:
    """A data set's manifest by itself, of 3000 captioned images unless told otherwise."""
    empty = TextFile(file="empty.safetensors", sha256="0" * 64)
    text = TextInfo(
        encoder="openai/clip-vit-large-patch14", encoder_sha256="0" * 64, length=77, width=768, captions=15_000,
        empty=empty,
    )  # fmt: skip
    return write_manifest(folder, classes=0, text=text, name="coco256", **changes)


def planned(*words: str) -> dict[str, Any]:
    result = invoke("--dry-run", "--json", *words)
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def test_list_shows_arms_and_variants() -> None:
    lines = invoke("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["mmdit-coco", "mmdit-coco-repa", "mmdit-coco-haste"]
    assert "default" in lines[3] and "200,000" in lines[3] and "250,000" in lines[3]
    assert [line.split(":")[0] for line in lines[4:]] == [
        "--variant 150k", "--variant 20k-images", "--variant attention-only",
    ]  # fmt: skip
    rows = {row["checkpoint"]: row for row in json.loads(invoke("--list", "--json").stdout)}
    assert set(rows["mmdit-coco"]["variants"]) == {"150k", "20k-images"}
    assert set(rows["mmdit-coco-haste"]["variants"]) == {"150k", "20k-images", "attention-only"}


def test_what_a_run_takes() -> None:
    """FLOPs by hand: the linear layers and attention of two streams, three times for forward and backward."""
    plan = planned("--checkpoint", "mmdit-coco")
    tokens = PATCHES + TOKENS
    block = 12 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH
    # The last block's context side has no way out, and a few linears work on single vectors.
    last = TOKENS * 9 * WIDTH**2
    ends = TOKENS * WIDTH**2 + PATCHES * (16 + 16) * WIDTH + DEPTH * 12 * WIDTH**2
    assert plan["flops_per_image"] == pytest.approx(6 * (DEPTH * block - last + ends), rel=0.01)
    assert plan["parameters"] == 505_070_608 and plan["samples"] == IMAGES
    assert plan["epochs"] == pytest.approx(250_000 * 256 / IMAGES)
    pixels, moments = 3 * 256**2, 2 * 2 * 4 * 32**2
    assert plan["data_bytes"] == pytest.approx(IMAGES * (pixels + moments) + CAPTIONS * STATES, rel=1e-9)
    assert not plan["changes"] and plan["aligned_steps"] == 0


def test_a_variant_is_planned_as_it_is_published() -> None:
    plan = planned("--variant", "20k-images", "--gpus", "1")
    assert (plan["samples"], plan["steps"], plan["batch_size"], plan["aligned_steps"]) == (20_000, 50_000, 64, 50_000)
    assert plan["epochs"] == pytest.approx(160) and not plan["changes"]
    recipe = recipe_config(find_card("mmdit-coco-haste"), ("150k",))
    changed = configure(recipe, None, ["optimizer.lr=2e-4", "steps=1000"])
    assert changes(recipe, changed) == {"train.optimizer.lr": [1e-4, 2e-4], "train.steps": [150_000, 1000]}


def test_the_effective_batch_is_that_of_the_variant() -> None:
    assert "is trained with 256" in refused("--dry-run", "--set", "batch_size=64")
    assert "is trained with 64" in refused("--dry-run", "--variant", "20k-images", "--set", "batch_size=256")


def test_without_data_it_says_how_to_prepare_some() -> None:
    said = refused()
    assert "hastezoo prepare coco256 train2014/ captions_train2014.json FOLDER" in said and said.count("\n") == 2


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ((), "mmdit-coco-haste"),
        (("--checkpoint", "mmdit-coco-repa"), "mmdit-coco-repa"),
        (("--variant", "20k-images", "--variant", "attention-only"), "mmdit-coco-haste-20k-images-attention-only"),
    ],
)
def test_where_a_run_goes(words: tuple[str, ...], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants have folders of their own, so that none goes on with another's run."""
    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(latents, "run", lambda *given, **options: begun.append(given))
    assert invoke("--data", str(write_captioned(tmp_path / "data")), *words).exit_code == 0
    ((recipe, name, config, out),) = begun
    variants = [word for word, before in zip(words[1:], words, strict=False) if before == "--variant"]
    wanted = recipe_config(find_card(name), variants)
    assert recipe == "coco256" and out == Path("runs") / folder
    assert config.model_copy(update={"data": wanted.data}) == wanted


def test_other_data_than_a_setting_was_published_for_is_warned_of(tmp_path: Path) -> None:
    data = str(write_captioned(tmp_path / "few"))
    whole = str(write_captioned(tmp_path / "whole", samples=20_000))
    small = invoke("--dry-run", "--checkpoint", "mmdit-coco", "--variant", "20k-images", "--data", data)
    assert f"warning: {data} has 3,000 images, and these settings are for 20,000" in small.stderr
    scarce, usual = (recipe_config(find_card("mmdit-coco"), variants) for variants in (("20k-images",), ()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_fits(scarce, Manifest.read(Path(whole)))
        check_fits(usual, Manifest.read(Path(data)))


def test_it_is_the_recipe_of_its_checkpoints() -> None:
    from hastezoo.recipes.imagenet256 import main as other

    result = CliRunner().invoke(other, ["--checkpoint", "mmdit-coco", "--dry-run"])
    assert "(python -m hastezoo.recipes.coco256 does)" in result.output
