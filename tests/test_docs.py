"""The documents: their commands and their Python run, their links lead somewhere."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click import Command
from click.testing import CliRunner
from PIL import Image

from hastezoo.alignment.teachers import create_teacher
from hastezoo.autoencoders import VAES
from hastezoo.cli.main import main
from hastezoo.conditioning.clip_files import CLIP
from hastezoo.recipes.coco256 import main as train_coco
from hastezoo.recipes.digits import DigitsConfig
from hastezoo.recipes.digits import main as train_digits
from hastezoo.recipes.digits_teacher import main as train_teacher
from hastezoo.recipes.emoji import main as train_emoji
from hastezoo.recipes.emoji_teacher import main as train_emoji_teacher
from hastezoo.recipes.imagenet256 import main as train_imagenet
from hastezoo.training.config import claim_run
from hastezoo.zoo.registry import ZOO, package_cards
from tests.conftest import ROOT
from tests.data.coco_making import write_coco
from tests.emoji_files import needs_emoji
from tests.evaluation.invented import Toy
from tests.local_hub import LocalHub
from tests.recipes.small import SETTINGS
from tests.recipes.test_coco_chain import SETTINGS as SMALL_TEXT
from tests.text_models import random_mmdit
from tests.zoo.foreign import TINY, random_sit, save_repa, state_of

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of every document, with the document's name."""
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(path.name, block) for path in DOCUMENTS for block in pattern.findall(path.read_text())]


def commands(start: str) -> list[str]:
    lines = [line.split(" #")[0].strip() for _, block in blocks("bash") for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith(start)})


def as_options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def small_zoo(local_hub: LocalHub, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published checkpoints by their names and origins, but tiny, on a Hub on this machine."""
    cards = dict(package_cards())
    for name in ("sit-s", "sit-xl-haste"):
        config = {**cards[name].config, **TINY, "in_channels": 4, "num_classes": 1000}
        changes = {"architecture": "sit", "config": config, "resolution": 32}
        origins = [
            origin.model_copy(update={"sha256": None, "bytes": None, "revision": None})
            for origin in cards[name].origins
        ]
        cards[name] = cards[name].model_copy(update={**changes, "origins": origins})
    monkeypatch.setattr("hastezoo.zoo.registry.package_cards", lambda: cards)
    model = random_sit(in_channels=4, num_classes=1000, learn_sigma=True, reversed_time=True)
    torch.save(state_of(model), tmp_path / "s.pt")
    origin = cards["sit-s"].origins[0]
    local_hub.files[str(origin.repo), origin.file] = (tmp_path / "s.pt").read_bytes()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        for repo in VAES.values():
            local_hub.files[repo, name] = (tiny_vae / name).read_bytes()
    save_repa(tmp_path / "2500000.pt", random_sit(in_channels=4, num_classes=1000), attn_coeff=0.5)


@pytest.fixture
def small_text(
    small_zoo: None, local_hub: LocalHub, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model of text by a published name, its weights in REPA's container, its encoder on the Hub; COCO with a
    dozen images in both of its parts."""
    from hastezoo.zoo import registry

    cards = registry.package_cards()
    config = {**cards["mmdit-coco-haste"].config, "width": 32, "depth": 1, "heads": 1, "context_width": 32}
    cards["mmdit-coco-haste"] = cards["mmdit-coco-haste"].model_copy(update={"architecture": "mmdit", "config": config})
    model = random_mmdit(**config)
    torch.save({"ema": state_of(model), "model": state_of(model), "opt": {}, "steps": 250_000}, tmp_path / "0250000.pt")
    for file in tiny_clip.iterdir():
        local_hub.files[CLIP, file.name] = file.read_bytes()
    (tmp_path / "annotations").mkdir()
    for place, captions in (
        ("train2014", "annotations/captions_train2014.json"),
        ("val2014", "annotations/captions_val2014.json"),
        ("pictures", "captions.json"),
    ):
        images, file = write_coco(tmp_path / f"coco-{place}")
        images.rename(tmp_path / place)
        file.rename(tmp_path / captions)
    (tmp_path / "prompts.txt").write_text("a cat\na red bus\n")


# What a command stands on that others made.
EXPORT = "hastezoo export runs/sit-b-haste --as sit-b-mine"
PREPARE = "hastezoo prepare folder photographs/train data/"
IMPORT_TEXT = "hastezoo import mmdit-coco-haste 0250000.pt"
PREPARE_TEXT = "hastezoo prepare coco256 val2014/ annotations/captions_val2014.json data/coco256-val"
BEFORE = {
    "hastezoo sample --model sit-xl-haste": ["hastezoo import sit-xl-haste 2500000.pt"],
    "hastezoo verify sit-s": ["hastezoo pull sit-s"],
    "hastezoo cache remove sit-s": ["hastezoo pull sit-s"],
    "hastezoo sample --model sit-b-mine": [EXPORT],
    "hastezoo push sit-b-mine": [EXPORT],
    "hastezoo inspect data/mine": [f"{PREPARE}mine --resolution 64"],
    "hastezoo inspect data/imagenet256": [f"{PREPARE}imagenet256 --resolution 64"],
    "hastezoo eval-fid --model sit-xl-haste": ["hastezoo import sit-xl-haste 2500000.pt"],
    "hastezoo eval-fid --model sit-b-mine": [EXPORT],
    "hastezoo sample --model mmdit-coco-haste": [IMPORT_TEXT],
    "hastezoo eval-fid --model mmdit-coco-haste": [IMPORT_TEXT, PREPARE_TEXT],
    "hastezoo reference info mine": [
        "hastezoo reference build photographs/val --size 8 --features pixels --out mine.safetensors"
    ],
    "hastezoo compare": [f"hastezoo eval-fid --seed {100 * n} --out {out}" for n, out in enumerate("ab")],
}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be exported."""
    out = tmp_path_factory.mktemp("run") / "digits"
    small = ["train.steps=1", "model.depth=1", "model.width=16", "model.heads=1", "train.sample_every=0"]
    arguments = ["--checkpoint", "sit-ti-digits", "--out", str(out), "--quiet", *as_options(*small)]
    assert CliRunner().invoke(train_digits, arguments).exit_code == 0
    return out


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of two classes, which are all of ImageNet for once."""
    from hastezoo.cli import prepare

    for index in range(4):
        for part in ("train", "val"):
            place = tmp_path / "photographs" / part / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.linear_gradient("L").rotate(90 * index).save(place / f"{index}.png")
    monkeypatch.setattr(prepare, "IMAGENET", (4, 2))


@pytest.fixture
def toy_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of Inception a few fixed projections, and statistics of those in the place of ImageNet's."""
    from hastezoo.evaluation import extractors
    from hastezoo.evaluation.references import named

    create = extractors.create_extractor
    monkeypatch.setattr(
        extractors, "create_extractor", lambda name, **rest: create(name, **rest) if name == "pixels" else Toy()
    )
    random = np.random.default_rng(0)
    statistics = {"mu": np.zeros(6), "sigma": np.eye(6), "mu_s": np.zeros(4), "sigma_s": np.eye(4)}
    np.savez(tmp_path / "imagenet.npz", **statistics)
    known = named.named_references()["imagenet256"].model_copy(update={"bytes": None, "file": "imagenet.npz"})
    monkeypatch.setattr(named.NamedReference, "place", property(lambda self: tmp_path / self.file))
    every = {"imagenet256": known, "coco256-val": known}
    places = ("references", "references.named", "references.info", "results.expected")
    # All before the first is changed: one that came later would keep what it was given then.
    for module in [importlib.import_module(f"hastezoo.evaluation.{place}") for place in places]:
        monkeypatch.setattr(module, "named_references", lambda: every)
    np.savez(tmp_path / "samples.npz", arr_0=random.integers(0, 256, (80, 16, 16, 3), np.uint8))


def shrunken(command: str) -> list[str]:
    """A command's arguments; an evaluation of 70 images, or of a dozen prompts, in two steps; two from text."""
    arguments = shlex.split(command)[1:]
    if arguments[0] == "sample" and "mmdit" in command:
        return [*arguments, "--steps", "2", "--device", "cpu", "--seeds" if "-n" not in arguments else "--seed", "3"]
    if arguments[0] != "eval-fid":
        return arguments
    count = "12" if "--prompts" in arguments else "70"
    return [*arguments, "-n", count, "--device", "cpu"] + ([] if "--samples" in arguments else ["--steps", "2"])


TEXT = ("mmdit-coco", "prepare coco256", "prepare captions")  # in a command about models of text


@pytest.mark.usefixtures("small_zoo", "photographs", "toy_inception")
@pytest.mark.parametrize("command", commands("hastezoo "))
def test_commands_run(
    command: str, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if any(words in command for words in TEXT):
        request.getfixturevalue("small_text")
    if "sit-b" in command:
        shutil.copytree(small_run, "runs/sit-b-haste")
    name = "sit-ti-digits-haste"
    weights = tmp_path / "runs" / name / f"{name}.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.symlink_to(ZOO / "embedded" / f"{name}.safetensors")
    for run in ("mine", "plain", "haste"):
        claim_run(tmp_path / "runs" / run, DigitsConfig())
        lines = [json.dumps({"step": step, "loss": 1 / step, "denoising": 1 / step}) for step in (50, 100)]
        (tmp_path / "runs" / run / "metrics.jsonl").write_text("\n".join(lines))
    first = [one for start, commands in BEFORE.items() if command.startswith(start) for one in commands]
    for one in [*first, command]:
        result = CliRunner().invoke(main, shrunken(one))
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "command", [line for line in commands("python -m hastezoo.recipes.digits") if "digits_teacher" not in line]
)
def test_training_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrunken: the command's own options, then a model and a number of steps that take no time."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("[train]\nseed = 3\n")
    small = ["train.steps=2", "model.depth=3", "model.width=16", "model.heads=1", "train.sample_every=0"]
    small += ["evaluation.images=70", "evaluation.steps=2"]
    arguments = [*shlex.split(command)[3:], *as_options(*small), "--quiet"]
    result = CliRunner().invoke(train_digits, arguments)
    assert result.exit_code == 0, result.output
    assert list(Path("runs").rglob("*.safetensors"))


def check_recipe(recipe: Command, command: str, place: str, data: Path, *settings: str) -> None:
    """Dry runs and lists as they are; training for two steps with a small model, on small `data` at `place`."""
    arguments = shlex.split(command)[3:]
    training = "--data" in arguments
    if training:
        Path("data").mkdir()
        Path(place).symlink_to(data)
        arguments += ["--quiet", "--allow-batch-mismatch", *as_options(*settings, "train.steps=2")]
    result = CliRunner().invoke(recipe, arguments)
    assert result.exit_code == 0, result.output
    assert bool(list(Path.cwd().rglob("*.safetensors"))) == training


@pytest.mark.parametrize("command", commands("python -m hastezoo.recipes.coco"))
def test_recipes_of_coco_run(
    command: str, captioned: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    teaching = f"alignment.teacher.name=local-dir:{teacher}"
    check_recipe(train_coco, command, "data/coco256", captioned, *SMALL_TEXT, "model.input_size=8", teaching)


@pytest.mark.parametrize("command", commands("python -m hastezoo.recipes.imagenet"))
def test_recipes_of_imagenet_run(
    command: str, prepared: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    teaching = f"alignment.teacher.name=local-dir:{teacher}"
    check_recipe(train_imagenet, command, "data/imagenet256", prepared, *SETTINGS, teaching)


def test_the_teachers_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = commands("python -m hastezoo.recipes.digits_teacher")
    result = CliRunner().invoke(train_teacher, [*shlex.split(command)[3:], "--epochs", "1", "--quiet"])
    assert result.exit_code == 0, result.output
    assert create_teacher("local-dir:runs/digits-teacher", attention_layers=[2, 3]).grid == (4, 4)


@needs_emoji
@pytest.mark.parametrize("command", commands("python -m hastezoo.recipes.emoji"))
def test_recipes_of_emoji_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first emoji only, with the teacher that ships."""
    monkeypatch.chdir(tmp_path)
    small = ["train.steps=2", "train.batch_size=4", "train.sample_every=0", "data.limit=20"]
    small += ["model.width=32", "model.heads=2"]
    if "emoji_teacher" in command:
        recipe, options = train_emoji_teacher, ["--limit", "20", "--epochs", "1"]
    else:
        recipe, options = train_emoji, as_options(*small)
    result = CliRunner().invoke(recipe, [*shlex.split(command)[3:], *options, "--quiet"])
    assert result.exit_code == 0, result.output
    assert list(Path("runs").rglob("*.safetensors"))


@pytest.mark.parametrize(("document", "code"), blocks("python"), ids=lambda value: value if len(value) < 30 else "code")
def test_python_runs(document: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, document, "exec"), {"__name__": "document"})


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+?)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"
