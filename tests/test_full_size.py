"""SiT-XL/2 and the MMDiT of COCO at their real sizes, from a released container to an image, and what that takes of
memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hastezoo.models.registry import create_model
from tests.clip import save_clip
from tests.memory import run_measured
from tests.vae import save_vae
from tests.zoo.foreign import projectors, repa_arguments

pytestmark = pytest.mark.slow

CODE = """
import sys
from hastezoo.cli.main import main
try:
    main(sys.argv[1:], prog_name="hastezoo")
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def run(home: Path, *arguments: str | Path) -> tuple[str, int]:
    """(output, peak bytes) of a hastezoo command in a process of its own."""
    return run_measured(CODE, *arguments, HASTEZOO_HOME=str(home), HF_HUB_OFFLINE="1")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """REPA's container of a randomly initialised SiT-XL/2: 5.5 GB, EMA and raw weights, no optimizer state."""
    path = tmp_path_factory.mktemp("released") / "2500000.pt"
    torch.manual_seed(0)
    state = {**create_model("sit_xl_2").state_dict(), **projectors(1152, 2048, 768)}
    state["final_layer.linear.weight"] = 0.02 * torch.randn_like(state["final_layer.linear.weight"])
    raw = {key: value + 1 for key, value in state.items()}
    args = repa_arguments(model="SiT-XL/2", num_classes=1000, encoder_depth=8, resolution=256, attn_coeff=0.5)
    opt = {"state": {}, "param_groups": []}
    torch.save({"ema": state, "model": raw, "opt": opt, "args": args, "steps": 2_500_000}, path)
    return path


@pytest.fixture(scope="module")
def sd_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised autoencoder with the SD VAE's sizes."""
    return save_vae(tmp_path_factory.mktemp("sd-vae"), (128, 256, 512, 512), layers_per_block=2, sample_size=256)


def test_import_and_sample_sit_xl(released: Path, sd_vae: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    _, nothing = run(home, "verify", "sit-ti-digits")  # what torch and a few megabytes take
    text, looked = run(home, "info", released)
    assert "sit_xl_2" in text and "674,816,272" in text and "2500000" in text
    assert looked < nothing + (256 << 20), "info reads headers only"
    _, imported = run(home, "import", "sit-xl-haste", released)
    written = (home / "weights" / "sit-xl-haste" / "model.safetensors").stat().st_size
    assert 2.6e9 < written < 2.8e9
    assert imported <= 1.5 * written
    peaks = {"torch alone": nothing, "info": looked, "import": imported, "written": written}
    print(", ".join(f"{what} {size / 1e9:.2f} GB" for what, size in peaks.items()))
    text, looked = run(home, "info", home / "weights" / "sit-xl-haste" / "model.safetensors")
    assert "674,816,272" in text and looked < nothing + (256 << 20)
    text, checked = run(home, "verify", "sit-xl-haste")
    assert text.count("good") == 4 and checked <= 1.5 * written
    out = tmp_path / "out"
    options = ("--class", "golden retriever", "--steps", "2", "--vae", sd_vae, "--out", out)
    run(home, "sample", "--model", "sit-xl-haste", *options)
    assert np.asarray(Image.open(out / "00000_class207_seed0.png")).shape == (256, 256, 3)
    record = json.loads((out / "samples.json").read_text())
    assert record["samples"][0]["name"] == "golden retriever" and record["spent"]["evaluations"] == 2


@pytest.fixture(scope="module")
def released_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """REPA's container of a randomly initialised mmdit_coco: 4 GB, EMA and raw weights, no optimizer state."""
    path = tmp_path_factory.mktemp("released") / "0250000.pt"
    torch.manual_seed(0)
    state = {**create_model("mmdit_coco").state_dict(), **projectors(768, 2048, 768)}
    raw = {key: value + 1 for key, value in state.items()}
    args = repa_arguments(model="MMDiT", encoder_depth=8, resolution=256, attn_coeff=0.5)
    opt = {"state": {}, "param_groups": []}
    torch.save({"ema": state, "model": raw, "opt": opt, "args": args, "steps": 250_000}, path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised text encoder of CLIP ViT-L/14's size, with a small vocabulary."""
    return save_clip(tmp_path_factory.mktemp("clip"), width=768, layers=12, heads=12)


def test_import_and_sample_mmdit(released_text: Path, clip: Path, sd_vae: Path, tmp_path: Path) -> None:
    """The images are those of the EMA in the container, put together by hand from its tensors."""
    home = tmp_path / "home"
    text, _ = run(home, "info", released_text)
    assert "mmdit_coco" in text and "505,070,608" in text and "250000" in text
    _, imported = run(home, "import", "mmdit-coco-haste", released_text)
    written = (home / "weights" / "mmdit-coco-haste" / "model.safetensors").stat().st_size
    assert 2.0e9 < written < 2.1e9 and imported <= 1.6 * written
    print(f"import {imported / 1e9:.2f} GB, written {written / 1e9:.2f} GB")
    text, _ = run(home, "verify", "mmdit-coco-haste")
    assert text.count("good") == 4
    out = tmp_path / "out"
    places = ("--vae", sd_vae, "--text-encoder", clip, "--out", out)
    prompts = ("--prompt", "a cat on the bus", "--prompt", "", "--steps", "2", "--batch-size", "2")
    _, peak = run(home, "sample", "--model", "mmdit-coco-haste", *prompts, *places)
    print(f"sample {peak / 1e9:.2f} GB")
    record = json.loads((out / "samples.json").read_text())
    assert [row["prompt"] for row in record["samples"]] == ["a cat on the bus", ""]
    assert record["request"]["protocol"]["cfg"] == 2.25 and record["spent"]["evaluations"] == 2
    drawn = [np.asarray(Image.open(path)) for path in sorted(out.glob("0*.png"))]
    assert [image.shape for image in drawn] == [(256, 256, 3)] * 2
    wanted = by_hand(released_text, clip, sd_vae, ["a cat on the bus", ""])
    assert np.abs(np.stack(drawn).astype(int) - wanted).max() <= 1


def by_hand(released: Path, clip: Path, sd_vae: Path, prompts: list[str]) -> np.ndarray:
    """Two steps of Euler-Maruyama with guidance 2.25 by the equations: from 1 to 0.04 with noise, then to 0 without."""
    import argparse

    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizerFast

    from hastezoo.sampling.noise import NoiseSource

    with torch.serialization.safe_globals([argparse.Namespace]), torch.inference_mode():
        ema = torch.load(released, weights_only=True, mmap=True)["ema"]
        model = create_model("mmdit_coco")
        model.load_state_dict({key: value for key, value in ema.items() if not key.startswith("projectors.")})
        tokenizer = CLIPTokenizerFast.from_pretrained(clip)
        ids = tokenizer([*prompts, ""], padding="max_length", max_length=77, return_tensors="pt").input_ids
        states = CLIPTextModel.from_pretrained(clip).eval()(ids).last_hidden_state.half().float()
        source = NoiseSource([0, 0])
        x = source.initial((2, 4, 32, 32)).double()

        def drift(x: torch.Tensor, t: float) -> torch.Tensor:
            times = torch.full((2,), t)
            aware = model(x.float(), times, states[:2]).double()
            blind = model(x.float(), times, states[2:].expand(2, -1, -1)).double()
            v = blind + 2.25 * (aware - blind)
            score = -((1 - t) * v + x) / t
            return v - t * score  # less half of 2 t times the score

        x = x - 0.96 * drift(x, 1.0) + (2 * 1.0 * 0.96) ** 0.5 * source.step(0, (2, 4, 32, 32)).double()
        x = x - 0.04 * drift(x, 0.04)
        vae = AutoencoderKL.from_pretrained(sd_vae).eval()
        pixels = torch.cat([vae.decode(one[None].float() / 0.18215).sample for one in x])
    return np.floor(255 * (pixels.numpy().transpose(0, 2, 3, 1) + 1) / 2).clip(0, 255).astype(int)
