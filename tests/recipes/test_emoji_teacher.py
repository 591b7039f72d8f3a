"""The emoji's teacher and their judge: how they are trained, how often they are right, and the command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from hastezoo.conditioning.words import WordNumbers
from hastezoo.data.emoji import EmojiImages
from hastezoo.errors import UserError
from hastezoo.recipes import emoji_teacher
from hastezoo.recipes.emoji_contrast import NAME_SIDE, Contrast
from hastezoo.recipes.emoji_teacher import STATE, main, moved, ranked, retrieval, train
from tests.emoji_files import needs_fribidi, write_font, write_names
from tests.recipes.test_emoji_contrast import WORDS, contrast, some_images

pytestmark = pytest.mark.usefixtures("alone", "small_vision")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small font, and its names."""
    folder = tmp_path_factory.mktemp("emoji")
    return write_font(folder / "small.ttf"), write_names(folder / "emoji-test.txt")


@pytest.fixture(scope="module")
def samples(files: tuple[Path, Path]) -> EmojiImages:
    return EmojiImages("train", font=files[0], names=files[1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_moved_images_keep_shape_and_range_and_are_a_function_of_the_generator() -> None:
    images = some_images(40)
    before = images.clone()
    found = moved(images, generator())
    assert found.shape == images.shape and found.dtype == torch.float32 and torch.equal(images, before)
    assert found.min() == 0 and found.max() == 1
    assert torch.equal(moved(images, generator()), found) and not torch.equal(moved(images, generator(1)), found)
    alike = moved(images[:1].repeat(3, 1, 1, 1), generator())
    assert not torch.equal(alike[0], alike[1]), "each in its own way"


def test_what_comes_in_from_outside_is_white_and_light_falls_by_at_most_a_seventh() -> None:
    black = moved(torch.zeros(200, 3, 32, 32), generator())
    assert ((black > 0.75).any(dim=1).flatten(1).any(1)).float().mean() > 0.9
    assert not (black[:, :, 12:20, 12:20] > 0.5).any(), "inside it stays black"
    light = moved(torch.ones(200, 3, 32, 32), generator()).flatten(1).median(1).values
    assert light.min() > 0.84 and light.max() <= 1 and light.min() < 0.87 and light.max() > 0.98


def test_a_part_is_covered_in_grey_and_the_rest_is_noisy() -> None:
    """Squares of eight pixels, at places that may lie beyond the edges; noise of 0.03 in every channel."""
    grey = moved(torch.full((300, 3, 32, 32), 0.8), generator())
    covered = (grey == 0.5).all(1)
    counts = covered.flatten(1).sum(1)
    assert counts.max() == 64 and 0.4 < (counts == 64).float().mean() < 0.62 and (counts > 0).float().mean() > 0.9
    for one in covered[counts == 64][:20]:
        places = one.nonzero()
        assert (places.amax(0) - places.amin(0)).tolist() == [7, 7]
    rows, columns = covered[counts > 0].float().mean(0).sum(1), covered[counts > 0].float().mean(0).sum(0)
    assert min(rows.min(), columns.min()) > 0.4 * max(rows.max(), columns.max()) > 0, "anywhere"
    patches = grey[~covered[:, 12:20, 12:20].flatten(1).any(1)][:, :, 12:20, 12:20]
    assert len(patches) > 50
    assert float(patches.std(dim=(2, 3)).mean()) == pytest.approx(0.03, abs=0.005)


def test_images_are_turned_scaled_and_shifted_a_little() -> None:
    """Two black squares, one above the other and sixteen pixels apart."""
    images = torch.ones(400, 3, 32, 32)
    for row in (6, 22):
        images[:, :, row : row + 4, 14:18] = 0
    seen = moved(images, generator())
    dark = (0.5 - seen.mean(1)).clamp(min=0).double()
    whole = ~(seen == 0.5).all(1)[:, :, 8:24].flatten(1).any(1)  # neither is covered
    axis = torch.arange(32).double() + 0.5
    centres = []
    for part, rows in ((dark[:, :16], axis[:16]), (dark[:, 16:], axis[16:])):
        weight = part[whole] / part[whole].sum((1, 2), keepdim=True)
        centres.append(torch.stack([(weight.sum(2) * rows).sum(1), (weight.sum(1) * axis).sum(1)], 1))
    between = centres[1] - centres[0]
    distance, turn = torch.linalg.vector_norm(between, dim=1), torch.atan2(between[:, 1], between[:, 0])
    shift = (centres[0] + centres[1]) / 2 - 16
    assert whole.sum() > 150
    assert distance.min() > 16 / 1.15 - 0.7 and distance.min() < 14.6
    assert distance.max() < 16 / 0.85 + 0.7 and distance.max() > 17.8
    assert turn.abs().max() < 0.24 and turn.min() < -0.14 and turn.max() > 0.14
    assert shift.abs().max() < 0.15 * 16 / 0.85 + 0.6
    assert (shift.amin(0) < -1.5).all() and (shift.amax(0) > 1.5).all()


@pytest.fixture(scope="module")
def trained(samples: EmojiImages, tmp_path_factory: pytest.TempPathFactory) -> Contrast:
    """Sixty epochs of nineteen names: what is left of the picture, the name and the network learns them."""
    return train(samples, tmp_path_factory.mktemp("trained"), epochs=60, quiet=True)


def loss_of(model: Contrast, samples: EmojiImages) -> float:
    names = [samples.emojis[family[0]].name for family in samples.families]
    pictures = samples.pixels[[family[0] for family in samples.families]]
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return float(model.loss(images, model.reader.states(names)))


@needs_fribidi
def test_training_learns_which_name_belongs_to_which_picture(samples: EmojiImages, trained: Contrast) -> None:
    torch.manual_seed(0)
    fresh = Contrast(samples.words).eval()
    assert not trained.training
    assert loss_of(trained, samples) < 0.6 * loss_of(fresh, samples)
    found, before = retrieval(trained, samples), retrieval(fresh, samples)
    assert found["count"] == len(samples) == 19
    assert found["top1"] > 6 / 19 > before["top1"] and found["top5"] > 15 / 19, (found, before)


def assert_equal(found: Contrast, wanted: Contrast) -> None:
    states = found.state_dict(), wanted.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.fixture
def batches_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps an epoch."""
    monkeypatch.setattr(emoji_teacher, "BATCH", 8)


@needs_fribidi
@pytest.mark.usefixtures("batches_of_eight")
def test_training_is_a_function_of_the_seed(samples: EmojiImages, tmp_path: Path) -> None:
    torch.manual_seed(77)
    first = train(samples, tmp_path / "first", epochs=2, quiet=True)
    torch.rand(5)
    assert_equal(train(samples, tmp_path / "again", epochs=2, quiet=True), first)
    other = train(samples, tmp_path / "other", 1, epochs=2, quiet=True)
    apart = other.get_parameter("names.shared.weight") - first.get_parameter("names.shared.weight")
    assert apart.abs().max() > 0.05, "other weights to begin with, of which four steps change far less"
    finished = train(samples, tmp_path / "first", epochs=2, quiet=True)
    assert_equal(finished, first)


@needs_fribidi
@pytest.mark.usefixtures("batches_of_eight")
def test_an_epoch_sees_other_names_in_another_order_and_other_captions(
    samples: EmojiImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    read = EmojiImages.__getitems__
    monkeypatch.setattr(EmojiImages, "__getitems__", lambda self, rows: seen.append(list(rows)) or read(self, rows))
    train(samples, tmp_path, epochs=3, quiet=True)
    assert [len(rows) for rows in seen] == [8] * 6
    epochs = [seen[place] + seen[place + 1] for place in (0, 2, 4)]
    for rows in epochs:
        assert len({row % 19 for row in rows}) == 16, "every name at most once"
    assert len({tuple(row % 19 for row in rows) for rows in epochs}) == 3
    assert len({row // 19 for rows in epochs for row in rows}) > 40


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C; these tests hear it even so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """A real signal arrives while that batch is being moved, as Ctrl-C sends it."""
    calls = [0]

    def interrupted(images: Tensor, source: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGINT)
        return moved(images, source)

    monkeypatch.setattr(emoji_teacher, "moved", interrupted)


@needs_fribidi
@pytest.mark.usefixtures("batches_of_eight")
@pytest.mark.parametrize("call", [1, 5, 6])
def test_an_interrupted_training_goes_on_bit_for_bit(
    call: int, samples: EmojiImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epoch, in the middle of the third, and at its end."""
    whole = train(samples, tmp_path / "whole", epochs=4, quiet=True)
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        with pytest.raises(KeyboardInterrupt):
            train(samples, tmp_path / "broken", epochs=4, quiet=True)
    assert (tmp_path / "broken" / STATE).exists() == (call > 1)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(emoji_teacher, "moved", lambda images, source: calls.append(1) or moved(images, source))
        torch.manual_seed(5)
        resumed = train(samples, tmp_path / "broken", epochs=4, quiet=True)
    assert len(calls) == (8 if call == 1 else 4), "what was done is not done again"
    assert_equal(resumed, whole)


@needs_fribidi
def test_a_folder_of_another_training_is_refused(samples: EmojiImages, tmp_path: Path) -> None:
    train(samples, tmp_path, epochs=1, quiet=True)
    before = (tmp_path / STATE).read_bytes()
    few = EmojiImages("train", font=samples.font, names=samples.font.with_name("emoji-test.txt"), limit=5)
    for other, seed, epochs in ((samples, 1, 1), (samples, 0, 2), (few, 0, 1)):
        with pytest.raises(UserError, match="holds a training with other settings; give another --out, or remove it"):
            train(other, tmp_path, seed, epochs, quiet=True)
    assert (tmp_path / STATE).read_bytes() == before


@needs_fribidi
@pytest.mark.parametrize("content", [b"", b"not a training", b"\x80\x02N.", "cut"])
def test_a_damaged_state_is_one_line(content: bytes | str, samples: EmojiImages, tmp_path: Path) -> None:
    train(samples, tmp_path, epochs=1, quiet=True)
    state = tmp_path / STATE
    state.write_bytes(content if isinstance(content, bytes) else state.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"training\.pt cannot be read .*; remove it to begin anew") as caught:
        train(samples, tmp_path, epochs=1, quiet=True)
    assert "\n" not in str(caught.value)


class Known:
    """A judge whose embeddings of pictures are a table, by the picture's first value, and those of names as well."""

    def __init__(self, pictures: Sequence[Sequence[float]], names: dict[str, Sequence[float]]) -> None:
        self.pictures, self.names = torch.tensor(pictures), names
        words = dict.fromkeys(word for name in names for word in name.split())
        self.reader = WordNumbers(list(words), 16)

    def of_pictures(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 32, 32) and images.dtype == torch.float32 and images.max() <= 1
        return self.pictures[(images[:, 0, 0, 0] * 255).round().long()]

    def of_names(self, names: Sequence[str]) -> Tensor:
        return torch.tensor([self.names[name] for name in names])


def test_ranks_by_hand() -> None:
    """Seven candidates on a line, so that the rank of each is known; and two that are the same."""
    names = {"one": [1.0], "two": [0.9], "three": [0.8], "same": [0.8], "four": [0.7], "five": [0.6], "six": [0.5]}
    model: Any = Known([[1.0], [2.0], [-1.0]], names)
    pixels = np.zeros((6, 32, 32, 3), np.uint8)
    pixels[:, 0, 0, 0] = [0, 1, 0, 1, 0, 2]
    # Ranks 0, 1, 2 (of a tie: what is as near does not count against it), 4, 5 and 0 (the last picture turns all).
    wanted = ["one", "two", "same", "four", "five", "six"]
    found = ranked(model, pixels, wanted, list(names))
    assert found == {"top1": pytest.approx(2 / 6), "top5": pytest.approx(5 / 6), "count": 6}
    alone = ranked(model, pixels[:1], ["six"], ["six", "three", "same"])
    assert (alone["top1"], alone["top5"]) == (0, 1)
    tied = ranked(model, pixels[:1], ["same"], ["six", "three", "same"])
    assert tied["top1"] == 1


@needs_fribidi
def test_retrieval_is_over_the_names_that_the_judge_can_read(samples: EmojiImages, trained: Contrast) -> None:
    """One picture a name, without skin tone, among all names or those that are given."""
    rows = [family[0] for family in samples.families]
    asked: list[tuple[int, list[str], list[str]]] = []

    def remember(model: Contrast, pixels: np.ndarray, names: list[str], candidates: list[str]) -> dict[str, float]:
        assert all(np.array_equal(*pair) for pair in zip(pixels, [by_name[name] for name in names], strict=True))
        asked.append((len(pixels), names, candidates))
        return {}

    by_name = {samples.emojis[row].name: samples.pixels[row] for row in rows}
    every = list(by_name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji_teacher, "ranked", remember)
        retrieval(trained, samples)
        retrieval(trained, samples, ["rocket", "flag: Japan", "waving hand", "pizza"])
        blind = contrast()  # of six words: of these names it can read four
        retrieval(blind, samples)
    assert asked[0] == (19, every, every)
    assert asked[1] == (3, ["waving hand", "pizza", "rocket"], ["rocket", "flag: Japan", "waving hand", "pizza"])
    assert asked[2] == (3, ["red heart", "red apple", "green apple"], ["red heart", "red apple", "green apple"])


def call(files: tuple[Path, Path], *options: str) -> Result:
    given = ["--font", str(files[0]), "--names", str(files[1]), *options]
    return CliRunner().invoke(main, given)


@needs_fribidi
@pytest.mark.parametrize("judge", [False, True])
def test_the_command_makes_a_teacher_or_a_judge(
    judge: bool, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each from its own names and its own first weights, into its own folder."""
    monkeypatch.chdir(tmp_path)
    result = call(files, "--epochs", "2", *(["--judge"] if judge else []))
    assert result.exit_code == 0, result.output
    out, split = (Path("runs/emoji-judge"), "judge") if judge else (Path("runs/emoji-vit"), "train")
    samples = EmojiImages(split, font=files[0], names=files[1])  # type: ignore[arg-type]
    config = json.loads((out / "config.json").read_text())
    facts = {"split": split, "names": len(samples), "epochs": 2, "own_names": config["own_names"]}
    assert config["own_names"]["count"] == len(samples) and {key: config[key] for key in facts} == facts
    assert json.loads(next(line for line in result.output.splitlines() if line.startswith("{"))) == facts
    assert f"--set alignment.teacher.name=local-dir:{out}" in result.output
    assert not (out / STATE).exists() and not list(out.glob(".*partial"))
    made = Contrast.load(out)
    assert tuple(made.reader.numbers) == samples.words
    wanted = train(samples, tmp_path / "by hand", int(judge), 2, quiet=True)
    assert_equal(made.cpu(), _half(wanted))


def _half(model: Contrast) -> Contrast:
    """What is left of a model that is saved in float16; its sharpness is not saved."""
    for part in (model.vision, model.names):
        for parameter in part.parameters():
            parameter.data = parameter.data.half().float()
    model.sharpness.data = Contrast(WORDS).sharpness.data
    return model


@needs_fribidi
def test_the_command_goes_on_after_ctrl_c(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("--epochs", "3", "--limit", "9", "--quiet")
    assert call(files, *small, "--out", str(tmp_path / "whole")).exit_code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        result = call(files, *small, "--out", str(tmp_path / "broken"))
    assert result.exit_code == 130 and result.output.count("\n") == 1, result.output
    assert "keeps the last epoch, the same command goes on" in result.output
    assert not (tmp_path / "broken" / "config.json").exists()
    refused = call(files, "--epochs", "4", "--limit", "9", "--quiet", "--out", str(tmp_path / "broken"))
    assert refused.exit_code == 2 and refused.output.count("\n") == 1 and "other settings" in refused.output
    result = call(files, *small, "--out", str(tmp_path / "broken"))
    assert result.exit_code == 0 and result.output == ""
    for name in ("config.json", "model.safetensors", NAME_SIDE):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@needs_fribidi
def test_what_is_wrong_is_one_line_and_nothing_is_left_behind(files: tuple[Path, Path], tmp_path: Path) -> None:
    empty, file = tmp_path / "empty.txt", tmp_path / "file"
    empty.write_text("")
    file.write_text("")
    out = str(tmp_path / "run")
    for options, words in (
        (("--font", str(tmp_path / "no.ttf"), "--out", out), "fonts-noto-color-emoji"),
        (("--names", str(tmp_path / "no.txt"), "--out", out), "unicode-data"),
        (("--names", str(empty), "--out", out), "names no emoji"),
        (("--out", str(file / "run")), "give another --out"),
    ):
        result = call(files, *options)
        assert result.exit_code == 2, result.output
        assert result.output.count("\n") == 1 and result.output.startswith("error: ") and words in result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "file"]
    for options in (("--limit", "1"), ("--epochs", "0"), ("--out", str(file)), ("--jugde",)):
        result = call(files, *options)
        assert result.exit_code == 2 and options[0] in result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "file"]
