"""From captioned images to a measured model of text, with the real commands: prepare, inspect, train with HASTE,
export, sample, measure raw pixels; and, where there is time, two processes over gloo that are killed and go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from hastezoo.cli.main import main as hastezoo
from hastezoo.files import alone_in
from hastezoo.pipeline import Pipeline
from hastezoo.recipes.coco256 import main as recipe
from hastezoo.zoo.registry import find_card
from tests.recipes.small import losses
from tests.stored import newest as newest_state

BATCH, END = 6, 6
SETTINGS = [
    "architecture=mmdit", "model.depth=3", "model.width=32", "model.heads=2", "model.patch_size=1",
    "model.input_size=2", "model.context_width=32", "alignment.teacher.dtype=float32", "alignment.feature_layer=2",
    "alignment.attention_pairs=[[0,1],[1,2]]", "alignment.projector_width=16", f"alignment.termination.step={END}",
    f"train.batch_size={BATCH}", "train.ema_decay=0.9", "optimizer.lr=1e-3", "train.precision=fp32",
    "train.log_every=1", "train.checkpoint_every=4", "train.sample_every=0", "train.workers=0",
]  # fmt: skip
# The order of a sum of gradients over two processes, through 20 or so steps of AdamW.
TOLERANCE = 2e-4


def call(*words: Any) -> str:
    result = CliRunner().invoke(hastezoo, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def arguments(data: Path, teacher: Path, out: Path, *settings: str) -> list[str]:
    every = [*SETTINGS, f"alignment.teacher.name=local-dir:{teacher}", *settings]
    given = [part for setting in every for part in ("--set", setting)]
    options = ["--data", str(data), "--out", str(out), "--device", "cpu", "--allow-batch-mismatch", "--quiet"]
    return [*options, *given]


def train(data: Path, teacher: Path, out: Path, *settings: str, options: tuple[str, ...] = ()) -> Result:
    return CliRunner().invoke(recipe, [*arguments(data, teacher, out, *settings), *options])


def two_processes(*words: str) -> subprocess.Popen[bytes]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*launch, "-m", "hastezoo.recipes.coco256", *words]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def newest(out: Path) -> int:
    state = newest_state(out)
    assert state is not None
    return int(state["step"])


@pytest.fixture(scope="module")
def data(coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared at 16 px and inspected by the commands."""
    dest = tmp_path_factory.mktemp("prepared") / "data"
    options = ("--resolution", 16, "--vae", tiny_vae, "--text-encoder", tiny_clip, "--shard-size", 5, "--quiet")
    assert "12 images with" in call("prepare", "captions", *coco, dest, *options)
    assert "captions" in call("inspect", dest, "--images", 4)
    return dest


@pytest.fixture(scope="module")
def trained(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beyond the end of alignment, with a grid."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    pictures = ("train.sample_every=8", "grid.steps=2", "grid.images=6")
    result = train(data, teacher, out, f"train.steps={END + 2}", *pictures)
    assert result.exit_code == 0, result.output
    return out


def trained_by_several(data: Path, teacher: Path, out: Path) -> None:
    """By two processes that were killed, by two that went on, and at last by one."""
    process = two_processes(*arguments(data, teacher, out, "train.steps=100000"))
    checkpoint, deadline = out / "checkpoints" / "step-00000004.pt", time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None and checkpoint.exists()
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    with alone_in(out, "training in"):
        killed = newest(out)
    process = two_processes(*arguments(data, teacher, out, f"train.steps={killed + 3}", "train.workers=1"))
    assert process.wait(120) == 0 and newest(out) == killed + 3
    quick = ("evaluation.every=100", "evaluation.images=12", "evaluation.features=pixels", "evaluation.steps=2")
    result = train(data, teacher, out, f"train.steps={killed + 6}")
    assert result.exit_code == 0, result.output
    refused = train(data, teacher, out, f"train.steps={killed + 7}", *quick)
    assert refused.exit_code == 2 and "768" in refused.output, "12 images are too few for 768 values a pixel image"


@pytest.mark.slow
def test_the_loss_curve_does_not_depend_on_processes_or_stops(data: Path, teacher: Path, tmp_path: Path) -> None:
    """Captions, latents, noise and dropped captions of a sample are the same whoever draws it, and whenever; and the
    attention loss is on until alignment ends."""
    out = tmp_path / "killed"
    trained_by_several(data, teacher, out)
    steps = newest(out)
    result = train(data, teacher, tmp_path / "whole", f"train.steps={steps}")
    assert result.exit_code == 0, result.output
    broken, whole = losses(out), losses(tmp_path / "whole")
    assert list(broken) == list(whole) == list(range(1, steps + 1))
    for step in whole:
        assert len(whole[step]) == (5 if step <= END else 3)
        np.testing.assert_allclose(broken[step], whole[step], rtol=TOLERANCE, err_msg=f"step {step}")
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    for row in rows[:END]:
        assert row["attention"] > 0.1, "a cross-entropy of attention over 4 tokens, not switched off"
        total = row["denoising"] + 0.5 * row["feature"] + 0.5 * row["attention"]
        assert row["loss"] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(
    ("checkpoint", "variants", "terms"),
    [
        ("mmdit-coco", (), {"denoising"}),
        ("mmdit-coco-repa", ("150k",), {"denoising", "feature"}),
        ("mmdit-coco-haste", ("20k-images", "attention-only"), {"denoising", "attention"}),
    ],
)
def test_every_arm_trains(
    checkpoint: str, variants: tuple[str, ...], terms: set[str], data: Path, teacher: Path, tmp_path: Path
) -> None:
    small = [one for one in SETTINGS if not one.startswith(("alignment.", "train.log_every"))]
    if checkpoint != "mmdit-coco":
        small += [f"alignment.teacher.name=local-dir:{teacher}", "alignment.teacher.dtype=float32"]
        small += ["alignment.feature_layer=2", "alignment.attention_pairs=[[0,1],[1,2]]"]
    given = [part for setting in (*small, "train.steps=2", "train.log_every=1") for part in ("--set", setting)]
    options = ["--checkpoint", checkpoint, *(part for name in variants for part in ("--variant", name))]
    place = ["--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    result = CliRunner().invoke(recipe, [*options, *place, "--allow-batch-mismatch", *given])
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {key for key in ("denoising", "feature", "attention") if key in row} == terms


def test_looks_the_trigger_bf16_and_recomputation_serve_text_too(data: Path, teacher: Path, tmp_path: Path) -> None:
    """What a run of classes can do, a run of text can: the numbers of a plain run within bf16's rounding."""
    looks = ("train.diagnose_every=2", "train.precision=bf16", "train.activation_checkpointing=true", "train.steps=4")
    end = ("step=none", "kind=gradient", "start=2", "every=2", "images=12", "threshold=-0.99", "block=1")
    trigger = [f"alignment.termination.{setting}" for setting in end]
    result = train(data, teacher, tmp_path / "looked", *looks, *trigger)
    assert result.exit_code == 0, result.output
    result = train(data, teacher, tmp_path / "plain", "train.steps=4")
    assert result.exit_code == 0, result.output
    looked, plain = losses(tmp_path / "looked"), losses(tmp_path / "plain")
    for step in plain:
        np.testing.assert_allclose(looked[step][:4], plain[step][:4], rtol=0.02)
    seen = [json.loads(line) for line in (tmp_path / "looked" / "alignment.jsonl").read_text().splitlines()]
    assert [line["step"] for line in seen] == [2, 4] and all(-1 <= one <= 1 for one in seen[0]["cosines"])
    looks_at = [json.loads(line) for line in (tmp_path / "looked" / "diagnostics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in looks_at] == [2, 4]
    assert len(looks_at[0]["cknna"]) == 3 and set(looks_at[0]["attention_kl"]) == {"0<-1", "1<-2"}
    assert "alignment" in call("diagnose", tmp_path / "looked")


def test_export_sample_and_measure(
    trained: Path, data: Path, coco: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "hastezoo sample --model text-mine" in call("export", trained, "--as", "text-mine")
    card = find_card("text-mine")
    assert card.classes is None and card.text is not None and card.method == "haste" and card.resolution == 16
    assert card.steps == newest(trained)
    call("sample", "--model", "text-mine", "--prompt", "a cat", "--prompt", "", "--steps", 4, "--out", "drawn")
    drawn = sorted(Path("drawn").glob("0*.png"))
    assert [Image.open(path).size for path in drawn] == [(16, 16)] * 2
    assert "text" in call("info", "text-mine")
    assert call("push", "text-mine", "--repo", "me/text-mine", "--licence", "mit", "--dry-run")
    fast = ("--steps", 2, "--device", "cpu", "--features", "pixels", "--allow-few", "-n", 12, "--metrics", "fid")
    call("eval-fid", "--model", "text-mine", "--prompts", coco[1], "--reference", data, *fast, "--out", "a")
    call("eval-fid", "--model", "text-mine", "--prompts", data, "--reference", data, *fast, "--out", "b")
    first, second = (json.loads(Path(folder, "result.json").read_text()) for folder in "ab")
    assert first["metrics"]["fid"]["value"] == pytest.approx(second["metrics"]["fid"]["value"], rel=1e-3)
    assert first["metrics"]["fid"]["value"] > 0 and first["settings"]["sampling"]["cfg"] == 2.25


def test_a_quick_fid_draws_captions_of_the_data(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the frozen pairs, without guidance, as the pipeline draws them."""
    from hastezoo.evaluation.metrics import frechet_distance
    from hastezoo.evaluation.prompts import open_prompts
    from hastezoo.evaluation.references import load_reference
    from hastezoo.evaluation.statistics import Moments
    from tests.evaluation.invented import Toy

    monkeypatch.setattr("hastezoo.evaluation.extractors.create_extractor", lambda name, **settings: Toy())
    quick = ("evaluation.every=2", "evaluation.images=10", "evaluation.steps=2", "train.steps=2")
    result = train(data, teacher, tmp_path / "run", *quick)
    assert result.exit_code == 0, result.output
    (line,) = (json.loads(row) for row in (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines())
    call("export", tmp_path / "run", "--as", "quick")
    pipe = Pipeline.from_pretrained("quick", device="cpu")
    prompts = open_prompts(str(data)).texts[:10]
    pixels = pipe(prompts=prompts, seeds=range(10), protocol="coco", cfg=1.0, steps=2).pixels
    real = load_reference(str(data), Toy()).moments["pool"]
    assert line["fid"] == pytest.approx(frechet_distance(Moments.of(Toy()(pixels)["pool"]), real), rel=1e-3)


def test_no_caption_is_the_empty_prompts_states(data: Path, tiny_clip: Path) -> None:
    """What a dropped caption becomes in training is what guidance leads away from in sampling."""
    from hastezoo.conditioning.text import create_text_encoder
    from hastezoo.data.prepared import Prepared
    from hastezoo.recipes.conditions import kind_of

    kind, samples = kind_of("mmdit_coco"), Prepared(data)
    (empty,) = create_text_encoder("clip", source=tiny_clip).states([""])
    assert torch.equal(torch.as_tensor(kind.null(samples)), empty)
    conditions, prompts = kind.shown(samples, 3)
    assert len(prompts) == 3 and set(prompts) <= {text for row in range(12) for text in samples.captions(row)}
    states, null = conditions.tensors(prompts, "", torch.device("cpu"))
    assert torch.equal(null[0], empty)
    assert torch.equal(states, create_text_encoder("clip", source=tiny_clip).states(prompts))


def test_what_the_run_says_of_itself(trained: Path, data: Path, tiny_clip: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["recipe"] == "coco256" and record["checkpoint"] == "mmdit-coco-haste"
    assert record["classes"] == [] and record["text"]["repo"] == str(tiny_clip)
    assert record["samples"] == 12 and record["resolution"] == 16
    (sheet,) = (trained / "samples").glob("step-*.png")
    assert Image.open(sheet).width == 6 * (64 + 2) + 2


def test_data_and_models_that_do_not_fit(data: Path, prepared: Path, teacher: Path, tmp_path: Path) -> None:
    from hastezoo.recipes.imagenet256 import main as imagenet

    out = tmp_path / "run"
    for result, words in (
        (train(prepared, teacher, out), "has classes and no captions; prepare some with `hastezoo prepare coco256`"),
        (CliRunner().invoke(imagenet, ["--data", str(data), "--out", str(out), "--checkpoint", "sit-b"]),
         "has captions and no classes: `python -m hastezoo.recipes.coco256` trains on it"),
        (train(data, teacher, out, "model.context_width=48"), "--set model.context_width=32"),
        (train(data, teacher, out, options=("--variant", "150")), "no variant '150'; nearest: 150k"),
        (train(data, teacher, out, options=("--checkpoint", "mmdit-coco", "--variant", "attention-only")),
         "mmdit-coco has no variant 'attention-only'"),
        (train(data, teacher, out, options=("--checkpoint", "sit-b")), "coco256 trains no checkpoint 'sit-b'"),
    ):  # fmt: skip
        assert result.exit_code == 2 and words in result.output, result.output
    assert not out.exists()
