"""What training every checkpoint of latents takes, by the recipes' dry runs: the tables of docs/training.md, text.md.

    python benchmarks/training_costs.py

Nothing is run: FLOPs and memory are counted on the real code without values, hours follow from an assumed share of an
H100's peak. Writes benchmarks/results/training_costs.json and prints the table.
"""

from __future__ import annotations

import json
from typing import Any

import click
from dated import RESULTS, date_and_device

from hastezoo.recipes.dry_run import Machine, as_json, plan
from hastezoo.recipes.latents import checkpoints, recipe_config

RECIPES = ("imagenet256", "imagenet512", "coco256")
KEPT = (
    "steps", "epochs", "flops_per_image", "teacher_share", "flops", "memory_bytes", "state_bytes", "activation_bytes",
    "processes", "portion", "gpu", "utilisation", "gpu_hours", "checkpoint_bytes",
)  # fmt: skip
HEAD = ["checkpoint", "steps", "epochs", "GFLOPs an image", "teacher's share", "EFLOPs in all", "GB a GPU", "GPU hours"]


def costs() -> dict[str, dict[str, Any]]:
    """By checkpoint, on eight H100."""
    return {
        name: {key: value for key, value in as_json(plan(card, recipe_config(card), Machine())).items() if key in KEPT}
        for recipe in RECIPES
        for name, card in checkpoints(recipe).items()
    }


def row(name: str, cost: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [
        f"`{name}`",
        f"{cost['steps']:,}",
        f"{cost['epochs']:,.0f}",
        f"{cost['flops_per_image'] / 1e9:,.0f}",
        f"{100 * cost['teacher_share']:.1f} %" if cost["teacher_share"] else "-",
        f"{cost['flops'] / 1e18:,.0f}",
        f"{cost['memory_bytes'] / 1e9:.0f}",
        f"{cost['gpu_hours']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


@click.command()
def main() -> None:
    """Compute and write."""
    result = {**date_and_device(), "checkpoints": costs()}
    (RESULTS / "training_costs.json").write_text(json.dumps(result, indent=2) + "\n")
    click.echo(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for name, cost in result["checkpoints"].items():
        click.echo(row(name, cost))


if __name__ == "__main__":
    main()
