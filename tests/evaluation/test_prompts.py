"""Which prompts an evaluation of a model of text draws, and `hastezoo eval-fid` with them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import hastezoo
from hastezoo.cli.main import main
from hastezoo.conditioning.conditions import Prompts
from hastezoo.data.prepared import Prepared
from hastezoo.errors import UserError
from hastezoo.evaluation.prompts import open_prompts
from hastezoo.evaluation.results.expected import expected_for
from hastezoo.zoo.registry import find_card
from tests.evaluation.commands import eval_fid, measured
from tests.text_models import write_text_checkpoint

FAST = ("--model", "tiny-text", "--steps", "2", "--device", "cpu", "--features", "pixels", "--allow-few")


@pytest.fixture
def annotations(coco: tuple[Path, Path]) -> Path:
    """Of twelve images."""
    return coco[1]


def by_the_rule(annotations: Path) -> list[tuple[int, int, str]]:
    """(image, caption's number, caption) in the order of drawing, from the rule's words and the file alone."""
    content = json.loads(annotations.read_text())
    captions: dict[int, list[str]] = {}
    for one in sorted(content["annotations"], key=lambda one: one["id"]):
        captions.setdefault(one["image_id"], []).append(" ".join(one["caption"].split()))
    found = []
    for image in sorted(captions, key=lambda image: hashlib.sha256(f"hastezoo coco {image}".encode()).hexdigest()):
        digest = hashlib.sha256(f"hastezoo coco {image}".encode()).digest()
        which = int.from_bytes(digest[16:24], "big") % len(captions[image])
        found.append((image, which, captions[image][which]))
    return found


def test_one_caption_of_each_image_by_the_rule(annotations: Path) -> None:
    found, wanted = open_prompts(str(annotations)), by_the_rule(annotations)
    assert [(*pair, text) for pair, text in zip(found.pairs, found.texts, strict=True)] == wanted
    assert len(wanted) == 12 and found.rule == "coco-frozen" and found.encoder is None
    assert len({which for _, which, _ in wanted}) > 1


def test_a_prepared_data_set_gives_the_same_and_knows_the_states(captioned: Path, annotations: Path) -> None:
    found, listed = open_prompts(str(captioned)), open_prompts(str(annotations))
    assert (found.pairs, found.texts, found.sha256) == (listed.pairs, listed.texts, listed.sha256)
    samples = Prepared(captioned)
    assert found.encoder is not None and samples.null is not None
    states = found.encoder.states([found.texts[3], ""])
    every = [samples.caption_states(row, k) for row in range(12) for k in range(len(samples.captions(row)))]
    assert any(torch.equal(states[0], one) for one in every) and torch.equal(states[1], samples.null)


def test_only_the_prompts_drawn_and_the_empty_one_are_known(captioned: Path) -> None:
    found = open_prompts(str(captioned))
    assert found.encoder is not None
    with pytest.raises(UserError, match=r'the states of the prompt "a cat" are not among those stored'):
        found.encoder.states(["a cat"])


def test_a_file_of_prompts_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("b\na\nb\n")
    found = open_prompts(str(file))
    assert found.texts == ["b", "a", "b"] and found.rule == "as listed" and not found.pairs


@pytest.mark.parametrize("name", ["nowhere", "nowhere.json"])
def test_what_is_no_prompts(name: str, prepared: Path) -> None:
    with pytest.raises(UserError, match=name):
        open_prompts(name)
    with pytest.raises(UserError, match="it has no captions"):
        open_prompts(str(prepared))


@pytest.fixture(scope="module")
def small(coco: tuple[Path, Path], tiny_clip: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve captioned images at 16 px: a distance of their 768 raw values takes no time."""
    folder = tmp_path_factory.mktemp("small")
    options = ("--resolution", 16, "--vae", tiny_vae, "--text-encoder", tiny_clip, "--device", "cpu", "--quiet")
    words = ("prepare", "captions", *coco, folder / "data", *options)
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "data"


@pytest.fixture
def checkpoint(
    own_home: Path, tiny_clip: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 16 px; commands run in an empty folder."""
    write_text_checkpoint(own_home, tiny_clip, tiny_vae, input_size=2, patch_size=1)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.usefixtures("checkpoint")
def test_the_images_are_those_of_the_prompts(small: Path, annotations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn with CLIP, or with the states that the data set keeps and no CLIP: the same images, and the pipeline's."""
    options = (*FAST, "--reference", small, "-n", 8, "--seed", 3, "--save-samples", "npz", "--metrics", "fid")
    result = measured(*options, "--prompts", annotations)
    with monkeypatch.context() as patch:
        patch.setattr("hastezoo.loading.create_text_encoder", None)  # whoever calls it fails
        stored = measured(*options, "--prompts", small, out="y")
    wanted = [text for _, _, text in by_the_rule(annotations)][:8]
    pipe = hastezoo.Pipeline.from_pretrained("tiny-text", device="cpu")
    drawn = pipe(prompts=wanted, seeds=range(3, 11), steps=2, protocol="coco", batch_size=4).pixels
    for folder in "xy":
        pixels = np.load(f"{folder}/samples-8/samples.npz")["arr_0"]
        assert np.abs(pixels.astype(int) - drawn).max() <= 1
    settings = result["settings"]
    assert settings["labels"] is None and settings["prompts"]["rule"] == "coco-frozen"
    assert settings["prompts"]["sha256"] == stored["settings"]["prompts"]["sha256"]
    assert isinstance(pipe.conditions, Prompts)
    assert settings["text_encoder_sha256"] == pipe.conditions.encoder.sha256
    rows = list(csv.reader(io.StringIO(Path("x/prompts.csv").read_text(encoding="utf-8"))))
    assert rows[0] == ["number", "image", "caption", "prompt"]
    assert [(int(a), int(b), c) for _, a, b, c in rows[1:]] == by_the_rule(annotations)[:8]


@pytest.mark.usefixtures("checkpoint")
def test_bad_input(small: Path, annotations: Path) -> None:
    options = (*FAST, "--reference", small)
    for arguments, words in (
        ((*options, "-n", 8), "tiny-text draws from text; name its prompts with --prompts"),
        (
            (*options, "-n", 13, "--prompts", annotations),
            "has 12 prompts, fewer than the 13 images to draw; take -n 12 at most",
        ),
        ((*options, "--prompts", annotations), "fewer than the 40,192 images to draw"),
        ((*options, "-n", 8, "--prompts", "nowhere"), "there is no file or folder nowhere of prompts"),
        ((*options, "-n", 8, "--prompts", annotations, "--labels", "balanced"), "draws from text: leave out --labels"),
        (("--prompts", annotations, "--device", "cpu"), "draws classes, not text: leave out --prompts"),
        (("--samples", small, "--prompts", annotations), "leave out --prompts"),
    ):
        result = eval_fid(*arguments)
        assert result.exit_code == 2 and words in result.output.splitlines()[-1], result.output
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("checkpoint")
def test_too_few_prompts_are_said_before_anything_is_fetched(
    small: Path, annotations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hastezoo.Pipeline, "from_pretrained", None)  # whoever calls it fails
    result = eval_fid(*FAST, "--reference", small, "-n", 13, "--prompts", annotations)
    assert result.exit_code == 2 and "has 12 prompts, fewer than the 13 images" in result.output, result.output


def test_reported_figures_of_coco_are_not_held_against_ours() -> None:
    """U-ViT's script, the captions nobody published; and other prompts than COCO's are named."""
    card = find_card("mmdit-coco-haste")
    sampling = {"solver": "euler-maruyama", "steps": 250, "cfg": 3.5, "count": 40192}
    settings = {
        "model": card.name, "protocol": "coco", "sampling": sampling, "count": 40192, "features": "inception",
        "prompts": {"rule": "coco-frozen", "source": "captions_val2014.json"}, "rounding": "truncate",
    }  # fmt: skip
    (frozen,) = expected_for(settings, card)
    (listed,) = expected_for({**settings, "prompts": {"rule": "as listed", "source": "mine.txt"}}, card)
    assert frozen.reasons is not None and listed.reasons is not None
    assert "which captions the figure was taken with is not published" in frozen.reasons
    assert "prompts mine.txt instead of a caption each of COCO's validation images" in listed.reasons
    assert not any("labels" in reason for reason in frozen.reasons)
