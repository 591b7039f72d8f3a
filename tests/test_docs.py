"""The documents: their commands run, their links lead somewhere, their numbers are the measured ones."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
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
from hastezoo.recipes.imagenet256 import main as train_imagenet
from hastezoo.training.config import claim_run
from hastezoo.zoo import documents
from hastezoo.zoo.registry import ZOO, find_card, package_cards
from tests.data.coco_making import write_coco
from tests.evaluation.invented import Toy
from tests.local_hub import LocalHub
from tests.recipes.small import SETTINGS
from tests.recipes.test_coco_chain import SETTINGS as SMALL_TEXT
from tests.text_models import random_mmdit
from tests.zoo.foreign import TINY, random_sit, save_repa, state_of

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of every document, with the document's name."""
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(path.name, block) for path in DOCUMENTS for block in pattern.findall(path.read_text())]


def commands(start: str) -> list[str]:
    lines = [line.split(" #")[0].strip() for _, block in blocks("bash") for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith(start)})


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
    options = [part for setting in small for part in ("--set", setting)]
    arguments = ["--checkpoint", "sit-ti-digits", "--out", str(out), "--quiet", *options]
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
    for module in (named, importlib.import_module("hastezoo.evaluation.references")):
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


def test_tables_of_checkpoints_are_up_to_date() -> None:
    """`make documents` writes them."""
    for name, columns in documents.DOCUMENTS.items():
        text = (ROOT / name).read_text()
        assert documents.updated(text, columns) == text, f"{name} is out of date: make documents"
        assert all(f"`{card}`" in text for card in package_cards())


@pytest.mark.parametrize(
    "command", [line for line in commands("python -m hastezoo.recipes.digits") if "digits_teacher" not in line]
)
def test_training_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrunken: the command's own options, then a model and a number of steps that take no time."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("[train]\nseed = 3\n")
    small = ["train.steps=2", "model.depth=3", "model.width=16", "model.heads=1", "train.sample_every=0"]
    small += ["evaluation.images=70", "evaluation.steps=2"]
    arguments = [*shlex.split(command)[3:], *(part for setting in small for part in ("--set", setting)), "--quiet"]
    result = CliRunner().invoke(train_digits, arguments)
    assert result.exit_code == 0, result.output
    assert list(Path("runs").rglob("*.safetensors"))


@pytest.mark.parametrize("command", commands("python -m hastezoo.recipes.coco"))
def test_recipes_of_coco_run(
    command: str, captioned: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dry runs and lists as they are; training with a small model, on small data in the place of COCO."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)[3:]
    if "--data" in arguments:
        Path("data").mkdir()
        Path("data/coco256").symlink_to(captioned)
        small = [*SMALL_TEXT, "model.input_size=8", f"alignment.teacher.name=local-dir:{teacher}", "train.steps=2"]
        arguments += ["--quiet", "--allow-batch-mismatch", *(part for setting in small for part in ("--set", setting))]
    result = CliRunner().invoke(train_coco, arguments)
    assert result.exit_code == 0, result.output
    assert bool(list(tmp_path.rglob("*.safetensors"))) == ("--data" in arguments)


@pytest.mark.parametrize("command", commands("python -m hastezoo.recipes.imagenet"))
def test_recipes_of_imagenet_run(
    command: str, prepared: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dry runs and lists as they are; training with a small model, on small data in the place of ImageNet."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(command)[3:]
    if "--data" in arguments:
        Path("data").mkdir()
        Path("data/imagenet256").symlink_to(prepared)
        small = [*SETTINGS, f"alignment.teacher.name=local-dir:{teacher}", "train.steps=2"]
        arguments += ["--quiet", "--allow-batch-mismatch", *(part for setting in small for part in ("--set", setting))]
    result = CliRunner().invoke(train_imagenet, arguments)
    assert result.exit_code == 0, result.output
    assert bool(list(tmp_path.rglob("*.safetensors"))) == ("--data" in arguments)


def test_the_teachers_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = commands("python -m hastezoo.recipes.digits_teacher")
    result = CliRunner().invoke(train_teacher, [*shlex.split(command)[3:], "--epochs", "1", "--quiet"])
    assert result.exit_code == 0, result.output
    assert create_teacher("local-dir:runs/digits-teacher", attention_layers=[2, 3]).grid == (4, 4)


@pytest.mark.parametrize(("document", "code"), blocks("python"), ids=lambda value: value if len(value) < 30 else "code")
def test_python_runs(document: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, document, "exec"), {"__name__": "document"})


def test_links_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+?)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


MEASURED = [name for name, card in package_cards().items() if card.best("measured")]


def measured(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"digits_quality_{name}.json").read_text())
    return result


@pytest.mark.parametrize("name", MEASURED)
def test_cards_hold_what_was_measured_on_these_weights(name: str) -> None:
    card, result = find_card(name), measured(name)
    assert card.weights is not None and result["weights_sha256"] == card.weights.sha256
    values = {entry.short: entry.value for entry in card.results}
    assert values["pixel FD"] == round(result["frechet"], 1)
    assert values["recognised"] == round(result["recognised"], 3)
    assert values["nearest"] == round(result["nearest_training_digit"]["unguided"]["median"], 1)


@pytest.mark.parametrize("name", MEASURED)
def test_model_card_and_readme_hold_the_measured_numbers(name: str) -> None:
    result = measured(name)
    near = result["nearest_training_digit"]
    for document in ("MODEL_CARD.md", "README.md"):
        text = (ROOT / document).read_text()
        assert f"{100 * result['recognised']:.1f} %" in text and f"{result['frechet']:.1f}" in text
        assert f"{result['frechet_floor']:.1f}" in text and f"{result['frechet_train_to_test']:.1f}" in text
    text = (ROOT / "MODEL_CARD.md").read_text()
    for kind in ("unguided", "guided", "real_test"):
        assert "{median:.1f} ({p10:.1f}, {p90:.1f})".format(**near[kind]) in text
    assert f"{100 * result['recognised_unguided']:.1f} %" in text


def test_model_card_holds_the_measured_speed() -> None:
    speed = json.loads((ROOT / "benchmarks" / "results" / "sampling_speed.json").read_text())
    batch = speed["images_per_second"]["eager, batch 32"]
    text = " ".join((ROOT / "MODEL_CARD.md").read_text().split())
    assert f"takes {speed['command_seconds']['median']:.1f} s" in text
    assert f"{batch['median']:.0f} images/s in batches of 32, {batch['ratio']:.1f} times" in text


def test_weights_page_holds_the_measured_import() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "import_memory.json").read_text())
    text = " ".join((ROOT / "docs" / "weights.md").read_text().split())
    ours, obvious = result["hastezoo import"], result["torch.load and save_file"]
    assert f"{result['bytes']['released.pt'] / 1e9:.1f} GB container" in text
    assert f"in {ours['seconds']['median']:.1f} s with a peak of {ours['peak_gb']['median']:.1f} GB" in text
    assert f"take {obvious['seconds']['median']:.1f} s and {obvious['peak_gb']['median']:.1f} GB" in text
    assert ours["peak_gb"]["most"] <= 1.5 * result["bytes"]["model.safetensors"] / 1e9


@pytest.mark.parametrize("name", MEASURED)
def test_the_quality_that_was_promised(name: str) -> None:
    result = measured(name)
    assert result["recognised"] >= 0.97
    assert result["frechet"] <= 2 * result["frechet_train_to_test"]


def test_the_best_of_the_digits_is_as_near_to_them_as_they_are_to_each_other() -> None:
    results = [measured(name) for name in MEASURED]
    assert len(results) == 3 and len({find_card(name).steps for name in MEASURED}) == 1
    assert min(result["frechet"] for result in results) <= results[0]["frechet_train_to_test"]


def rows_of_the_step(result: dict[str, Any]) -> list[str]:
    return [
        f"| {kind} | {row['seconds']['median']:.2f} ({row['seconds']['least']:.2f}..{row['seconds']['most']:.2f}) | "
        f"{row['over REPA']['seconds']['median']:.3f} | {row['peak_bytes'] / 1e9:.2f} | "
        f"{row['over REPA']['peak_bytes']:.3f} |"
        for kind, row in result["runs"].items()
    ]


def rows_of_the_memory(result: dict[str, Any]) -> list[str]:
    def cells(row: dict[str, Any]) -> str:
        return f"{row['peak_bytes'] / 1e6:.1f} ({row['largest_allocation_bytes'] / 1e6:.1f})"

    return [
        f"| {tokens} | {row['map_bytes'] / 1e6:.1f} | {cells(row['naive'])} | {cells(row['ours'])} | "
        f"{row['ratios']['time']:.2f} |"
        for tokens, row in result["tokens"].items()
    ]


@pytest.mark.parametrize(("name", "rows"), [("train_step", rows_of_the_step), ("attention_memory", rows_of_the_memory)])
def test_alignment_page_holds_what_was_measured(name: str, rows: Any) -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    text = (ROOT / "docs" / "alignment.md").read_text()
    assert [row for row in rows(result) if row not in text] == []


def test_data_page_holds_what_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "data_reading.json").read_text())
    text = " ".join((ROOT / "docs" / "data.md").read_text().split())
    latents, images = result["latents_per_second"], result["images_per_second_two_workers"]
    for rates, base in ((latents, "a file each"), (images, "a file each, png")):
        for rate in rates.values():
            shown = f"| {rate['median']:,} ({rate['least']:,}..{rate['most']:,}) |"
            assert f"{shown} {rate['median'] / rates[base]['median']:.1f} |" in text
    decoding, size = result["decoding_ms_one_process"], result["bytes_per_sample"]
    assert f"{decoding['png']:.2f} ms of a core for a PNG and {decoding['jpeg']:.2f} ms for a JPEG" in text
    assert f"({size['png'] / 1e3:.0f} and {size['jpeg'] / 1e3:.0f} kB a sample" in text
    assert latents["prepared"]["least"] >= 20_000 and images["prepared, png"]["least"] >= 600  # what was promised


def costs() -> Any:
    """benchmarks/training_costs.py, which is no module of the package."""
    path = ROOT / "benchmarks" / "training_costs.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        return importlib.import_module("training_costs")


def test_training_page_holds_the_table_of_costs() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "training_costs.json").read_text())
    pages = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("training", "text")}
    rows = {name: costs().row(name, cost) for name, cost in result["checkpoints"].items()}
    assert len(rows) == 15
    for name, row in rows.items():
        assert row in pages["text" if find_card(name).text else "training"], name


@pytest.mark.parametrize("name", ["sit-s", "sit-b-haste", "mmdit-coco-haste"])
def test_costs_are_what_the_dry_run_says(name: str) -> None:
    """Two of them, so that the table is not out of date; all dry runs are tested beside the recipes."""
    from hastezoo.recipes.dry_run import Machine, as_json, plan
    from hastezoo.recipes.latents import recipe_config

    written = json.loads((ROOT / "benchmarks" / "results" / "training_costs.json").read_text())["checkpoints"][name]
    now = as_json(plan(find_card(name), recipe_config(find_card(name)), Machine()))
    assert {key: now[key] for key in written} == pytest.approx(written)


def test_costs_of_metrics_are_those_measured() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "metric_speed.json").read_text())
    text = (ROOT / "docs" / "evaluation.md").read_text()
    distance, balls, kid = result["frechet_distance"], result["precision_recall"], result["kid"]
    ours, root, eigenvalues = (
        distance[name]["seconds"]["median"] for name in ("ours", "square root", "torch-fidelity")
    )
    for line in (
        f"| FID: moments, distance, error | {result['stage_seconds']['fid']['total']:.1f} |",
        f"| sFID likewise | {result['stage_seconds']['sfid']['total']:.1f} |",
        f"| {ours:.2f} | scipy's square root {root:.2f}, torch-fidelity's eigenvalues {eigenvalues:.2f} |",
        f"| {balls['seconds']:.0f} | its products alone {balls['floor']['seconds']:.0f}; peak memory "
        f"{balls['peak_gb']:.2f} GB",
        f"| {kid['ours, float64']['seconds']:.1f} | torch-fidelity in float32 "
        f"{kid['torch-fidelity, float32']['seconds']:.1f} |",
    ):
        assert line in text, line
