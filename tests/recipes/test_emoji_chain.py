"""The emoji's whole chain, shrunken: from a font to a teacher, a judge, a run, a checkpoint and pictures of prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hastezoo.cli.main import main as hastezoo
from hastezoo.data.emoji import EmojiImages
from hastezoo.recipes import emoji_contrast, emoji_teacher
from hastezoo.recipes.emoji import CHECKPOINT, main
from hastezoo.recipes.emoji_contrast import Contrast
from hastezoo.zoo.registry import find_card
from tests.emoji_files import needs_emoji
from tests.recipes.test_emoji import ALIGNED, END, ENDS, SMALL, SMALL_VIT, done, given, lines, stop_at, train
from tests.training.test_resume import assert_same, final

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Path:
    """A teacher and a judge of Debian's emoji, and a run with that teacher, in the folder that commands run in."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for key, value in SMALL_VIT.items():
            patch.setitem(emoji_contrast.VISION, key, value)
        for options in ([], ["--judge"]):
            small = ["--limit", "30", "--epochs", "3", "--quiet", *options]
            done(CliRunner().invoke(emoji_teacher.main, small))
        settings = given(*SMALL, *ALIGNED, ENDS, "data.limit=30", "alignment.teacher.name=local-dir:runs/emoji-vit")
        settings += given("train.steps=8", "alignment.termination.images=16")
        whole = given("train.sample_every=8", "train.diagnose_every=4")
        result = CliRunner().invoke(main, ["--device", "cpu", *settings, *whole])
        assert f"EMA weights in runs/{CHECKPOINT}/{CHECKPOINT}.safetensors" in done(result).output

        stopped = given("train.checkpoint_every=100")
        with pytest.MonkeyPatch.context() as second:
            stop_at(second, 6)
            assert train(Path("runs/broken"), *settings, *stopped).exit_code == 130
        # After alignment has ended nobody asks for the teacher.
        shutil.move("runs/emoji-vit", "runs/gone")
        done(train(Path("runs/broken"), *settings, *stopped))
        shutil.move("runs/gone", "runs/emoji-vit")
    return folder


@needs_emoji
def test_a_run_trains_with_the_teacher_until_it_ends_and_draws_on_the_way(chain: Path) -> None:
    out = chain / "runs" / CHECKPOINT
    rows = lines(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    for row in rows:
        assert ("feature" in row) == ("attention" in row) == (row["step"] <= END), row
        assert np.isfinite(row["loss"])
        if row["step"] <= END:
            assert row["loss"] == pytest.approx(row["denoising"] + 0.5 * (row["feature"] + row["attention"]), rel=1e-5)
    assert lines(out / "alignment.jsonl") == [{"step": END, "ended": True}]
    assert [row["step"] for row in lines(out / "diagnostics.jsonl")] == [4, 8]
    state = final(out)
    assert state["alignment"]["ended_at"] == END and "projector" not in state
    assert [path.name for path in (out / "samples").iterdir()] == ["step-00000008.png"]
    with Image.open(out / "samples" / "step-00000008.png") as sheet:
        assert sheet.width >= 6 * 32 and sheet.height >= 32


@needs_emoji
def test_a_run_that_was_killed_after_the_end_goes_on_without_the_teacher(chain: Path) -> None:
    runs = [chain / "runs" / name for name in (CHECKPOINT, "broken")]
    assert_same(final(runs[1]), final(runs[0]))
    weights = [(out / f"{CHECKPOINT}.safetensors").read_bytes() for out in runs]
    assert weights[0] == weights[1]
    broken, whole = (lines(out / "metrics.jsonl") for out in runs)
    assert [(row["step"], row["loss"]) for row in broken] == [(row["step"], row["loss"]) for row in whole]
    assert lines(runs[1] / "alignment.jsonl") == lines(runs[0] / "alignment.jsonl")


@needs_emoji
def test_what_was_trained_is_recorded(chain: Path) -> None:
    samples = EmojiImages("train", limit=30)
    config = json.loads((chain / "runs" / CHECKPOINT / "config.json").read_text())
    assert tuple(config["model"]["words"]) == samples.words
    assert config["architecture"] == "word_mmdit_ti" and config["data"]["limit"] == 30
    record = json.loads((chain / "runs" / CHECKPOINT / "run.json").read_text())
    wanted = f"{len(samples.emojis)} emoji of 30 names, drawn from NotoColorEmoji.ttf"
    assert (record["recipe"], record["checkpoint"], record["data"]) == ("emoji", CHECKPOINT, wanted)
    assert (record["samples"], record["resolution"], record["processes"]) == (30, 32, 1)
    assert (record["text"]["kind"], record["text"]["length"]) == ("words", 16)


@needs_emoji
def test_a_run_becomes_a_checkpoint_that_draws_from_words(
    chain: Path, tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        return done(CliRunner().invoke(hastezoo, list(arguments))).output

    said = call("export", str(chain / "runs" / CHECKPOINT), "--as", "my-emoji", "--title", "Mine")
    assert 'hastezoo sample --model my-emoji --prompt "..."' in said
    card = find_card("my-emoji")
    assert card.text is not None and card.text.kind == "words" and card.text.length == 16 and card.classes is None
    assert (card.method, card.protocol, card.resolution, card.steps) == ("haste", "emoji", 32, 8)
    assert tuple(card.config["words"]) == EmojiImages("train", limit=30).words
    call("sample", "--model", "my-emoji", "--prompt", "smiling face with hearts", "--prompt", "Kissing CAT", "-n", "2",
         "--steps", "3", "--device", "cpu", "--out", "x")  # fmt: skip
    pictures = [np.asarray(Image.open(path)) for path in sorted(Path("x").glob("0*.png"))]
    assert [picture.shape for picture in pictures] == [(32, 32, 3)] * 4
    for one, other in (pictures[:2], pictures[2:]):
        assert not np.array_equal(one, other), "two seeds"
    assert any(line.startswith("my-emoji ") for line in call("list").splitlines())
    about = call("info", "my-emoji")
    assert (
        "my-emoji" in about and "Mine" in about and "30 names, drawn from NotoColorEmoji.ttf" in " ".join(about.split())
    )
    judge = Contrast.load(chain / "runs" / "emoji-judge")
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    assert judge.of_pictures(images).shape == judge.of_names(["smiling face"] * 4).shape == (4, 128)
