"""`hastezoo export` of a real run, and what the other commands make of the result."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hastezoo.cli.export import command
from hastezoo.cli.main import main
from hastezoo.recipes.digits import DigitsConfig, run
from hastezoo.training.config import configure
from hastezoo.training.record import RunRecord

TINY = [
    "model.depth=1",
    "model.width=16",
    "model.heads=1",
    "train.steps=2",
    "train.batch_size=8",
    "train.sample_every=0",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a tiny plain model of digits."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    run("sit-ti-digits", configure(DigitsConfig(), None, TINY), out, device="cpu", quiet=True)
    RunRecord(
        recipe="digits", checkpoint="sit-ti-digits", class_list="digits", data="digits", resolution=8, device="cpu"
    ).write(out)
    return out


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def good(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_from_a_run_to_images_and_a_model_card(trained: Path, own_home: Path, tmp_path: Path) -> None:
    result = export(trained, "--as", "mine")
    assert result.exit_code == 0, result.output
    card = own_home / "cards" / "mine.toml"
    weights = card.with_suffix(".safetensors")
    assert weights.read_bytes() == (trained / "sit-ti-digits.safetensors").read_bytes()
    assert result.output.splitlines() == [
        f"card: {card}",
        f"weights: {weights} ({weights.stat().st_size:,} bytes, step 2)",
        "draw with them: hastezoo sample --model mine",
        "publish them: hastezoo push mine --repo OWNER/NAME --licence ...",
    ]
    good("sample", "--model", "mine", "-n", "2", "--steps", "2", "--out", tmp_path / "images")
    pictures = sorted((tmp_path / "images").glob("*.png"))
    assert pictures and all(Image.open(path).size for path in pictures)
    told = " ".join(good("info", "mine").split())
    assert "sit_ti_2" in told and "10 classes (zero ... nine)" in told and "denoising loss" in told
    assert "steps 2" in told and "plain" in told
    assert "mine" in good("list")
    readme = good("push", "mine", "--repo", "me/x", "--licence", "mit", "--dry-run")
    assert "license: mit" in readme and "## Results\n" in readme and "denoising loss" in readme
    assert good("verify", "mine")


def test_classes_of_ones_own_are_known_to_every_command(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    record = RunRecord.read(trained).model_copy(update={"class_list": "", "classes": tuple("abcdefghij")})
    record.write(run)
    assert export(run, "--as", "mine").exit_code == 0
    good("sample", "--model", "mine", "--class", "c", "--steps", "2", "--out", tmp_path / "images")
    assert "10 classes (a ... j)" in " ".join(good("info", "mine").split())
    assert good("classes", "--model", "mine").split()[2:6] == ["0", "a", "1", "b"]


def test_options_reach_the_card(trained: Path, own_home: Path) -> None:
    options = ["--weights", "model", "--step", "2", "--title", "Mine", "--licence", "apache 2"]
    result = export(trained, "--as", "mine", *options)
    assert result.exit_code == 0, result.output
    assert result.output.endswith("--licence 'apache 2'\n")
    text = (own_home / "cards" / "mine.toml").read_text()
    assert 'title = "Mine"' in text and 'licence = "apache 2"' in text and "raw weights" in text
    assert export(trained, "--as", "mine", "--force").exit_code == 0


def test_a_mistake_is_one_line(trained: Path, tmp_path: Path) -> None:
    for arguments, message in [
        ((tmp_path, "--as", "mine"), "no run of a recipe: it has no run.json"),
        ((trained, "--as", "sit-ti-digits"), "is that of a checkpoint of the package"),
        ((trained, "--as", "mine", "--step", "7"), "kept: 2"),
    ]:
        result = export(*arguments)
        assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
        assert result.output.startswith("error: ") and message in result.output
