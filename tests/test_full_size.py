"""SiT-XL/2 at its real size, from a released container to an image, and what that takes of memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hastezoo.models.registry import create_model
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
