"""The recipe of ImageNet on small real data: a model, a teacher and settings that take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from hastezoo.recipes.imagenet256 import main

BATCH = 16
SETTINGS = [
    "architecture=sit", "model.depth=3", "model.width=32", "model.heads=2", "model.patch_size=2", "model.input_size=8",
    "model.num_classes=5", "alignment.teacher.dtype=float32", "alignment.feature_layer=2",
    "alignment.attention_pairs=[[1,2],[2,3]]", "alignment.projector_width=16", "alignment.termination.step=6",
    f"train.batch_size={BATCH}", "train.ema_decay=0.9", "optimizer.lr=1e-3", "train.precision=fp32",
    "train.log_every=1", "train.checkpoint_every=4", "train.sample_every=0", "train.workers=0",
]  # fmt: skip


def write_images(folder: Path, count: int = 200) -> Path:
    """Digits 0 to 3 in colour, and pieces of scikit-image's photographs as a fifth class, in a folder each."""
    from skimage import data
    from sklearn.datasets import load_digits

    images, labels = load_digits(n_class=4, return_X_y=True)
    for index in range(count):
        place = folder / f"digit-{labels[index]}"
        place.mkdir(parents=True, exist_ok=True)
        grey = np.asarray(images[index].reshape(8, 8) / 16)
        tint = np.array([1.0, 0.5 + 0.5 * (index % 3 == 0), 0.5 + 0.5 * (index % 2)])
        pixels = (255 * grey[:, :, None] * tint).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(place / f"{index:04d}.png")
    (folder / "photograph").mkdir(exist_ok=True)
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        photograph = Image.fromarray(getattr(data, name)()).convert("RGB")
        for index in range(count // 20):
            left, top = 7 * index % (photograph.width - 160), 11 * index % (photograph.height - 160)
            piece = photograph.crop((left, top, left + 160, top + 130))
            piece.save(folder / "photograph" / f"{name}-{index:02d}.jpg", quality=95)
    return folder


def write_teacher(folder: Path) -> Path:
    """A ViT of four blocks and 4x4 patches of 16 pixels, with random weights, as timm saves one."""
    arguments: dict[str, Any] = {"img_size": 64, "depth": 4, "embed_dim": 32, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments)
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    half = [0.5, 0.5, 0.5]
    described = {"input_size": [3, 64, 64], "mean": half, "std": half, "num_classes": 0, "fixed_input_size": True}
    described |= {"first_conv": "patch_embed.proj", "classifier": "head"}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": arguments}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": described}))
    return folder


def arguments(data: Path, teacher: Path, out: Path, *settings: str, checkpoint: str = "sit-b-haste") -> list[str]:
    """Of the recipe's command; later settings win."""
    every = [*SETTINGS, f"alignment.teacher.name=local-dir:{teacher}", *settings]
    given = [part for setting in every for part in ("--set", setting)]
    options = ["--checkpoint", checkpoint, "--data", str(data), "--out", str(out), "--device", "cpu"]
    return [*options, "--allow-batch-mismatch", "--quiet", *given]


def train(data: Path, teacher: Path, out: Path, *settings: str, **options: Any) -> Result:
    """Run the recipe in this process."""
    return CliRunner().invoke(main, arguments(data, teacher, out, *settings, **options))


def losses(out: Path) -> dict[int, list[float]]:
    """Step -> the losses and the gradient's norm; of a run under way what is there."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    names = ("loss", "denoising", "feature", "attention", "grad_norm")
    return {row["step"]: [row[name] for name in names if name in row] for row in rows}
