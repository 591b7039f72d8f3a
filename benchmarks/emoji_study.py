"""What does alignment buy on emoji, from words, and when should it end? Three arms, an early end, two seeds.

    python benchmarks/emoji_study.py train        # resumable; some hours on two cores
    python benchmarks/emoji_study.py report       # JSON and curves into benchmarks/results, tables into docs/emoji.md

Each arm trains from the same initial weights, order, captions, times and noise; the arm that ends at tau forks from the
checkpoint of the arm that never ends, which is the same to the bit as training them from nothing. The settings are the
recipe's, but for the length and the average's decay. Judges have nothing to do with the teacher: a network that learned
another split of pictures and names, and the real pictures themselves.
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

STEPS = 1000
LOOKS = (250, 375, 500, 750, 1000)
TAUS = (500,)
SEEDS = (0, 1)
ARMS = ("none", "haste-never", "repa")
SEEN, HELD_OUT = 192, 64  # prompts of a look
SOLVER_STEPS, CFG = 8, 3.0
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the denoising loss on pictures that nobody trains on
MATCHED = (500, 750, 1000)  # of the plain model, whose quality others are to reach
PAGE = Path(__file__).parent.parent / "docs" / "emoji.md"
COMMAND = "emoji_study.py report"
EMA_DECAY = 0.99  # the recipe's would hold the initial weights for too long


def settings(seed: int, arm: str, tau: int | None) -> list[str]:
    """What the study changes of the recipe."""
    values: dict[str, Any] = {
        "train.seed": seed, "train.steps": STEPS, "train.ema_decay": EMA_DECAY, "train.sample_every": 0,
        "train.log_every": 25, "train.checkpoint_every": 125, "train.keep": 1,
    }  # fmt: skip
    if arm == "haste-never" and tau is None:
        values |= {"train.diagnose_every": 250, "alignment.termination.images": 128}
    if tau is not None:
        values |= {"alignment.termination.kind": "step", "alignment.termination.step": tau}
        values |= {"alignment.termination.images": 128}
    return [f"{key}={value}" for key, value in values.items()]


def runs(seeds: tuple[int, ...]) -> Iterator[tuple[str, str, int, int | None]]:
    """(name, arm, seed, tau), the ones that others fork from first."""
    for seed in seeds:
        for arm in ARMS:
            yield f"{arm}-{seed}", arm, seed, None
    for seed in seeds:
        for tau in TAUS:
            yield f"haste-{tau}-{seed}", "haste-never", seed, tau


class Looking:
    """Draws with a run's average and says how good the emoji are."""

    def __init__(self, words: tuple[str, ...]) -> None:
        from emoji_judge import Judge

        from hastezoo.data.emoji import EmojiImages

        self.judge = Judge()
        self.names = {
            "seen": self.judge.names("seen", words)[:SEEN],
            "held_out": self.judge.names("held-out", words)[:HELD_OUT],
        }
        self.unseen = EmojiImages("held-out", words=words)

    def __call__(self, model: Any, device: Any) -> dict[str, float]:
        """Retrieval of seen and of held-out names, the distance to the real picture, the loss on unseen pictures."""
        import torch

        from hastezoo.pipeline import Pipeline
        from hastezoo.recipes.emoji import CHECKPOINT
        from hastezoo.zoo.registry import find_card

        pipeline = Pipeline(model, find_card(CHECKPOINT), device=device, dtype=torch.float32)
        found = {}
        for kind, names in self.names.items():
            drawn = pipeline(prompts=names, seeds=range(len(names)), steps=SOLVER_STEPS, cfg=CFG).pixels
            ranks = self.judge.retrieval(drawn, names)
            found |= {f"{kind}_top1": ranks["top1"], f"{kind}_top5": ranks["top5"]}
            apart = drawn.astype(np.float64) - self.judge.real(names)
            found[f"{kind}_error"] = float(np.sqrt(np.square(apart / 255).mean((1, 2, 3))).mean())
        return {**found, "unseen_loss": self.loss(model)}

    def loss(self, model: Any) -> float:
        """The denoising loss of pictures of held-out names, at fixed times and noise, without their captions."""
        import torch

        from hastezoo.sampling.interpolants import Linear, noisy, velocity

        rows = [family[0] for family in self.unseen.families]
        data = torch.from_numpy(self.unseen.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
        source, losses = torch.Generator().manual_seed(0), []
        with torch.inference_mode():
            for time in TIMES:
                noise, t = torch.randn(data.shape, generator=source), torch.full((len(data),), time)
                where, null = t.view(-1, 1, 1, 1), model.blank_condition(len(data))
                answer = model(noisy(Linear(), data, noise, where), t, null)
                losses.append(float((answer - velocity(Linear(), data, noise, where)).square().mean()))
        return float(np.mean(losses))


def train_one(name: str, arm: str, seed: int, tau: int | None, out: Path, looks: tuple[int, ...] = LOOKS) -> None:
    """One run, or the rest of it; `quality.jsonl` beside its metrics holds what the judges said."""
    from hastezoo.recipes import emoji
    from hastezoo.training.config import configure
    from hastezoo.training.loop import Hook
    from hastezoo.training.tracking import JsonLines

    config = configure(emoji.EmojiConfig(alignment=emoji.ARMS[arm]), None, settings(seed, arm, tau))
    if arm == "haste-never" and tau is None:
        train = config.train.model_copy(update={"keep_at": TAUS})
        config = config.model_copy(update={"train": train})
    folder = out / name
    made: list[Any] = []

    def look(run: Any) -> None:
        if not made:
            made.extend([Looking(run.ema.model.config.words), JsonLines(folder / "quality.jsonl", run.step - 1)])
        made[1].log(step=run.step, **made[0](run.ema.model, run.processes.device))

    origin = None if tau is None else out / f"haste-never-{seed}" / "checkpoints" / f"step-{tau:08d}.pt"
    emoji.run(name, config, folder, device="cpu", quiet=True, origin=origin, hooks=[Hook(0, look, tuple(looks))])


def tables_of(result: dict[str, Any]) -> dict[str, str]:
    """Markdown of what the page shows, by the name of its place."""
    import digits_report
    import emoji_report

    return {
        "quality": emoji_report.quality_table(result["curves"], LOOKS),
        "steps": digits_report.speed_table(result["steps_needed"], MATCHED, STEPS),
    }


@click.group()
def main() -> None:
    """The study of alignment on emoji."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/emoji-study"), show_default=True)
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
@click.option("--runs", "folder", type=click.Path(path_type=Path, exists=True), default=Path("runs/emoji-study"))
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, help="The document whose tables are rewritten.")
def report(folder: Path, out: Path, page: Path) -> None:
    """Say what the runs found."""
    import digits_report
    import emoji_report

    from hastezoo.files import atomic_write, write_json

    arms = [*ARMS, *(f"haste-{tau}" for tau in TAUS)]
    found = digits_report.curves(folder, arms, SEEDS, emoji_report.MEASURES)
    needed = digits_report.speedups(found, MATCHED, emoji_report.FALLING)
    result = {
        **date_and_device(),
        "settings": {
            "steps": STEPS, "taus": TAUS, "seeds": SEEDS, "seen": SEEN, "held_out": HELD_OUT, "ema_decay": EMA_DECAY,
            "solver_steps": SOLVER_STEPS, "cfg": CFG,
        },
        "curves": found, "steps_needed": needed, "trigger": digits_report.trigger(folder, SEEDS, -0.05),
    }  # fmt: skip
    write_json(out / "emoji_study.json", result)
    emoji_report.draw(result, out / "emoji_study.png")
    tables = tables_of(result)
    atomic_write(page, updated(page.read_text(encoding="utf-8"), tables, COMMAND).encode())
    click.echo("\n".join(tables.values()))


if __name__ == "__main__":
    main()
