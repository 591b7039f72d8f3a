"""What the runs of `emoji_study.py` say, as JSON, as a picture, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from digits_report import COLOURS, ENDS, NAMES, draw_cosines, name_of, table

# Of each look, and decimals: what is drawn of seen and of held-out names, and the loss on pictures that nobody saw.
MEASURES = (
    ("seen_top1", 4), ("seen_top5", 4), ("held_out_top1", 4), ("held_out_top5", 4), ("seen_error", 4),
    ("held_out_error", 4), ("unseen_loss", 5),
)  # fmt: skip
FALLING = "seen_error"  # by which steps are compared


def of(values: list[list[float]], place: int) -> tuple[float, float]:
    """Mean over seeds, and half the range between them."""
    column = [row[place] for row in values]
    return float(np.mean(column)), (max(column) - min(column)) / 2


def quality_table(found: dict[str, Any], at: tuple[int, ...]) -> str:
    """The distance to the real picture and retrieval of seen names, arm by arm, as Markdown."""

    def cell(curve: dict[str, Any], place: int) -> str:
        error, spread = of(curve[FALLING], place)
        return f"{error:.3f} ± {spread:.3f}, {100 * of(curve['seen_top1'], place)[0]:.1f} %"

    return table(found, at, cell)


def draw(result: dict[str, Any], path: Path) -> None:
    """Distance to the real picture, retrieval, the loss on unseen pictures, and the gradients' cosine, over steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.6), layout="constrained")
    _draw_curves(axes[0][0], result["curves"], FALLING, "Distance to the real picture, seen names (RMS)")
    _draw_curves(axes[0][1], result["curves"], "seen_top1", "Own name is the nearest, seen names")
    _draw_curves(axes[1][0], result["curves"], "unseen_loss", "Denoising loss on unseen pictures, without text")
    draw_cosines(axes[1][1], result["trigger"])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curves(axis: Any, found: dict[str, Any], measure: str, title: str) -> None:
    for place, (arm, curve) in enumerate(found.items()):
        values = np.array(curve[measure])
        colour, style = (COLOURS[arm], "-") if arm in NAMES else (ENDS[place % len(ENDS)], "--")
        axis.plot(curve["steps"], values.mean(0), style, color=colour, label=name_of(arm))
        axis.fill_between(curve["steps"], values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="steps", title=title)
    axis.legend(fontsize=8)
