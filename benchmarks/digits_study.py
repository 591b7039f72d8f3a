"""What does alignment buy on the digits, and when should it end? Five arms, several ends, three seeds.

    python benchmarks/digits_study.py train        # resumable; about an hour and a quarter on two cores
    python benchmarks/digits_study.py report       # JSON and curves into benchmarks/results, tables into docs/

The budget, written down before it began: 12 runs of 2000 steps and 15 tails, 42,000 steps of 64 digits at 0.13 s on one
core, and 180 looks of 12 s: two hours and a half of one core. Two of five ends were left out on the way.

Each arm trains from the same initial weights, order, times and noise; arms that end at tau fork from the checkpoint of
the arm that never ends, which is the same to the bit as training them from nothing. Quality is judged by nothing that
the teacher has to do with: the Fréchet distance of 1000 samples to the real digits on raw pixels, and the share that a
support-vector classifier takes for the class asked for. Samples are drawn without guidance by the EMA.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from dated import RESULTS, date_and_device
from pages import updated
from waves import train_in_waves

STEPS = 2000
LOOKS = (250, 375, 500, 625, 750, 1000, 1250, 1500, 2000)
TAUS = (250, 500, 1000)
SEEDS = (0, 1, 2)
ARMS = ("none", "haste-never", "repa", "attention")
SAMPLES, SOLVER_STEPS = 1000, 8
MATCHED = (500, 750, 1000, 2000)  # of the plain model, whose quality others are to reach
SHOWN = (500, 750, 1000, 2000)
PAGE = Path(__file__).parent.parent / "docs" / "haste-on-a-laptop.md"
COMMAND = "digits_study.py report"
# The average of the recipe (0.999) would hold the initial weights for the first thousand steps.
EMA_DECAY = 0.99


def settings(seed: int, tau: int | None) -> list[str]:
    """What the study changes of the recipe."""
    values: dict[str, Any] = {
        "train.seed": seed, "train.steps": STEPS, "train.ema_decay": EMA_DECAY, "train.sample_every": 0,
        "train.log_every": 25, "train.checkpoint_every": 500, "train.keep": 1, "train.diagnose_every": 250,
    }  # fmt: skip
    if tau is not None:
        values |= {"alignment.termination.kind": "step", "alignment.termination.step": tau}
    return [f"{key}={value}" for key, value in values.items()]


def runs(seeds: tuple[int, ...]) -> Iterator[tuple[str, str, int, int | None]]:
    """(name, arm, seed, tau), the ones that others fork from first."""
    for seed in seeds:
        for arm in ARMS:
            yield f"{arm}-{seed}", arm, seed, None
    for seed in seeds:
        for tau in TAUS:
            yield f"haste-{tau}-{seed}", "haste-never", seed, tau


class Judge:
    """Draws with a run's EMA and says how good the digits are."""

    def __init__(self) -> None:
        from sklearn.svm import SVC

        from hastezoo.data import digits
        from hastezoo.evaluation.statistics import Moments

        images, labels = digits.load("train")
        self.classifier = SVC(gamma=0.001).fit(images, labels)
        self.real = Moments.of(digits.load("all")[0])

    def __call__(self, model: Any, device: Any) -> dict[str, float]:
        """Fréchet distance on pixels and share recognised."""
        import torch

        from hastezoo.data import digits
        from hastezoo.evaluation.metrics import frechet_distance
        from hastezoo.evaluation.statistics import Moments
        from hastezoo.pipeline import Pipeline
        from hastezoo.zoo.registry import find_card

        pipeline = Pipeline(model, find_card("sit-ti-digits"), device=device, dtype=torch.float32)
        asked = np.arange(SAMPLES) % 10
        output = pipeline(classes=asked.tolist(), seeds=range(SAMPLES), protocol="digits-nocfg", steps=SOLVER_STEPS)
        images = digits.from_bytes(output.pixels)
        return {
            "frechet": frechet_distance(Moments.of(images), self.real),
            "recognised": float((self.classifier.predict(images) == asked).mean()),
        }


def train_one(name: str, arm: str, seed: int, tau: int | None, out: Path, looks: tuple[int, ...] = LOOKS) -> None:
    """One run, or the rest of it; `quality.jsonl` beside its metrics holds what the judge said."""
    from hastezoo.recipes import digits
    from hastezoo.training.config import configure
    from hastezoo.training.loop import Hook
    from hastezoo.training.tracking import JsonLines

    config = configure(digits.DigitsConfig(alignment=digits.ARMS[arm]), None, settings(seed, tau))
    if arm == "haste-never" and tau is None:
        train = config.train.model_copy(update={"keep_at": TAUS})
        config = config.model_copy(update={"train": train})
    judge, folder, lines = Judge(), out / name, []

    def look(run: Any) -> None:
        if not lines:
            lines.append(JsonLines(folder / "quality.jsonl", run.step - 1))
        lines[0].log(step=run.step, **judge(run.ema.model, run.processes.device))

    origin = None if tau is None else out / f"haste-never-{seed}" / "checkpoints" / f"step-{tau:08d}.pt"
    digits.run(name, config, folder, device="cpu", quiet=True, origin=origin, hooks=[Hook(0, look, tuple(looks))])


@click.group()
def main() -> None:
    """The study of alignment on the digits."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/study"), show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Runs at a time, a thread each.")
@click.option("--only", help="One run by name; used by the command itself.")
def train(out: Path, jobs: int, only: str | None) -> None:
    """Train every run that is not finished."""
    plan = {name: rest for name, *rest in runs(SEEDS)}
    if only:
        import torch

        torch.set_num_threads(1)
        train_one(only, *plan[only], out)
        return
    train_in_waves(__file__, plan, out, jobs)


@main.command()
@click.option("--runs", "folder", type=click.Path(path_type=Path, exists=True), default=Path("runs/study"))
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="The document whose tables are rewritten.")
def report(folder: Path, out: Path, page: Path) -> None:
    """Say what the runs found."""
    import digits_report
    from digits_quality import bootstrap_floor

    from hastezoo.data import digits
    from hastezoo.files import atomic_write, write_json

    arms = [*digits_report.NAMES, *(f"haste-{tau}" for tau in TAUS)]
    found = digits_report.curves(folder, arms, SEEDS)
    floor, spread = bootstrap_floor(digits.load("all")[0], SAMPLES)
    result = {
        **date_and_device(),
        "settings": {"steps": STEPS, "taus": TAUS, "seeds": SEEDS, "samples": SAMPLES, "ema_decay": EMA_DECAY},
        "floor": floor, "floor_std": spread, "curves": found, "steps_needed": digits_report.speedups(found, MATCHED),
        "trigger": digits_report.trigger(folder, SEEDS, -0.05),
    }  # fmt: skip
    write_json(out / "digits_study.json", result)
    digits_report.draw(result, out / "digits_study.png")
    atomic_write(page, updated(page.read_text(encoding="utf-8"), tables_of(result), COMMAND).encode())
    click.echo(digits_report.quality_table(found, SHOWN))
    click.echo(digits_report.speed_table(result["steps_needed"], MATCHED))


def tables_of(result: dict[str, Any]) -> dict[str, str]:
    """The page's tables, by name."""
    import digits_report

    return {
        "quality": digits_report.quality_table(result["curves"], SHOWN),
        "steps": digits_report.speed_table(result["steps_needed"], MATCHED),
    }


if __name__ == "__main__":
    main()
