"""What does the attention loss take, against the obvious way, which forms the N x N maps?

    python benchmarks/attention_memory.py [--device cuda]

Forward and backward of one image of SiT-XL/2 (16 heads of 72) aligned with DINOv2-B (12 heads of 64), float32, at 256,
1024 and 4096 tokens: 256, 512 and 1024 pixels. Memory is what torch's allocator hands out beyond queries and keys;
times are medians of turns, with their spread. The obvious way needs 3 GB at 4096 tokens.
Writes benchmarks/results/attention_memory.json.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from allocations import allocations
from dated import RESULTS, date_and_device
from sampling_speed import spread

if TYPE_CHECKING:
    from torch import Tensor

TOKENS = (256, 1024, 4096)
STUDENT, TEACHER = (16, 72), (12, 64)  # heads and their size
ROUNDS = 5
OUT = RESULTS / "attention_memory.json"


def naive_attention_alignment(
    student_queries: Tensor,
    student_keys: Tensor,
    teacher_queries: Tensor,
    teacher_keys: Tensor,
    *,
    heads: str = "index",
) -> Tensor:
    """The same loss as `hastezoo.alignment.losses.attention_alignment`, as it is written down (HASTE)."""
    paired = min(student_queries.shape[1], teacher_queries.shape[1])
    sides = (student_queries, student_keys, teacher_queries, teacher_keys)
    qs, ks, qt, kt = (side[:, :paired] for side in sides)
    target = (qt @ kt.mT * qt.shape[-1] ** -0.5).softmax(-1)
    return -(target * (qs @ ks.mT * qs.shape[-1] ** -0.5).log_softmax(-1)).sum(-1).mean()


def ways() -> dict[str, Callable[..., Tensor]]:
    """The obvious way first; ratios are to it."""
    from hastezoo.alignment.losses import attention_alignment

    return {"naive": naive_attention_alignment, "ours": attention_alignment}


def queries_and_keys(tokens: int, device: str) -> list[Tensor]:
    """The student's, which want gradients, then the teacher's."""
    import torch

    torch.manual_seed(0)
    return [
        torch.randn(1, heads, tokens, size, device=device, requires_grad=(heads, size) == STUDENT)
        for heads, size in (STUDENT, STUDENT, TEACHER, TEACHER)
    ]


def measure(tokens: int, device: str, rounds: int) -> dict[str, Any]:
    """Bytes and seconds of both ways, and the bytes that no way can do without."""
    import torch

    sides = queries_and_keys(tokens, device)
    with torch.no_grad():
        torch.testing.assert_close(*(loss(*sides) for loss in ways().values()))

    def step(loss: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(loss(*sides), sides[:2])
        if device == "cuda":
            torch.cuda.synchronize()
        return gradients

    memory = {way: allocations(functools.partial(step, loss), device) for way, loss in ways().items()}
    seconds: dict[str, list[float]] = {way: [] for way in memory}
    for _ in range(rounds):
        for way, loss in ways().items():
            began = time.perf_counter()
            step(loss)
            seconds[way].append(time.perf_counter() - began)
    return {
        "queries_and_keys_bytes": sum(side.nbytes for side in sides),
        "gradients_bytes": sum(side.nbytes for side in sides[:2]),
        "map_bytes": 4 * min(STUDENT[0], TEACHER[0]) * tokens**2,
        **{
            way: {
                "peak_bytes": memory[way].peak,
                "largest_allocation_bytes": memory[way].largest,
                "milliseconds": spread([1000 * value for value in values]),
            }
            for way, values in seconds.items()
        },
    }


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """Ours over the obvious way."""
    naive, ours = row["naive"], row["ours"]
    return {
        "peak": round(ours["peak_bytes"] / naive["peak_bytes"], 4),
        "largest_allocation": round(ours["largest_allocation_bytes"] / naive["largest_allocation_bytes"], 4),
        "time": round(ours["milliseconds"]["median"] / naive["milliseconds"]["median"], 3),
    }


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table, in MB."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="attention loss, forward and backward, 12 pairs of heads (MB = 10^6 bytes)")
    for column in ("tokens", "way", "peak MB", "largest MB", "ms", "least .. most"):
        table.add_column(column, justify="left" if column == "way" else "right", no_wrap=True)
    for tokens, row in rows.items():
        table.add_row(tokens, "queries and keys", f"{row['queries_and_keys_bytes'] / 1e6:,.1f}")
        table.add_row(tokens, "gradients alone", f"{row['gradients_bytes'] / 1e6:,.1f}")
        for way in ways():
            sizes = [f"{row[way][key] / 1e6:,.1f}" for key in ("peak_bytes", "largest_allocation_bytes")]
            spent = row[way]["milliseconds"]
            times = f"{spent['median']:,.0f}", f"{spent['least']:,.0f} .. {spent['most']:,.0f}"
            table.add_row(tokens, way, *sizes, *times)
        table.add_row(tokens, "ours / naive", *(f"{ratio:g}" for ratio in row["ratios"].values()))
        table.add_section()
    Console().print(table)


@click.command()
@click.option("--tokens", multiple=True, type=int, default=TOKENS, show_default=True, help="N; may be repeated.")
@click.option("--rounds", default=ROUNDS, show_default=True, help="Turns that are timed.")
@click.option("--device", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT, help="Where the result goes.")
def main(tokens: tuple[int, ...], rounds: int, device: str, out: Path) -> None:
    """Measure and write the result."""
    from hastezoo.devices import find_device
    from hastezoo.files import write_json

    kind = find_device(device).type
    rows = {str(count): measure(count, kind, rounds) for count in tokens}
    for row in rows.values():
        row["ratios"] = ratios(row)
    settings = {"batch": 1, "student_heads": STUDENT, "teacher_heads": TEACHER, "dtype": "float32", "rounds": rounds}
    out.parent.mkdir(exist_ok=True)
    write_json(out, {**date_and_device(), **settings, "tokens": rows})
    show(rows)


if __name__ == "__main__":
    main()
