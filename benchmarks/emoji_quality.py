"""How well does the embedded model of words draw what it is asked for, and how much of it has it seen?

    python benchmarks/emoji_quality.py                              # the embedded checkpoint
    python benchmarks/emoji_quality.py --weights runs/x/mmdit-ti-emoji-haste.safetensors

Prompts are names: seen ones, that it trains on, and held-out ones, that it does not, both known to the judge
(emoji_judge.py). Three questions: is a picture's own name the nearest to it of all that the judge knows; how far is it
from the nearest picture that was trained on; and is that the picture of its own name? Writes
benchmarks/results/emoji_quality.json and a picture beside it, and the picture of the README.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from dated import RESULTS, date_and_device
from emoji_judge import Judge, nearest

SEEN = 512  # prompts of names that are trained on; of the held-out ones all whose words are known
# Of a prompt that is copied, the nearest training picture is less than this share of the next one's distance away.
COPY = 1 / 3
IMAGES = Path(__file__).parent.parent / "docs" / "images"
# The README's: names that are trained on, taken by hand for being easy to know again; and what nobody drew.
TRAINED = (
    "red apple", "cat face", "rocket", "sunflower", "panda", "pizza", "soccer ball", "red heart", "octopus", "guitar",
    "waving hand: dark skin tone", "flag: France",
)  # fmt: skip
COMPOSED = ("smiling cat face", "blue apple", "purple star", "crying dog face", "green car", "smiling moon")


def classified(judge: Judge, prompt: str) -> str:
    """Whether a prompt is `trained` on, `held out`, or `composed` of words that are never together in a name."""
    from hastezoo.conditioning.words import split_words
    from hastezoo.data.emoji import is_in

    for emoji in judge.everything.emojis:
        if split_words(emoji.name) == split_words(prompt):
            return "trained" if is_in("train", emoji.plain) else "held out"
    return "composed"


def measure(pipeline: Any, judge: Judge, seen: int = SEEN) -> tuple[dict[str, Any], dict[str, Any]]:
    """All numbers, and what the pictures show."""
    words = pipeline.config.words
    names = {"seen": judge.names("seen", words)[:seen], "held_out": judge.names("held-out", words)}
    training = judge.everything.pixels[judge.training_rows]
    plain = [judge.everything.emojis[row].plain for row in judge.training_rows]
    numbers: dict[str, Any] = {"candidates": len(judge.candidates), "chance_top1": 1 / len(judge.candidates)}
    shown: dict[str, Any] = {"training": training}
    for kind, asked in names.items():
        drawn = pipeline(prompts=asked, seeds=range(len(asked))).pixels
        real = judge.real(asked)
        apart, which = nearest(drawn, training)
        numbers[kind] = {
            "prompts": len(asked),
            "drawn": judge.retrieval(drawn, asked),
            "real": judge.retrieval(real, asked),
            "likeness_drawn": float(judge.likeness(drawn, asked).mean()),
            "likeness_real": float(judge.likeness(real, asked).mean()),
            "distance_to_nearest_training_picture": _quantiles(apart),
            "copies": float(copies(drawn, training, plain).mean()),
            "nearest_is_own_name": float(np.mean([plain[row] == name for row, name in zip(which, asked, strict=True)])),
        }
        shown[kind] = {"names": asked, "drawn": drawn, "real": real, "nearest": training[which], "apart": apart}
    # How far apart different real pictures are: what a new picture could be expected to be away from all others.
    apart, _ = nearest(judge.real(names["held_out"]), training)
    numbers["real_held_out_to_nearest_training_picture"] = _quantiles(apart)
    unknown = judge.names("train")
    unknown = [name for name in unknown if name not in set(judge.candidates)]
    numbers["real_that_the_judge_never_saw"] = _among(judge, unknown)
    return numbers, shown


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


def draw_grid(pipeline: Any, judge: Judge, path: Path) -> dict[str, str]:
    """Two dozen prompts with what they are; each prompt's kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    prompts = twenty_four(judge, pipeline.config.words)
    drawn = pipeline(prompts=prompts, seeds=[0] * len(prompts)).pixels
    kinds = {prompt: classified(judge, prompt) for prompt in prompts}
    figure, cells = plt.subplots(4, 6, figsize=(9.2, 7.2), layout="constrained")
    colours = {"trained": "#444444", "held out": "#0072b2", "composed": "#d55e00"}
    for cell, prompt, pixels in zip(cells.flat, prompts, drawn, strict=True):
        cell.imshow(pixels, interpolation="nearest")
        cell.set(xticks=[], yticks=[])
        cell.set_title(prompt.replace(": ", ":\n"), fontsize=9)
        cell.set_xlabel(kinds[prompt], fontsize=8, color=colours[kinds[prompt]])
        for edge in cell.spines.values():
            edge.set_color(colours[kinds[prompt]])
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return kinds


def draw_nearest(shown: dict[str, Any], path: Path, columns: int = 12) -> None:
    """Pictures above their nearest training picture and the real one of the name, seen names and held-out ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, cells = plt.subplots(6, columns, figsize=(12, 7.4), layout="constrained")
    for block, kind in enumerate(("seen", "held_out")):
        found = shown[kind]
        for row, key in enumerate(("drawn", "nearest", "real")):
            for column in range(columns):
                cell = cells[3 * block + row][column]
                cell.imshow(found[key][column], interpolation="nearest")
                cell.set(xticks=[], yticks=[])
                if row == 0:
                    cell.set_title("\n".join(_lines(found["names"][column])), fontsize=6)
            cells[3 * block + row][0].set_ylabel(
                {"drawn": f"{kind.replace('_', '-')}:\ndrawn", "nearest": "nearest\ntraining", "real": "real"}[key],
                fontsize=8,
            )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _lines(name: str, width: int = 16) -> list[str]:
    import textwrap

    return textwrap.wrap(name, width)[:3]


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
@click.option("--images", type=click.Path(path_type=Path), default=IMAGES, show_default=True)
def main(weights: Path | None, folder: Path | None, out: Path, images: Path) -> None:
    """Measure the checkpoint of emoji."""
    from hastezoo.files import write_json
    from hastezoo.pipeline import Pipeline

    pipeline, judge = Pipeline.from_pretrained("mmdit-ti-emoji-haste", weights=weights), Judge(folder)
    numbers, shown = measure(pipeline, judge)
    kinds = draw_grid(pipeline, judge, images / "emoji.png")
    draw_nearest(shown, out / "emoji_quality.png")
    result = {
        "model": pipeline.card.name, "weights_sha256": pipeline.weights_sha256, **date_and_device(), **numbers,
        "grid": kinds, "seconds_of_eight": seconds_of_eight() if weights is None else None,
    }  # fmt: skip
    write_json(out / "emoji_quality.json", result)
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
