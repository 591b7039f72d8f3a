"""What `scaling.py` found, as tables and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAMES = {"sit_b_2": "SiT-B/2", "sit_l_2": "SiT-L/2", "sit_xl_2": "SiT-XL/2", "mmdit_coco": "MMDiT (COCO)"}
ENGINES = {"ddp": "DDP", "fsdp": "FSDP", "alone": "alone"}
SAVERS = {
    "alone": "one file", "alone, shards": "shards", "ddp": "one file (DDP)", "fsdp": "shards (FSDP)",
}  # fmt: skip
LAYOUTS = {"ddp": "DDP", "fsdp": "FSDP", "hybrid": "hybrid, shards of 8"}
FABRICS = {
    "8xinfiniband-ndr": "8 x 400 Gb/s InfiniBand",
    "1xroce-100g": "1 x 100 Gb/s RoCE",
    "1xethernet-25g": "1 x 25 Gb/s Ethernet",
}
COLOURS = {"ddp": "#0072b2", "fsdp": "#009e73", "hybrid": "#d55e00"}
SHOWN = ("8", "16", "64", "256")  # GPUs


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def dominates_table(result: dict[str, Any]) -> str:
    """From how many GPUs on communication dominates; in brackets, where it is another number, without latency."""

    def cell(point: dict[str, int | None]) -> str:
        whole, alone = (str(count) if count else "never" for count in (point["from"], point["by_bandwidth"]))
        return whole if whole == alone else f"{whole} ({alone})"

    rows = [
        [NAMES[name], FABRICS[place], *(cell(points[layout]) for layout in LAYOUTS)]
        for name, model in result["models"].items()
        for place, points in model["dominates"].items()
    ]
    return markdown(["model", "a node's way out", *LAYOUTS.values()], rows)


def times_table(result: dict[str, Any], place: str = "8xinfiniband-ndr") -> str:
    """Computing, communicating and both bounds, by GPUs."""

    def cell(found: dict[str, float]) -> str:
        return f"{found['communication']:.1f}; {found['least']:.1f} to {found['most']:.1f}"

    rows = [
        [
            NAMES[name],
            count,
            f"{steps['ddp'][count]['compute']:.1f}",
            *(cell(steps[layout][count]) for layout in LAYOUTS),
        ]
        for name, steps in ((name, model["milliseconds"][place]) for name, model in result["models"].items())
        for count in SHOWN
    ]
    return markdown(["model", "GPUs", "computing, ms", *(f"{name}, ms" for name in LAYOUTS.values())], rows)


def shares_table(result: dict[str, Any]) -> str:
    """What lies on a GPU, and what a process writes."""
    rows = []
    for name, model in result["models"].items():
        shares = model["shares"].values()
        rows.append(
            [
                NAMES[name],
                *(f"{(one['state_bytes'] + one['transit_bytes']) / 1e9:.2f}" for one in shares),
                *(f"{one['checkpoint_bytes'] / 1e9:.2f}, {one['seconds_to_write']:.1f} s" for one in shares),
            ]
        )
    counts = list(result["models"]["sit_b_2"]["shares"])
    head = [f"GB a GPU, {count}" for count in counts] + [f"GB a process writes, {count}" for count in counts]
    return markdown(["model", *head], rows)


def model_tables(result: dict[str, Any]) -> str:
    """All of them."""
    return "\n".join((dominates_table(result), times_table(result), shares_table(result)))


def draw(result: dict[str, Any], path: Path) -> None:
    """Time of a step against GPUs: a column a model, a row a fabric."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    models, places = ("sit_b_2", "sit_l_2", "sit_xl_2"), ("8xinfiniband-ndr", "1xethernet-25g")
    figure, axes = plt.subplots(
        len(places), len(models), figsize=(11.5, 7.4), sharex=True, sharey="row", layout="constrained"
    )
    for row, place in zip(axes, places, strict=True):
        for axis, name in zip(row, models, strict=True):
            model = result["models"][name]
            _draw_panel(axis, model["milliseconds"][place], model["dominates"][place])
            axis.set_title(f"{NAMES[name]}, {FABRICS[place]} a node", fontsize=10)
        row[0].set_ylabel("milliseconds of a step")
    for axis in axes[-1]:
        axis.set_xlabel("GPUs (H100, 8 a node), 256 images together")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", ncols=3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_panel(axis: Any, steps: dict[str, Any], points: dict[str, Any]) -> None:
    computing = {int(count): found["compute"] for count, found in steps["ddp"].items()}
    axis.plot(list(computing), list(computing.values()), color="black", linewidth=1.6, label="computing")
    for layout in ("ddp", "hybrid"):
        found = {int(count): one for count, one in steps[layout].items() if one["communication"]}
        counts, colour = list(found), COLOURS[layout]
        bounds = ([one[key] for one in found.values()] for key in ("least", "most"))
        axis.fill_between(counts, *bounds, color=colour, alpha=0.28, linewidth=0, label=f"step, {LAYOUTS[layout]}")
        talking = [one["communication"] for one in found.values()]
        axis.plot(counts, talking, "--", color=colour, linewidth=1.3, label=f"communicating, {LAYOUTS[layout]}")
        first = points[layout]["from"]
        if first in found:
            label = "outlasts the backward pass" if layout == "hybrid" else None
            axis.plot([first], [found[first]["communication"]], "o", color=colour, markersize=6, label=label)
    axis.set(xscale="log", yscale="log")
    axis.set_xticks([1, 2, 4, 8, 16, 32, 64, 128, 256], ["1", "2", "4", "8", "16", "32", "64", "128", "256"])
    axis.minorticks_off()
    axis.grid(alpha=0.25, linewidth=0.6)


def measured_tables(result: dict[str, Any]) -> str:
    """Steps against the model's bounds; and what saving costs."""
    return "\n".join((steps_table(result), saving_table(result)))


def ranged(values: dict[str, float], digits: int = 3) -> str:
    """Median and range."""
    return f"{values['median']:.{digits}f} ({values['least']:.{digits}f}..{values['most']:.{digits}f})"


def steps_table(result: dict[str, Any]) -> str:
    """Measured seconds of a step, and the bounds."""
    rows = [
        [
            count,
            ENGINES[engine],
            ranged(step["seconds"]),
            f"{1 / step['seconds']['median']:.2f}",
            f"{found['gflops_each']:.1f}",
            f"{step['compute']:.3f}",
            f"{step['communication']:.3f}",
            f"{step['least']:.3f} to {step['most']:.3f}",
        ]
        for count, found in result["processes"].items()
        for engine, step in found["steps"].items()
    ]
    head = [
        "processes",
        "engine",
        "measured, s",
        "steps/s",
        "GFLOP/s each",
        "computing, s",
        "communicating, s",
        "model, s",
    ]
    return markdown(head, rows)


def saving_table(result: dict[str, Any]) -> str:
    """What saving costs, beside a step."""
    rows = [
        [
            count,
            SAVERS[kind],
            batch,
            ranged(saving["step_seconds"]),
            ranged(saving["blocked_seconds"]),
            f"{saving['blocked_seconds']['median'] / saving['step_seconds']['median']:.0%}",
            ranged(saving["slowed_seconds"]) if saving["slowed_seconds"] else "-",
            f"{saving['written_seconds']['median']:.2f}",
        ]
        for count, found in result["processes"].items()
        for kind, batches in found["saving"].items()
        for batch, saving in batches.items()
    ]
    head = ["processes", "checkpoint", "samples", "a step, s", "save() blocks, s", "of a step"]
    head += ["a step meanwhile, s", "until written, s"]
    return markdown(head, rows)
