"""On a CPU, should attention under bfloat16 be computed in bfloat16?

    python benchmarks/attention_precision.py

Forward and backward of the emoji's student: its attention alone (64 images, 6 heads of 32, 64 tokens of the picture and
16 of the words), and a whole step of training (model, loss, gradients), in float32, in bfloat16 throughout, and in
bfloat16 with attention in float32, as `hastezoo.models.layers.attend` has it. The three take turns; times are medians,
with their spread, and ratios are to float32. Writes benchmarks/results/attention_precision.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from dated import RESULTS, date_and_device
from sampling_speed import spread

BATCH, HEADS, TOKENS, SIZE = 64, 6, 64 + 16, 32
ROUNDS = 9
WAYS = ("float32", "bfloat16", "bfloat16, attention in float32")
OUT = RESULTS / "attention_precision.json"


@contextmanager
def way(name: str) -> Iterator[None]:
    """Autocast, and where attention is computed, for one of `WAYS`."""
    import torch

    from hastezoo.models import layers

    kept = set(layers.SLOW_IN_BFLOAT16)
    layers.SLOW_IN_BFLOAT16.clear()
    layers.SLOW_IN_BFLOAT16.update({"cpu"} if name == WAYS[2] else ())
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=name != WAYS[0]):
            yield
    finally:
        layers.SLOW_IN_BFLOAT16.clear()
        layers.SLOW_IN_BFLOAT16.update(kept)


def attention() -> Callable[[str], None]:
    """Attention alone, with queries, keys and values of the dtype that a model's own are of."""
    import torch

    from hastezoo.models.layers import attend

    torch.manual_seed(0)
    drawn = [torch.randn(BATCH, HEADS, TOKENS, SIZE) for _ in range(3)]

    def run(name: str) -> None:
        dtype = torch.float32 if name == WAYS[0] else torch.bfloat16
        parts = [part.to(dtype).requires_grad_() for part in drawn]
        with way(name):
            mixed = attend(*parts)
        mixed.float().square().mean().backward()

    return run


def step() -> Callable[[str], None]:
    """The student's step, without optimizer and teacher."""
    import torch

    from hastezoo.models.registry import create_model
    from hastezoo.zoo.registry import find_card

    torch.manual_seed(0)
    card = find_card("mmdit-ti-emoji-haste")
    model = create_model(card.architecture, **card.config)
    images, times = torch.randn(BATCH, 3, 32, 32), torch.rand(BATCH)
    words = torch.randint(1, len(card.config["words"]), (BATCH, 16))

    def run(name: str) -> None:
        with way(name):
            loss = (model(images, times, words).float() - images).square().mean()
        loss.backward()
        model.zero_grad()

    return run


def timed(run: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds of each way, in turns, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(1 + ROUNDS):
        for name in WAYS:
            began = time.perf_counter()
            run(name)
            if turn:
                seconds[name].append(time.perf_counter() - began)
    found: dict[str, Any] = {
        name: {"milliseconds": spread([1000 * value for value in values])} for name, values in seconds.items()
    }
    base = found[WAYS[0]]["milliseconds"]["median"]
    return {
        name: {**row, "over float32": round(row["milliseconds"]["median"] / base, 2)} for name, row in found.items()
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(out: Path) -> None:
    """Time attention in float32 and in bfloat16 on a CPU."""
    from hastezoo.files import write_json

    result = {
        **date_and_device(),
        "shape": {"batch": BATCH, "heads": HEADS, "tokens": TOKENS, "head_size": SIZE},
        "attention": timed(attention()),
        "step": timed(step()),
    }
    write_json(out, result)
    for kind in ("attention", "step"):
        for name, row in result[kind].items():
            click.echo(f"{kind:10} {name:32} {row['milliseconds']['median']:7.1f} ms  x{row['over float32']:.2f}")


if __name__ == "__main__":
    main()
