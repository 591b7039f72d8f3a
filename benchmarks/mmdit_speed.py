"""What an evaluation of the text-to-image network costs, beside diffusers' transformer of Stable Diffusion 3.

    python benchmarks/mmdit_speed.py

`mmdit_coco` (505 M parameters, random weights) and diffusers' SD3Transformer2DModel of the same depth, width, heads and
patches on a guided image: two rows of 256 image tokens and 77 of context. The floor is the matrix products and the
attention of those blocks by themselves, on tensors that are there. The three take turns in one process; medians with
their range, as ratios to diffusers'. Forward as in sampling, and forward with backward as in training. Writes
benchmarks/results/mmdit_speed.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import torch
from dated import RESULTS, date_and_device
from torch import Tensor, nn
from torch.nn import functional as F

from hastezoo.files import write_json
from hastezoo.models.registry import create_model

DEPTH, WIDTH, HEADS, LENGTH, SIDE = 24, 768, 24, 77, 32
TOKENS = (SIDE // 2) ** 2


class Floor(nn.Module):
    """The linear layers and the attention of the blocks, each on an input of its shape: nothing between them."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        shapes = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
        self.layers = nn.ModuleList(nn.Linear(*shape) for _ in range(2) for shape in shapes)
        rows = [rows for rows in (LENGTH, TOKENS) for _ in shapes]
        self.inputs = [
            torch.randn(batch, count, layer.in_features, requires_grad=True)
            for count, layer in zip(rows, self.layers, strict=True)
        ]
        self.heads = [torch.randn(batch, HEADS, LENGTH + TOKENS, WIDTH // HEADS, requires_grad=True) for _ in range(3)]

    def forward(self) -> Tensor:
        total = torch.zeros(())
        for index in range(DEPTH):
            outputs = [
                layer(given)
                for place, (layer, given) in enumerate(zip(self.layers, self.inputs, strict=True))
                if index < DEPTH - 1 or place == 0 or place >= 4  # nothing comes of the last context
            ]
            mixed = F.scaled_dot_product_attention(*self.heads)
            total = total + sum(output[0, 0, 0] for output in outputs) + mixed[0, 0, 0, 0]
        return total


def diffusers_model() -> nn.Module:
    """Stable Diffusion 3's transformer at the same size; its pooled vector, which ours has not, is 8 wide."""
    from diffusers import SD3Transformer2DModel

    model: nn.Module = SD3Transformer2DModel(
        sample_size=SIDE, patch_size=2, in_channels=4, out_channels=4, num_layers=DEPTH, num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS, joint_attention_dim=WIDTH, caption_projection_dim=WIDTH,
        pooled_projection_dim=8, pos_embed_max_size=SIDE // 2,
    )  # fmt: skip
    return model


def cases(batch: int) -> dict[str, Callable[[], Tensor]]:
    """Calls that give a scalar each, by name."""
    torch.manual_seed(0)
    ours, theirs, floor = create_model("mmdit_coco"), diffusers_model(), Floor(batch)
    x, t = torch.randn(batch, 4, SIDE, SIDE), torch.rand(batch)
    context, pooled = torch.randn(batch, LENGTH, WIDTH), torch.randn(batch, 8)
    return {
        "diffusers": lambda: theirs(x, context, pooled, 1000 * t).sample.square().mean(),
        "ours": lambda: ours(x, t, context).square().mean(),
        "products alone": floor,
    }


def seconds(calls: dict[str, Callable[[], Tensor]], rounds: int, *, training: bool) -> dict[str, dict[str, float]]:
    """Medians and ranges, the calls taking turns; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            if training:
                call().backward()
            else:
                with torch.inference_mode():
                    call()
            if turn:
                found[name].append(time.perf_counter() - began)
    base = statistics.median(found["diffusers"])
    return {
        name: {
            "median": round(statistics.median(taken), 3),
            "least": round(min(taken), 3),
            "most": round(max(taken), 3),
            "ratio": round(statistics.median(taken) / base, 3),
        }
        for name, taken in found.items()
    }


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--batch", default=2, show_default=True, help="Rows; a guided image has two.")
def main(rounds: int, batch: int) -> None:
    """Measure and write the result."""
    calls = cases(batch)
    result: dict[str, Any] = {
        **date_and_device(),
        "batch": batch,
        "rounds": rounds,
        "sampling": seconds(calls, rounds, training=False),
        "training": seconds(calls, rounds, training=True),
    }
    write_json(RESULTS / "mmdit_speed.json", result)
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
