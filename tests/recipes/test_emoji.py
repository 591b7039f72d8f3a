"""The emoji's recipe: every arm, what it refuses, how it goes on; the whole chain is in test_emoji_chain.py."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from hastezoo.conditioning.words import WordNumbers
from hastezoo.data.emoji import EmojiImages, is_in, read_names, vocabulary
from hastezoo.errors import UserError
from hastezoo.models.words import WordMMDiT
from hastezoo.processes import Processes
from hastezoo.recipes import emoji
from hastezoo.recipes.emoji import ARMS, CHECKPOINT, SHOWN, TAU, EmojiConfig, EmojiData, assemble, main, open_data, run
from hastezoo.recipes.emoji_contrast import VISION, Contrast
from hastezoo.training.config import configure
from tests.emoji_files import EMOJIS, HELD_OUT, needs_emoji, needs_fribidi, write_font, write_names
from tests.training.test_resume import assert_same, final

pytestmark = pytest.mark.usefixtures("alone")
END = 4
SMALL = [
    "model.width=32", "model.depth=3", "model.heads=2", "train.batch_size=8", "train.ema_decay=0.9",
    "train.optimizer.warmup_steps=2", "train.log_every=1", "train.checkpoint_every=3", "train.sample_every=0",
]  # fmt: skip
ALIGNED = [
    "alignment.feature_layer=2", "alignment.attention_pairs=[[1, 0], [2, 1]]", "alignment.projector_width=16",
]  # fmt: skip
ENDS = f"alignment.termination.step={END}"
SMALL_VIT = {"depth": 2, "embed_dim": 32, "num_heads": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small font, and its names."""
    folder = tmp_path_factory.mktemp("emoji")
    return write_font(folder / "small.ttf"), write_names(folder / "emoji-test.txt")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small teacher with random weights."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("teacher") / "vit"
    Contrast(["apple"], **SMALL_VIT).save(out, {})
    return out


@pytest.fixture
def own_files(files: tuple[Path, Path]) -> list[str]:
    return ["--font", str(files[0]), "--names", str(files[1])]


def given(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def train(out: Path, *arguments: str, arm: str = "haste") -> Result:
    """The command, in this process."""
    return CliRunner().invoke(main, ["--arm", arm, "--out", str(out), "--device", "cpu", "--quiet", *arguments])


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stop_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """A real signal arrives while that batch is being read, as Ctrl-C sends it."""
    read, calls = EmojiImages.__getitems__, [0]

    def interrupted(self: EmojiImages, rows: Any) -> Any:
        calls[0] += 1
        if calls[0] == batch:
            os.kill(os.getpid(), signal.SIGINT)
        return read(self, rows)

    monkeypatch.setattr(EmojiImages, "__getitems__", interrupted)


@needs_emoji
def test_shown_are_names_that_are_trained_on_and_then_prompts_that_are_not() -> None:
    every = {one.name: one for one in read_names()}
    trained = {name for name, one in every.items() if is_in("train", one.plain)}
    reader = WordNumbers(vocabulary([every[name] for name in trained]), 16)
    assert set(SHOWN[:12]) <= trained and not set(SHOWN[12:]) & trained and len(set(SHOWN)) == len(SHOWN) == 18
    for prompt in SHOWN:
        assert not reader.notes(prompt), f"{prompt}: all of its words are read"


@needs_fribidi
@pytest.mark.parametrize(
    ("arm", "terms", "projector"),
    [
        ("none", set(), False),
        ("repa", {"feature"}, True),
        ("attention", {"attention"}, False),
        ("haste", {"feature", "attention"}, True),
        ("haste-never", {"feature", "attention"}, True),
    ],
)
def test_every_arm_trains(
    arm: str, terms: set[str], projector: bool, own_files: list[str], untrained: Path, tmp_path: Path
) -> None:
    settings = [*SMALL, "train.steps=2"]
    if arm != "none":
        settings += [*ALIGNED, f"alignment.teacher.name=local-dir:{untrained}"]
    done(train(tmp_path / "run", *own_files, *given(*settings), arm=arm))
    row = lines(tmp_path / "run" / "metrics.jsonl")[-1]
    assert set(row) - {"step", "loss", "denoising", "grad_norm", "lr", "seconds"} == terms
    assert row["loss"] == pytest.approx(row["denoising"] + 0.5 * sum(row[term] for term in terms), rel=1e-5)
    assert ("projector" in final(tmp_path / "run")) == projector
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["samples"], record["data"]) == (19, "34 emoji of 19 names, drawn from small.ttf")
    name = CHECKPOINT if arm == "haste" else f"mmdit-ti-emoji-{arm}"
    assert [path.name for path in (tmp_path / "run").glob("*.safetensors")] == [f"{name}.safetensors"]


def test_arms_end_as_they_say() -> None:
    ends = {arm: config and (config.termination.kind, config.termination.step) for arm, config in ARMS.items()}
    assert ends == {
        "none": None, "repa": ("never", None), "attention": ("step", TAU), "haste": ("step", TAU),
        "haste-never": ("never", None),
    }  # fmt: skip


@needs_fribidi
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_assembles_as_it_is(arm: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    """At the recipe's own size; nothing is written by it."""
    data = EmojiData(font=files[0], names=files[1])
    config = EmojiConfig(alignment=ARMS[arm], data=data)
    samples = open_data(config)
    config = config.model_copy(update={"model": {**config.model, "words": samples.words}})
    parts = assemble(config, samples, tmp_path / "run", Processes(0, 1, torch.device("cpu")))
    assert isinstance(parts.model, WordMMDiT) and parts.samples is samples
    assert parts.model.config.words == samples.words and parts.model.config.depth == 6
    assert isinstance(parts.null, torch.Tensor) and parts.null.dtype == torch.int64 and not parts.null.any()
    assert parts.null.shape == samples.__getitems__([0]).condition[0].shape == (16,)
    assert (parts.alignment is None) == (arm == "none")
    assert not (tmp_path / "run").exists()


@needs_fribidi
def test_the_teacher_that_ships_is_found_beside_the_recipes(
    own_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of the recipe at its own size, with a teacher of the size that is trained for it."""
    monkeypatch.setattr(emoji, "TEACHERS", tmp_path / "teachers")
    Contrast(["apple"], **VISION).save(tmp_path / "teachers" / "emoji-vit", {})
    short = given("train.steps=1", "train.batch_size=2", "train.log_every=1", "train.sample_every=0")
    done(train(tmp_path / "run", *own_files, *short))
    assert {"feature", "attention"} < set(lines(tmp_path / "run" / "metrics.jsonl")[0])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["alignment"]["teacher"]["name"] == "emoji-vit", "wherever the recipes are installed"


@needs_fribidi
def test_only_names_that_are_not_held_out_are_trained_on(files: tuple[Path, Path]) -> None:
    config = EmojiConfig(data=EmojiData(font=files[0], names=files[1]))
    samples = open_data(config)
    wanted = [name for _, name, _ in EMOJIS if name not in HELD_OUT]
    assert [one.name for one in samples.emojis] == wanted and len(samples) == 19
    limited = open_data(config.model_copy(update={"data": EmojiData(font=files[0], names=files[1], limit=3)}))
    assert len(limited) == 3
    model = {**config.model, "words": ("red", "heart"), "context_length": 5}
    said = open_data(config.model_copy(update={"model": model}))
    assert said.words == ("red", "heart") and said.reader.length == 5


@needs_fribidi
@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (1, ["grinning face"]),
        (2, ["cat face", "smiling sun", "crying dog face"]),
        (4, ["red apple", "cat face", "red heart", "smiling sun", "red book", "crying dog face"]),
    ],
)
def test_grids_show_the_prompts_of_which_a_word_is_known(
    limit: int, shown: list[str], files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one seed each; or the first name, where no word of any is known."""
    seen: list[Any] = []
    monkeypatch.setattr(emoji, "sample_grids", lambda *arguments, **named: seen.append((*arguments, named)))
    monkeypatch.setattr(emoji, "SHOWN", SHOWN if limit > 1 else ("rocket", "pizza"))
    config = EmojiConfig(data=EmojiData(font=files[0], names=files[1], limit=limit))
    samples = open_data(config)
    config = config.model_copy(update={"model": {**config.model, "words": samples.words}})
    assemble(config, samples, tmp_path, Processes(0, 1, torch.device("cpu"))).hooks()
    out, every, _, prompts, seeds, named = seen[0]
    assert (out, every, prompts, seeds) == (tmp_path, config.train.sample_every, shown, [0] * len(shown))
    assert named == {"columns": 6}


def refused(result: Result, out: Path) -> str:
    """The one line that the command ends in; nothing is left behind."""
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1 and result.output.startswith("error: "), result.output
    assert not out.exists()
    return result.output


@needs_fribidi
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.in_channels=4", "the emoji are 3 x 32 x 32; set in_channels and input_size so"),
        ("model.input_size=16", "the emoji are 3 x 32 x 32"),
        ("model.widht=32", "nearest: width"),
        ("model.width=33", "not a multiple of heads"),
        ("model.context_width=65", "context_width 65 is not a multiple of word_heads 2"),
        ("architecture=word_mmdit_xl", "unknown architecture 'word_mmdit_xl'"),
        ("architecture=mmdit", "words"),
        ("data.lmit=3", "unknown key 'data.lmit'; nearest: limit"),
        ("data.limit=0", "data.limit"),
        ("trian.steps=3", "unknown key 'trian'; nearest: train"),
        ("alignment.feature_layer=9", "feature_layer 9 is not in 1..3"),
        ("alignment.teacher.name=local-dir:nowhere", "nowhere"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(
    setting: str, message: str, own_files: list[str], untrained: Path, tmp_path: Path
) -> None:
    settings = [*SMALL, *ALIGNED, f"alignment.teacher.name=local-dir:{untrained}", "train.steps=1", setting]
    assert message in refused(train(tmp_path / "run", *own_files, *given(*settings)), tmp_path / "run")


def test_fonts_and_names_that_are_not_there_are_one_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    font, names = files
    out, none = tmp_path / "run", str(tmp_path / "none")
    assert "unicode-data" in refused(train(out, "--font", str(font), "--names", none), out)
    message = refused(train(out, "--font", none, "--names", str(names)), out)
    assert "fonts-noto-color-emoji" in message or "libfribidi0" in message


def test_an_unknown_arm_is_refused_with_those_there_are(tmp_path: Path) -> None:
    result = train(tmp_path / "run", arm="hasty")
    assert result.exit_code == 2 and "'hasty' is not one of" in result.output
    assert all(arm in result.output for arm in ARMS) and not (tmp_path / "run").exists()


@needs_fribidi
def test_a_run_does_not_go_on_with_other_names(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Also under the same path; the same names may lie elsewhere."""
    names, out = tmp_path / "names.txt", tmp_path / "run"
    write_names(names, EMOJIS)

    def again(*options: str) -> Result:
        return train(out, "--font", str(files[0]), *given(*SMALL, "train.steps=1"), *options, arm="none")

    done(again("--names", str(names)))
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    # What the font does not have is no difference.
    write_names(names, [*EMOJIS, ("1F6F8", "flying saucer", "Travel & Places/sky & weather")])
    done(again("--names", str(names)))
    write_names(names, EMOJIS[:-5])
    result = again("--names", str(names))
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert "holds a run with data.fingerprint = " in result.output and "--fresh" in result.output
    assert before.keys() and {path: path.read_bytes() for path in before} == before
    done(again("--names", str(files[1])))


@needs_fribidi
def test_the_same_command_goes_on_and_a_fresh_one_begins_anew(own_files: list[str], tmp_path: Path) -> None:
    arguments = [*own_files, *given(*SMALL)]
    done(train(tmp_path / "run", *arguments, *given("train.steps=2"), arm="none"))
    done(train(tmp_path / "run", *arguments, *given("train.steps=5"), arm="none"))
    done(train(tmp_path / "whole", *arguments, *given("train.steps=5"), arm="none"))
    assert_same(final(tmp_path / "run"), final(tmp_path / "whole"))
    done(train(tmp_path / "run", *arguments, *given("train.steps=1", "train.seed=3"), "--fresh", arm="none"))
    assert final(tmp_path / "run")["step"] == 1


@needs_fribidi
def test_the_folder_is_named_after_the_arm(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    def remember(checkpoint: str, config: EmojiConfig, out: Path, **options: Any) -> None:
        seen.append((checkpoint, config, out, options))
        if len(seen) > 1:
            raise SystemExit(130)

    monkeypatch.setattr(emoji, "run", remember)
    for arm, code in (("haste", 0), ("repa", 130)):
        result = CliRunner().invoke(main, ["--arm", arm, "--font", "f.ttf", "--names", "n.txt", "--quiet"])
        assert result.exit_code == code
    assert [(checkpoint, str(out)) for checkpoint, _, out, _ in seen] == [
        (CHECKPOINT, f"runs/{CHECKPOINT}"), ("mmdit-ti-emoji-repa", "runs/mmdit-ti-emoji-repa")
    ]  # fmt: skip
    for arm, (_, config, _, options) in zip(("haste", "repa"), seen, strict=True):
        assert config.alignment == ARMS[arm] and config.data == EmojiData(font=Path("f.ttf"), names=Path("n.txt"))
        assert options == {"device": "auto", "fresh": False, "quiet": True, "origin": None}


@needs_fribidi
def test_a_fork_begins_from_another_runs_checkpoint(own_files: list[str], untrained: Path, tmp_path: Path) -> None:
    """Of the run that never ends, at tau, comes the run that ends there."""
    settings = [*SMALL, *ALIGNED, f"alignment.teacher.name=local-dir:{untrained}", f"train.keep_at=[{END}]"]
    never = given("alignment.termination.kind=never", "alignment.termination.step=none", "train.steps=4")
    done(train(tmp_path / "never", *own_files, *given(*settings), *never))
    ends = given(*settings, ENDS, "train.steps=6")
    origin = tmp_path / "never" / "checkpoints" / f"step-{END:08d}.pt"
    done(train(tmp_path / "fork", *own_files, *ends, "--fork", str(origin)))
    assert [row["step"] for row in lines(tmp_path / "fork" / "metrics.jsonl")] == [5, 6]
    done(train(tmp_path / "whole", *own_files, *ends))
    assert_same(final(tmp_path / "fork"), final(tmp_path / "whole"))


@needs_fribidi
def test_run_is_the_same_from_python(files: tuple[Path, Path], tmp_path: Path) -> None:
    config = configure(
        EmojiConfig(data=EmojiData(font=files[0], names=files[1])), None, [*SMALL, "train.steps=2"]
    )  # fmt: skip
    run("mine", config, tmp_path / "run", device="cpu", quiet=True)
    assert (tmp_path / "run" / "mine.safetensors").exists()
    with pytest.raises(UserError, match="model"):
        run("mine", configure(config, None, ["model.heads=5"]), tmp_path / "other", device="cpu", quiet=True)
