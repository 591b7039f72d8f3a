"""How well does the embedded model of words draw what it is asked for, and how much of it has it seen?

    python benchmarks/emoji_quality.py                              # the embedded checkpoint
    python benchmarks/emoji_quality.py --weights runs/x/mmdit-ti-emoji-haste.safetensors

Prompts are names: seen ones, that it trains on, and held-out ones, that it does not, both known to the judge
(emoji_judge.py). Three questions: is a picture's own name the nearest to it of all that the judge knows; how far is it
from the nearest picture that was trained on; and is it a copy of that? Writes benchmarks/results/emoji_quality.json and
a picture beside it, the README's picture, and the table of docs/emoji.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from dated import RESULTS, date_and_device
from emoji_judge import Judge, nearest
from pages import updated

SEEN = 512  # prompts of names that are trained on; of the held-out ones all whose words are known
# Of a prompt that is copied, the nearest training picture is less than this share of the next one's distance away.
COPY = 1 / 3
DOCS = Path(__file__).parent.parent / "docs"
COMMAND = "emoji_quality.py"
# The README's: names that are trained on, taken by hand for being easy to know again; and what nobody drew.
TRAINED = (
    "red apple", "cat face", "rocket", "sunflower", "panda", "pizza", "soccer ball", "red heart", "octopus", "guitar",
    "waving hand: dark skin tone", "flag: France",
)  # fmt: skip
COLOURS = {"trained": "#444444", "held out": "#0072b2", "composed": "#d55e00"}
COMPOSED = ("smiling cat face", "blue apple", "purple star", "crying dog face", "green car", "smiling moon")


def classified(judge: Judge, prompt: str) -> str:
    """Whether a prompt is `trained` on, `held out`, or `composed` of words that are never together in a name."""
    from hastezoo.conditioning.words import split_words
    from hastezoo.data.emoji import is_in

    for emoji in judge.everything.emojis:
        if split_words(emoji.name) == split_words(prompt):
            return "trained" if is_in("train", emoji.plain) else "held out"
    return "composed"


def measure(pipeline: Any, judge: Judge, seen: int = SEEN) -> dict[str, Any]:
    """All numbers."""
    words = pipeline.config.words
    training = judge.everything.pixels[judge.training_rows]
    plain = [judge.everything.emojis[row].plain for row in judge.training_rows]

    def originality(pixels: np.ndarray) -> dict[str, Any]:
        return {
            "distance": _quantiles(nearest(pixels, training)[0]),
            "copies": float(copies(pixels, training, plain).mean()),
        }

    held_out = judge.names("held-out", words)
    numbers: dict[str, Any] = {"candidates": len(judge.candidates)}
    for kind, asked in {"seen": judge.names("seen", words)[:seen], "held_out": held_out}.items():
        drawn, real = pipeline(prompts=asked, seeds=range(len(asked))).pixels, judge.real(asked)
        which = nearest(drawn, training)[1]
        numbers[kind] = {
            "prompts": len(asked),
            "drawn": judge.retrieval(drawn, asked),
            "real": judge.retrieval(real, asked),
            "likeness_drawn": float(judge.likeness(drawn, asked).mean()),
            "likeness_real": float(judge.likeness(real, asked).mean()),
            **originality(drawn),
            "nearest_is_own_name": float(np.mean([plain[row] == name for row, name in zip(which, asked, strict=True)])),
        }
    # What a new picture could be expected to be away from all others.
    numbers["real_held_out"] = originality(judge.real(held_out))
    unknown = [name for name in judge.names("train") if name not in set(judge.candidates)]
    numbers["real_that_the_judge_never_saw"] = _among(judge, unknown)
    return numbers


def _among(judge: Judge, names: list[str]) -> dict[str, float]:
    """Retrieval of real pictures that the judge never saw, among all names: how far it goes beyond what it learned."""
    from hastezoo.conditioning.words import split_words
    from hastezoo.recipes.emoji_teacher import ranked

    known = set(judge.model.reader.numbers)
    names = [name for name in names if set(split_words(name)) <= known]
    return ranked(judge.model, judge.real(names), names, [*judge.candidates, *names])


def copies(drawn: np.ndarray, training: np.ndarray, plain: list[str]) -> np.ndarray:
    """(N,) whether each picture is far nearer to one training picture than to those of all other names.

    Args:
        drawn, training: uint8 (N, H, W, C), (M, H, W, C).
        plain: The names of the training pictures, without skin tones.
    """
    apart, which = nearest(drawn, training)
    names = np.array(plain)
    found = np.zeros(len(drawn), dtype=bool)
    for place, row in enumerate(which):
        others = training[names != names[row]]
        found[place] = apart[place] < COPY * nearest(drawn[place : place + 1], others)[0][0]
    return found


def _quantiles(distances: np.ndarray) -> dict[str, float]:
    return {
        name: round(float(np.quantile(distances, q)), 4) for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
    }


def twenty_four(judge: Judge, words: tuple[str, ...]) -> list[str]:
    """The prompts of the README's picture: 12 that are trained on, 6 composed ones, 6 held-out names in hash order."""
    held_out = [name for name in judge.names("held-out", words) if "flag" not in name]
    return [*TRAINED, *COMPOSED, *held_out[: 24 - len(TRAINED) - len(COMPOSED)]]


def look(pipeline: Any, judge: Judge, prompts: list[str]) -> list[dict[str, Any]]:
    """Each prompt with what it is, its picture, the nearest training picture, and the real one where there is one."""
    drawn = pipeline(prompts=prompts, seeds=[0] * len(prompts)).pixels
    rows = np.array(judge.training_rows)
    training = judge.everything.pixels[rows]
    names = [judge.everything.emojis[row].name for row in rows]
    apart, which = nearest(drawn, training)
    copied = copies(drawn, training, [judge.everything.emojis[row].plain for row in rows])
    real = {emoji.name: pixels for emoji, pixels in zip(judge.everything.emojis, judge.everything.pixels, strict=True)}
    return [
        {
            "prompt": prompt, "kind": classified(judge, prompt), "drawn": picture, "nearest": training[place],
            "real": real.get(prompt), "nearest_name": names[place], "distance": round(float(distance), 4),
            "copy": bool(copy),
        }
        for prompt, picture, place, distance, copy in zip(prompts, drawn, which, apart, copied, strict=True)
    ]  # fmt: skip


def _cells(rows: int, columns: int, size: tuple[float, float]) -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=size, layout="constrained")


def _put(cell: Any, pixels: np.ndarray | None, kind: str) -> None:
    """A picture in a frame of its kind's colour; nothing where there is none."""
    cell.set(xticks=[], yticks=[])
    if pixels is None:
        cell.set_frame_on(False)
        return
    cell.imshow(pixels, interpolation="nearest")
    for edge in cell.spines.values():
        edge.set_color(COLOURS[kind])


def draw_grid(looks: list[dict[str, Any]], path: Path) -> None:
    """The pictures with their prompts and what these are."""
    figure, cells = _cells(4, 6, (9.2, 7.2))
    for cell, one in zip(cells.flat, looks, strict=True):
        _put(cell, one["drawn"], one["kind"])
        cell.set_title("\n".join(textwrap.wrap(one["prompt"], 18)), fontsize=9)
        cell.set_xlabel(one["kind"], fontsize=8, color=COLOURS[one["kind"]])
    figure.savefig(path, dpi=100)


def draw_nearest(looks: list[dict[str, Any]], path: Path) -> None:
    """The same pictures above their nearest training picture, and the real one of the name where there is one."""
    half = len(looks) // 2
    figure, cells = _cells(6, half, (13, 7.8))
    for block, part in enumerate((looks[:half], looks[half:])):
        for column, one in enumerate(part):
            column_cells = cells[3 * block : 3 * block + 3, column]
            for cell, key in zip(column_cells, ("drawn", "nearest", "real"), strict=True):
                _put(cell, one[key], one["kind"])
            column_cells[0].set_title("\n".join(textwrap.wrap(one["prompt"], 16)), fontsize=7)
            copied = ", copied" if one["copy"] else ""
            column_cells[1].set_xlabel(f"{one['distance']:.2f}{copied}", fontsize=7)
        for row, said in enumerate(("drawn", "nearest\ntraining", "real")):
            cells[3 * block + row][0].set_ylabel(said, fontsize=8)
    figure.savefig(path, dpi=110)


def table_of(result: dict[str, Any]) -> str:
    """Markdown of what the page shows."""
    head = (
        "| pictures | prompts | own name nearest | among five nearest | RMS to nearest training picture | copies |\n"
        "|---|---|---|---|---|---|\n"
    )

    def row(said: str, kind: str, side: str, apart: dict[str, float] | None, copied: float | None) -> str:
        ranks, count = result[kind][side], result[kind]["prompts"]
        spread = "0" if apart is None else "{median:.3f} ({p10:.3f}, {p90:.3f})".format(**apart)
        share = "" if copied is None else f"{100 * copied:.1f} %"
        return (
            f"| {said} | {count} | {100 * ranks['top1']:.1f} % | {100 * ranks['top5']:.1f} % | {spread} | {share} |\n"
        )

    seen, held_out, real = result["seen"], result["held_out"], result["real_held_out"]
    return (
        head
        + row("drawn of names that are trained on", "seen", "drawn", seen["distance"], seen["copies"])
        + row("real ones of these", "seen", "real", None, None)
        + row("drawn of held-out names", "held_out", "drawn", held_out["distance"], held_out["copies"])
        + row("real ones of these", "held_out", "real", real["distance"], real["copies"])
        + f"| by chance | | {100 / result['candidates']:.1f} % | {500 / result['candidates']:.1f} % | | |\n"
    )


def seconds_of_eight() -> float:
    """What a newcomer waits for: a process that draws eight emoji and writes them."""
    prompts = [word for prompt in TRAINED[:8] for word in ("--prompt", prompt)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hastezoo", "sample", "--model", "mmdit-ti-emoji-haste", *prompts]
        began = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/out"], check=True, capture_output=True)
        return round(time.perf_counter() - began, 1)


@click.command()
@click.option("--weights", type=click.Path(path_type=Path, exists=True))
@click.option("--judge", "folder", type=click.Path(path_type=Path, exists=True), help="Instead of the recipes' own.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--docs", type=click.Path(path_type=Path), default=DOCS, show_default=True, help="Page and picture.")
def main(weights: Path | None, folder: Path | None, out: Path, docs: Path) -> None:
    """Measure the checkpoint of emoji."""
    from hastezoo.files import atomic_write, write_json
    from hastezoo.pipeline import Pipeline

    pipeline, judge = Pipeline.from_pretrained("mmdit-ti-emoji-haste", weights=weights), Judge(folder)
    looks = look(pipeline, judge, twenty_four(judge, pipeline.config.words))
    pictures = ("drawn", "nearest", "real")
    result = {
        "model": pipeline.card.name, "weights_sha256": pipeline.weights_sha256, **date_and_device(),
        **measure(pipeline, judge),
        "grid": [{key: value for key, value in one.items() if key not in pictures} for one in looks],
        "seconds_of_eight": seconds_of_eight() if weights is None else None,
    }  # fmt: skip
    # All at the end: what is stopped before leaves the pictures and the numbers of one checkpoint together.
    draw_grid(looks, docs / "images" / "emoji.png")
    draw_nearest(looks, out / "emoji_quality.png")
    write_json(out / "emoji_quality.json", result)
    page = docs / "emoji.md"
    atomic_write(page, updated(page.read_text(encoding="utf-8"), {"drawn": table_of(result)}, COMMAND).encode())
    click.echo(table_of(result))


if __name__ == "__main__":
    main()
