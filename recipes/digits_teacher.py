"""Trains the small ViT that teaches the digits' students, in a minute on two CPU cores.

    python -m hastezoo.recipes.digits_teacher                # into runs/digits-teacher
    python -m hastezoo.recipes.digits --arm haste --set alignment.teacher.name=local-dir:runs/digits-teacher

The result is a folder as timm reads it (`local-dir:`): config.json and model.safetensors. The one that ships with the
recipes, `recipes/teachers/digits-vit`, was made by this command. It sees the 1437 training digits and their labels,
which is all that its students see as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

SHIPPED = Path(__file__).parent / "teachers" / "digits-vit"
ARCHITECTURE = "vit_tiny_patch16_224"
# Its own size, on top of timm's name: 16 patches of 2x2, 128 wide, 4 deep, 4 heads.
MODEL: dict[str, Any] = {
    "img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10,
    "embed_dim": 128, "depth": 4, "num_heads": 4, "global_pool": "avg", "fc_norm": False,
}  # fmt: skip
MEAN, STD = (0.5,), (0.5,)
EPOCHS, BATCH, RATE, DECAY = 60, 64, 1e-3, 0.05


def shifted(images: Tensor, generator: Any) -> Tensor:
    """Half of the images (B, C, H, W) moved by -1, 0 or 1 pixels along both axes; what comes in is black."""
    import torch
    from torch.nn import functional as F

    count, _, height, width = images.shape
    padded = F.pad(images, (1, 1, 1, 1))
    moved = torch.rand(count, generator=generator) < 0.5
    down, right = torch.where(moved, torch.randint(0, 3, (2, count), generator=generator), 1)
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def train(seed: int = 0, epochs: int = EPOCHS, quiet: bool = False) -> tuple[nn.Module, dict[str, float]]:
    """A timm ViT that classifies digits, and the share of the digits it gets right in each split."""
    import timm
    import torch
    from rich.progress import track
    from torch.nn import functional as F

    from hastezoo.data.digits import Digits
    from hastezoo.data.order import generator, permutation

    torch.manual_seed(seed)
    model = timm.create_model(ARCHITECTURE, **MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    digits, source = Digits("train"), generator(seed, "teacher")
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * (len(digits) // BATCH))
    model.train()
    for epoch in track(range(epochs), "teacher", disable=quiet):
        for chosen in permutation(seed, epoch, len(digits)).split(BATCH)[: len(digits) // BATCH]:
            images = (shifted((digits.images[chosen] + 1) / 2, source) - MEAN[0]) / STD[0]
            loss = F.cross_entropy(model(images), digits.labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval(), {split: accuracy(model, split) for split in ("train", "test")}


def accuracy(model: nn.Module, split: Any) -> float:
    """The share of a split's digits that the teacher, as a classifier, gets right."""
    import torch

    from hastezoo.data.digits import Digits

    digits = Digits(split)
    with torch.no_grad():
        found = model(((digits.images + 1) / 2 - MEAN[0]) / STD[0]).argmax(1)
    return float((found == digits.labels).float().mean())


def save(model: nn.Module, out: Path, numbers: dict[str, float]) -> None:
    """Write the folder that timm's `local-dir:` reads.

    Raises:
        UserError: If it cannot be written.
    """
    from safetensors.torch import save as to_bytes

    from hastezoo.files import atomic_write, write_json

    config = {
        "architecture": ARCHITECTURE,
        "num_classes": MODEL["num_classes"],
        "model_args": MODEL,
        "pretrained_cfg": {"input_size": [1, 8, 8], "mean": MEAN, "std": STD, "fixed_input_size": True},
        "accuracy": numbers,
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "model.safetensors", to_bytes({k: v.contiguous() for k, v in model.state_dict().items()}))
        write_json(out / "config.json", config)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; give another --out") from None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/digits-teacher"))
@click.option("--seed", default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True)
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def main(out: Path, seed: int, epochs: int, quiet: bool) -> None:
    """Train the ViT that teaches the digits' students."""
    model, numbers = train(seed, epochs, quiet)
    save(model, out, numbers)
    if not quiet:
        click.echo(json.dumps(numbers))
        click.echo(
            f"teach with it: python -m hastezoo.recipes.digits --arm haste --set alignment.teacher.name=local-dir:{out}"
        )


if __name__ == "__main__":
    main()
