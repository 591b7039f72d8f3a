"""The command of the recipes of ImageNet up to where training begins: what it lists, takes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hastezoo.errors import REQUEUE
from hastezoo.recipes import imagenet256, imagenet512, latents
from hastezoo.recipes.latents import LatentsConfig, checkpoints, recipe_config
from hastezoo.training import estimate
from hastezoo.zoo.registry import package_cards
from tests.recipes.manifests import write_manifest
from tests.test_imports import HEAVY

MAINS = {"imagenet256": imagenet256.main, "imagenet512": imagenet512.main}
DEFAULTS = {"imagenet256": "sit-xl-haste", "imagenet512": "sit-xl-haste-512"}


def invoke(*words: str, recipe: str = "imagenet256", processes: int | None = None) -> Result:
    environment = {"WORLD_SIZE": None if processes is None else str(processes)}
    return CliRunner(env=environment).invoke(MAINS[recipe], words)


def refused(*words: str, **named: Any) -> str:
    """What the command ends in: one line, exit code 2."""
    result = invoke(*words, **named)
    assert result.exit_code == 2 and not result.stdout and result.stderr.count("\n") == 1, result.output
    return result.stderr


class Begun:
    """Stands where a run would begin, and remembers with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, LatentsConfig, Path]] = []
        self.options: dict[str, Any] = {}
        self.stopped: int | None = None

    def __call__(self, recipe: str, checkpoint: str, config: LatentsConfig, out: Path, **options: Any) -> None:
        self.calls.append((recipe, checkpoint, config, out))
        self.options = options
        if self.stopped is not None:
            raise SystemExit(self.stopped)

    @property
    def config(self) -> LatentsConfig:
        return self.calls[-1][2]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    runs = Begun()
    monkeypatch.setattr(latents, "run", runs)
    return runs


@pytest.fixture
def data(tmp_path: Path) -> str:
    return str(write_manifest(tmp_path / "data"))


@pytest.mark.parametrize("recipe", MAINS)
def test_list_shows_every_checkpoint(recipe: str) -> None:
    lines = invoke("--list", recipe=recipe).stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert list(rows) == list(checkpoints(recipe)) and lines[0].startswith("checkpoint")
    for name, card in checkpoints(recipe).items():
        config = recipe_config(card)
        end = config.alignment.termination if config.alignment else None
        ending = "-" if end is None else f"{end.step:,}" if end.step else "never"
        marked = ["default"] if name == DEFAULTS[recipe] else []
        steps = f"{config.train.steps:,}"
        assert rows[name] == [card.method, f"{card.parameters / 1e6:.1f}", "M", steps, ending, *marked]


@pytest.mark.parametrize("recipe", MAINS)
def test_list_as_json_has_numbers_and_whole_settings(recipe: str) -> None:
    rows = json.loads(invoke("--list", "--json", recipe=recipe).stdout)
    assert [row["checkpoint"] for row in rows] == list(checkpoints(recipe))
    for row in rows:
        card = package_cards()[row["checkpoint"]]
        assert (row["method"], row["parameters"]) == (card.method, card.parameters)
        assert row["default"] == (card.name == DEFAULTS[recipe])
        assert LatentsConfig.model_validate(row["config"]) == recipe_config(card)


@pytest.mark.parametrize(
    ("recipe", "name", "message"),
    [
        ("imagenet256", "sit-xl-hast", "imagenet256 trains no checkpoint 'sit-xl-hast'; nearest: sit-xl-haste"),
        ("imagenet256", "SIT-B", "'SIT-B'; nearest: sit-b"),
        ("imagenet256", "zzz", "nearest: sit-s, sit-b, sit-b-repa"),
        (
            "imagenet256",
            "sit-xl-haste-512",
            "'sit-xl-haste-512' (python -m hastezoo.recipes.imagenet512 does); nearest: sit-xl-haste",
        ),
        ("imagenet512", "sit-xl", "'sit-xl' (python -m hastezoo.recipes.imagenet256 does); nearest: sit-xl-512"),
        ("imagenet512", "sit-ti-digits", "(python -m hastezoo.recipes.digits does)"),
    ],
)
def test_a_checkpoint_of_another_name_or_recipe(recipe: str, name: str, message: str) -> None:
    assert message in refused("--checkpoint", name, "--dry-run", recipe=recipe)


@pytest.mark.parametrize("name", ["sit-ti-digits", "mmdit-coco"])
def test_no_recipe_is_named_that_is_not_there(name: str) -> None:
    """A card may name the recipe of a later version."""
    said = refused("--checkpoint", name)
    recipe = package_cards()[name].recipe
    there = (Path(latents.__file__).parent / f"{recipe}.py").exists()
    assert (f"hastezoo.recipes.{recipe} does" in said) == there


@pytest.mark.parametrize("recipe", MAINS)
def test_the_default_checkpoint(recipe: str, begun: Begun, tmp_path: Path) -> None:
    data = str(write_manifest(tmp_path / "data"))
    assert invoke("--data", data, recipe=recipe).exit_code == 0
    ((trained_by, name, config, out),) = begun.calls
    assert (trained_by, name, out) == (recipe, DEFAULTS[recipe], Path("runs") / DEFAULTS[recipe])
    wanted = recipe_config(package_cards()[name])
    assert config.data.path == Path(data)
    assert config.model_copy(update={"data": wanted.data}) == wanted


def test_options_reach_the_run(begun: Begun, data: str, tmp_path: Path) -> None:
    words = ["--checkpoint", "sit-b", "--data", data, "--out", str(tmp_path / "x"), "--device", "cpu", "--fresh"]
    assert invoke(*words, "--quiet", "--fork", "step-00000001.pt").exit_code == 0
    assert begun.calls[-1][1::2] == ("sit-b", tmp_path / "x")
    assert begun.options == {"device": "cpu", "fresh": True, "quiet": True, "origin": Path("step-00000001.pt")}
    begun.stopped = REQUEUE
    assert invoke("--data", data).exit_code == REQUEUE


def test_a_setting_reaches_its_place_and_nothing_else(begun: Begun, data: str) -> None:
    invoke("--checkpoint", "sit-b-haste", "--data", data, "--set", "optimizer.lr=2e-4")
    recipe = recipe_config(package_cards()["sit-b-haste"])
    assert begun.config.train.optimizer.lr == 2e-4 and recipe.train.optimizer.lr == 1e-4
    rest = recipe.train.optimizer.model_copy(update={"lr": 2e-4})
    assert begun.config.train == recipe.train.model_copy(update={"optimizer": rest})
    assert (begun.config.alignment, begun.config.model) == (recipe.alignment, recipe.model)


def test_recipe_below_file_below_command_line(begun: Begun, data: str, tmp_path: Path) -> None:
    """Of settings, and of the data's folder, which has an option of its own."""
    file = tmp_path / "mine.toml"
    optimizer = "[train.optimizer]\nlr = 3e-4\nweight_decay = 0.1\n"
    end = "[alignment.termination]\nstep = 1234\n"
    file.write_text(f'data.path = "elsewhere"\n[train]\nseed = 3\nworkers = 7\n{end}{optimizer}')
    words = ["--checkpoint", "sit-xl-haste", "--config", str(file), "--set", "train.optimizer.lr=2e-4"]
    assert invoke(*words, "--set", "alignment.termination.step=99", "--set", "workers=2").exit_code == 0
    train, alignment = begun.config.train, begun.config.alignment
    assert (train.optimizer.lr, train.optimizer.weight_decay, train.optimizer.betas) == (2e-4, 0.1, (0.9, 0.999))
    assert (train.seed, train.workers, train.ema_decay, train.steps) == (3, 2, 0.9999, 2_500_000)
    assert alignment is not None and (alignment.termination.step, alignment.feature_layer) == (99, 8)
    assert begun.config.data.path == Path("elsewhere")
    assert invoke(*words, "--set", "data.path=there").exit_code == 0 and begun.config.data.path == Path("there")
    assert invoke(*words, "--set", "data.path=there", "--data", data).exit_code == 0
    assert begun.config.data.path == Path(data)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.lrr=2e-4", "unknown key 'train.optimizer.lrr'; nearest: lr"),
        ("trian.steps=5", "unknown key 'trian'; nearest: train"),
        ("data.pth=x", "unknown key 'data.pth'; nearest: path"),
        ("grid.image=4", "unknown key 'grid.image'; nearest: images"),
        ("optimizer.lr=fast", "train.optimizer.lr: input should be a valid number"),
        ("alignment.termination.kind=never", "alignment.termination: kind 'step' and a step go together"),
        ("steps", "--set takes key=value, not 'steps'"),
    ],
)
def test_settings_that_cannot_be(setting: str, message: str, begun: Begun, data: str) -> None:
    assert message in refused("--data", data, "--set", setting) and not begun.calls


@pytest.mark.parametrize(
    ("recipe", "name", "command"),
    [
        ("imagenet256", "sit-xl-haste", "hastezoo prepare imagenet256 /path/to/ILSVRC/train FOLDER (SOURCE"),
        ("imagenet256", "sit-b", "hastezoo prepare imagenet256 /path/to/ILSVRC/train FOLDER --vae ema --flip (SOURCE"),
        ("imagenet512", "sit-xl-haste-512", "hastezoo prepare imagenet512 /path/to/ILSVRC/train FOLDER (SOURCE"),
    ],
)
def test_without_data_two_lines_say_how_to_get_some(recipe: str, name: str, command: str) -> None:
    """What is typed there is taken by `hastezoo prepare`, but for the source, which is not there."""
    result = invoke("--checkpoint", name, recipe=recipe)
    first, second = result.stderr.splitlines()
    assert result.exit_code == 2 and not result.stdout
    assert first == f"error: {name} trains on a prepared data set; give it with --data FOLDER"
    assert command in second and "--dry-run says what training takes" in second
    from hastezoo.cli.main import main as hastezoo

    typed = command.removesuffix(" (SOURCE").split()[1:]
    prepared = CliRunner().invoke(hastezoo, typed)
    assert prepared.exit_code == 2 and prepared.stderr.count("\n") == 1 and "/path/to/ILSVRC/train" in prepared.stderr


def test_another_batch_is_refused_with_the_arithmetic(begun: Begun, data: str) -> None:
    """Of the processes that torchrun started; accumulation is no other batch."""
    words = ["--checkpoint", "sit-b-haste", "--data", data, "--set", "batch_size=128"]
    said = refused(*words, processes=4)
    assert "would be 4 processes x accumulation 1 x 32 samples = 128, and sit-b-haste is trained with 256" in said
    assert "keep train.batch_size=256 and raise train.accumulation; --allow-batch-mismatch" in said
    assert "1 process x accumulation 2 x 64 samples = 128" in refused(*words, "--set", "accumulation=2")
    assert not begun.calls
    assert invoke(*words, "--allow-batch-mismatch").exit_code == 0 and begun.config.train.batch_size == 128
    assert invoke(*words[:4], "--set", "accumulation=8").exit_code == 0 and begun.config.train.accumulation == 8


def test_another_batch_in_the_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = estimate.Cost(16, 1000, 0, 0, 30, 30, 0, 0, 0, 0)
    monkeypatch.setattr(estimate, "step_cost", lambda *_, **__: cost)
    words = ["--checkpoint", "sit-b", "--dry-run", "--set", "batch_size=128"]
    assert "2 processes x accumulation 1 x 64 samples = 128, and sit-b" in refused(*words, "--gpus", "2")
    assert "would be 8 processes x accumulation 1 x 16 samples" in refused(*words)
    found = json.loads(invoke(*words, "--json", "--allow-batch-mismatch").stdout)
    assert (found["batch_size"], found["portion"], found["flops"]) == (128, 16, 800_000 * 128 * 30)
    assert found["changes"] == {"train.batch_size": [256, 128]}


def test_resume(begun: Begun, data: str, tmp_path: Path) -> None:
    """A folder holds a run when it has a config.json."""
    empty, held = tmp_path / "empty", tmp_path / "held"
    held.mkdir()
    (held / "config.json").write_text("{}")
    words = ["--data", data, "--out"]
    assert f"{held} holds a run, and --resume never" in refused(*words, str(held), "--resume", "never")
    assert f"{empty} holds no run, and --resume require" in refused(*words, str(empty), "--resume", "require")
    assert not begun.calls and not empty.exists()
    taken = [(held, "auto"), (empty, "auto"), (held, "require"), (empty, "never")]
    for out, resume in taken:
        assert invoke(*words, str(out), "--resume", resume).exit_code == 0
    assert invoke(*words, str(held), "--resume", "never", "--fresh").exit_code == 0
    assert [call[3] for call in begun.calls] == [out for out, _ in taken] + [held]


def test_a_model_that_does_not_fit_the_data_says_which_settings_do(tmp_path: Path) -> None:
    """And those are right: with them the data's next fault is met. Nothing is written."""
    data = str(write_manifest(tmp_path / "data", side=16, classes=5))
    words = ["--checkpoint", "sit-b-haste", "--data", data, "--out", str(tmp_path / "run"), "--device", "cpu"]
    said = refused(*words)
    wanted = "--set model.input_size=16 --set model.num_classes=5"
    assert (
        f"{data} has latents 4 x 16 x 16 of 5 classes; the model is for 4 x 32 x 32 of 1000 classes: {wanted}" in said
    )
    words += [*wanted.split(), "--set", "train.sample_every=0"]
    assert "0.arrow" in refused(*words)
    assert not (tmp_path / "run").exists()
    mirrored = refused("--checkpoint", "sit-s", *words[2:])
    assert "prepare it with --flip, or train without: --set data.flip=false" in mirrored


@pytest.mark.parametrize("words", [("--help",), ("--list",), ()], ids=" ".join)
def test_looking_around_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    """Neither does being told that there is no data."""
    code = (
        "import sys\nfrom hastezoo.recipes import imagenet256, imagenet512\n"
        "for recipe in (imagenet256, imagenet512):\n"
        f"    try:\n        recipe.main({list(words)!r}, prog_name='recipe')\n"
        f"    except SystemExit as stop:\n        assert (stop.code or 0) == {0 if words else 2}, stop.code\n"
        f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("LOADED", 1)[1].split() == []
