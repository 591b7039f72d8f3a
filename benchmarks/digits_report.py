"""What the runs of `digits_study.py` say: curves, crossings, ends and cosines, as JSON, as a picture, as tables.

Curves, crossings and cosines serve other studies as well (`emoji_report.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {
    "none": "none (plain)",
    "repa": "REPA",
    "attention": "attention only, tau 500",
    "haste-never": "HASTE, never stopped",
}
COLOURS = {"none": "#444444", "repa": "#0072b2", "attention": "#009e73", "haste-never": "#d55e00"}
ENDS = ("#f0b27a", "#cc79a7", "#e69f00", "#8e44ad", "#56b4e9")


def name_of(arm: str) -> str:
    """What an arm is called in tables."""
    return NAMES.get(arm) or f"HASTE, tau {arm.removeprefix('haste-')}"


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def curves(
    folder: Path,
    arms: list[str],
    seeds: tuple[int, ...],
    measures: tuple[tuple[str, int], ...] = (("frechet", 3), ("recognised", 4)),
) -> dict[str, Any]:
    """Per arm the looked-at steps, and a row of values per seed; the start of a fork is the run that it left.

    Args:
        folder: Of the runs.
        arms, seeds: Which of them.
        measures: Names of what was judged, and decimals to keep.
    """
    found: dict[str, Any] = {}
    for arm in arms:
        runs = []
        for seed in seeds:
            looks = lines(folder / f"{arm}-{seed}" / "quality.jsonl")
            if arm not in NAMES:
                tau = int(arm.removeprefix("haste-"))
                before = lines(folder / f"haste-never-{seed}" / "quality.jsonl")
                looks = [look for look in before if look["step"] <= tau] + looks
            runs.append(looks)
        found[arm] = {
            "steps": [look["step"] for look in runs[0]],
            **{name: [[round(look[name], digits) for look in looks] for looks in runs] for name, digits in measures},
        }
    return found


def reaches(curve: dict[str, Any], seed: int, level: float, measure: str = "frechet") -> float | None:
    """The step at which a run's distance first is at most `level`, between looks on a log scale; None if it is not."""
    steps, values = curve["steps"], curve[measure][seed]
    for i, (step, value) in enumerate(zip(steps, values, strict=True)):
        if value <= level:
            if i == 0:
                return float(step)
            share = np.log(values[i - 1] / level) / np.log(values[i - 1] / value)
            return float(steps[i - 1] + share * (step - steps[i - 1]))
    return None


def speedups(found: dict[str, Any], at: tuple[int, ...], measure: str = "frechet") -> dict[str, Any]:
    """How many steps each arm needs for the distance that the plain model of the same seed has after `at` steps."""
    plain = found["none"]
    table: dict[str, Any] = {}
    for arm, curve in found.items():
        for step in at:
            place = plain["steps"].index(step)
            needed = [reaches(curve, seed, row[place], measure) for seed, row in enumerate(plain[measure])]
            table.setdefault(arm, {})[str(step)] = [None if value is None else round(value) for value in needed]
    return table


def trigger(folder: Path, seeds: tuple[int, ...], threshold: float) -> dict[str, Any]:
    """The mean cosine of the run that never ends, look by look, and the step at which HASTE's trigger would end it."""
    looks = [
        [row for row in lines(folder / f"haste-never-{seed}" / "diagnostics.jsonl") if "cosines" in row]
        for seed in seeds
    ]
    means = [[round(float(np.mean(row["cosines"])), 4) for row in rows] for rows in looks]
    steps = [row["step"] for row in looks[0]]
    fired = [next((s for s, mean in zip(steps, row, strict=True) if mean < threshold), None) for row in means]
    by_time = np.mean([[row["cosines"] for row in rows] for rows in looks], axis=0).round(4).tolist()
    return {
        "threshold": threshold, "times": looks[0][0]["times"], "steps": steps, "mean_cosine": means,
        "cosine_by_time": by_time, "would_end": fired,
    }  # fmt: skip


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1))


def _spread(values: list[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {_deviation(values):.{digits}f}"


def table(found: dict[str, Any], at: tuple[int, ...], cell: Callable[[dict[str, Any], int], str]) -> str:
    """Arm by arm, Markdown of `cell(curve, place)`, where `place` is that of a step in the curve."""
    head = "| arm | " + " | ".join(f"{step} steps" for step in at) + " |\n|---|" + "---|" * len(at) + "\n"
    rows = (
        f"| {name_of(arm)} | " + " | ".join(cell(curve, curve["steps"].index(step)) for step in at) + " |"
        for arm, curve in found.items()
    )
    return head + "\n".join(rows) + "\n"


def quality_table(found: dict[str, Any], at: tuple[int, ...]) -> str:
    """Mean and deviation over seeds of both measures, arm by arm, as Markdown."""

    def cell(curve: dict[str, Any], place: int) -> str:
        distance = _spread([values[place] for values in curve["frechet"]], 1)
        share = 100 * np.mean([values[place] for values in curve["recognised"]])
        return f"{distance}, {share:.1f} %"

    return table(found, at, cell)


def speed_table(needed: dict[str, Any], at: tuple[int, ...], last: int = 2000) -> str:
    """Steps needed to match the plain model, and their share of its steps, as Markdown; `last` is where runs end."""
    head = "| arm | " + " | ".join(f"plain at {step}" for step in at) + " |\n|---|" + "---|" * len(at) + "\n"
    rows = []
    for arm, by_step in needed.items():
        if arm == "none":
            continue
        cells = []
        for step in at:
            steps = [value for value in by_step[str(step)] if value is not None]
            short = len(by_step[str(step)]) - len(steps)
            if not steps:
                cells.append(f"not in {last} steps")
                continue
            late = f"; {short} of {short + len(steps)} seeds never" if short else ""
            cells.append(f"{np.mean(steps):.0f} ({np.mean(steps) / step:.2f}x{late})")
        rows.append(f"| {name_of(arm)} | " + " | ".join(cells) + " |")
    return head + "\n".join(rows) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Quality over steps, gain over the plain model, the choice of tau, and the gradients' cosine."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = result["curves"]
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.6), layout="constrained")
    _draw_curves(axes[0][0], {arm: found[arm] for arm in NAMES}, result["floor"])
    _draw_gain(axes[0][1], found)
    _draw_ends(axes[1][0], found)
    draw_cosines(axes[1][1], result["trigger"])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curves(axis: Any, found: dict[str, Any], floor: float) -> None:
    for arm, curve in found.items():
        values = np.array(curve["frechet"])
        axis.plot(curve["steps"], values.mean(0), color=COLOURS[arm], label=name_of(arm))
        axis.fill_between(curve["steps"], values.min(0), values.max(0), color=COLOURS[arm], alpha=0.2, linewidth=0)
    axis.axhline(floor, color="black", linestyle=":", linewidth=1, label="real digits, as many")
    axis.set(yscale="log", xlabel="steps", ylabel="Fréchet distance, raw pixels", title="Quality over steps")
    axis.legend(fontsize=8)


def _draw_gain(axis: Any, found: dict[str, Any]) -> None:
    plain = dict(zip(found["none"]["steps"], np.array(found["none"]["frechet"]).T, strict=True))
    for place, (arm, curve) in enumerate((arm, curve) for arm, curve in found.items() if arm != "none"):
        ratio = np.array(
            [values / plain[step] for step, values in zip(curve["steps"], np.array(curve["frechet"]).T, strict=True)]
        )
        colour, style = (COLOURS[arm], "-") if arm in COLOURS else (ENDS[place % len(ENDS)], "--")
        axis.plot(curve["steps"], ratio.mean(1), style, color=colour, label=name_of(arm))
    axis.axhline(1, color=COLOURS["none"], linewidth=1)
    axis.set(xlabel="steps", ylabel="distance / plain's, same seed", title="Gain over the plain model (below 1)")
    axis.legend(fontsize=8)


def _draw_ends(axis: Any, found: dict[str, Any]) -> None:
    ends = {int(arm.removeprefix("haste-")): curve for arm, curve in found.items() if arm not in NAMES}
    last = found["none"]["steps"][-1]
    ends = {0: found["none"], **dict(sorted(ends.items())), last: found["haste-never"]}
    for step in sorted({1000, last} & set(found["none"]["steps"])):
        values = {tau: [row[c["steps"].index(step)] for row in c["frechet"]] for tau, c in ends.items() if tau <= step}
        taus, means = list(values), [np.mean(value) for value in values.values()]
        line = axis.errorbar(
            taus,
            means,
            [np.std(value, ddof=1) for value in values.values()],
            marker="o",
            capsize=3,
            label=f"after {step} steps",
        )
        for tau, value in values.items():
            axis.plot([tau] * len(value), value, ".", color=line[0].get_color(), alpha=0.4)
    axis.set(xlabel="tau: steps with alignment (0: plain; the last: never stopped)", ylabel="Fréchet distance")
    axis.set(title="When to stop HASTE", ylim=(0, None))
    axis.legend(fontsize=8)


def draw_cosines(axis: Any, looked: dict[str, Any]) -> None:
    """How the two gradients turn, time by time and in the mean, from what `trigger` found."""
    for place, t in enumerate(looked["times"]):
        axis.plot(looked["steps"], [row[place] for row in looked["cosine_by_time"]], linewidth=1, label=f"t = {t}")
    axis.plot(looked["steps"], np.mean(looked["mean_cosine"], axis=0), color="black", linewidth=2, label="mean")
    axis.axhline(looked["threshold"], color="black", linestyle=":", label="HASTE's threshold")
    axis.set(xlabel="steps", ylabel="cosine of the two gradients", title="Alignment against denoising (never stopped)")
    axis.set_ylim(top=max(0.3, 1.35 * np.max(looked["cosine_by_time"])))  # room for the legend
    axis.legend(fontsize=8, ncols=3, loc="upper right")
