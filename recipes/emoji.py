"""Trains the embedded model that draws emoji from words, on two CPU cores or on a GPU.

    python -m hastezoo.recipes.emoji                            # mmdit-ti-emoji-haste into runs/mmdit-ti-emoji-haste
    python -m hastezoo.recipes.emoji --arm repa --set train.steps=2000 --out runs/repa
    python -m hastezoo.recipes.emoji --font ~/NotoColorEmoji.ttf --names ~/emoji-test.txt
    torchrun --nproc-per-node 2 -m hastezoo.recipes.emoji

Pictures and names are Debian's packages fonts-noto-color-emoji and unicode-data, or files that you name.
Ctrl-C keeps a checkpoint; the same command goes on from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ConfigDict, Field

from hastezoo.alignment.config import AlignmentConfig, TeacherConfig, TerminationConfig
from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError
from hastezoo.training.config import OptimizerConfig, TimeLaw, TrainConfig, configure

from . import running
from .emoji_teacher import TEACHERS
from .hooks import diagnoses, sample_grids
from .running import Parts, create, recipe_options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hastezoo.alignment.holistic import HolisticAlignment
    from hastezoo.data.emoji import EmojiImages
    from hastezoo.pipeline import Pipeline
    from hastezoo.processes import Processes
    from hastezoo.training.loop import Hook

CHECKPOINT = "mmdit-ti-emoji-haste"
SHIPPED_NAME = "emoji-vit"  # stands for the teacher beside the recipes, wherever they are installed
TAU = 2_000  # steps with alignment: a guess, since the advantage still grows at step 1000 of benchmarks/emoji_study.py
WORDS = 16  # of a prompt
HASTE = AlignmentConfig(
    teacher=TeacherConfig(name=SHIPPED_NAME),
    feature_layer=3,
    attention_pairs=((1, 4), (2, 5)),
    projector_width=512,
    termination=TerminationConfig(kind="step", step=TAU, start=500, every=500, images=512, block=1),
)
NEVER = HASTE.termination.model_copy(update={"kind": "never", "step": None})
ARMS: dict[str, AlignmentConfig | None] = {
    "none": None,
    "repa": HASTE.model_copy(update={"attention_weight": 0.0, "termination": NEVER}),
    "attention": HASTE.model_copy(update={"feature_weight": 0.0}),
    "haste": HASTE,
    "haste-never": HASTE.model_copy(update={"termination": NEVER}),
}
# What grids of samples show while it trains: names that are trained on, then prompts that are not.
SHOWN = (
    "red apple", "cat face", "rocket", "sunflower", "panda", "pizza", "soccer ball", "red heart",
    "guitar", "octopus", "waving hand: dark skin tone", "flag: France",
    "blue apple", "purple star", "smiling sun", "red book", "green car", "crying dog face",
)  # fmt: skip


class EmojiData(BaseModel):
    """Which pictures and names.

    Attributes:
        font: Noto Color Emoji; None for Debian's. It may lie elsewhere when a run goes on.
        names: Unicode's emoji-test.txt; None for Debian's; as the font.
        fingerprint: Of pictures and names; filled in when a run begins, and held against them when it goes on.
        limit: The first so many names only, for trials.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    font: Path | None = None
    names: Path | None = None
    fingerprint: str = ""
    limit: int | None = Field(None, ge=1)


class EmojiConfig(BaseModel):
    """What is trained, and how.

    Attributes:
        architecture, model: Registered name and the values that override its own. The vocabulary is filled in when a
            run begins: the words of the names that it trains on.
        data: The emoji.
        train: The loop's settings.
        alignment: With which teacher and how; None for a plain model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str = "word_mmdit_ti"
    model: dict[str, Any] = {
        "input_size": 32, "in_channels": 3, "context_length": WORDS, "qk_norm": True, "adaln_zero": True,
    }  # fmt: skip
    data: EmojiData = EmojiData()
    train: TrainConfig = TrainConfig(
        steps=9_000,
        batch_size=64,
        optimizer=OptimizerConfig(lr=1e-3, weight_decay=0.01, warmup_steps=200),
        ema_decay=0.999,
        precision="bf16",
        times=TimeLaw(kind="lognormal"),
    )
    alignment: AlignmentConfig | None = None


def open_data(config: EmojiConfig) -> EmojiImages:
    """The names to train on, with the vocabulary of the settings, or their own where these have none.

    Raises:
        UserError: If font or names are not to be had.
    """
    from hastezoo.data.emoji import FONT, NAMES, EmojiImages

    data, model = config.data, config.model
    return EmojiImages(
        "train",
        model.get("context_length", WORDS),
        font=data.font or FONT,
        names=data.names or NAMES,
        words=model.get("words"),
        limit=data.limit,
    )


def align(config: AlignmentConfig, model: nn.Module, device: torch.device) -> HolisticAlignment:
    """Alignment of a model with the teacher that the config names, or with the one that ships."""
    from hastezoo.alignment.holistic import create_alignment

    if config.teacher.name == SHIPPED_NAME:
        teacher = config.teacher.model_copy(update={"name": f"local-dir:{TEACHERS / SHIPPED_NAME}"})
        config = config.model_copy(update={"teacher": teacher})
    return create_alignment(config, model, device)


def _pictures(out: Path, config: EmojiConfig, samples: EmojiImages, processes: Processes) -> Hook:
    """Grids of the prompts of `SHOWN` whose words are known."""
    import torch

    from hastezoo.pipeline import Pipeline
    from hastezoo.zoo.registry import find_card

    def pipeline_of(network: nn.Module) -> Pipeline:
        return Pipeline(network, find_card(CHECKPOINT), device=processes.device, dtype=torch.float32)

    def is_known(prompt: str) -> bool:
        try:
            return bool(samples.reader.read(prompt))
        except UserError:
            return False

    shown = [prompt for prompt in SHOWN if is_known(prompt)] or [samples.emojis[0].name]
    return sample_grids(out, config.train.sample_every, pipeline_of, shown, [0] * len(shown), columns=6)


def assemble(config: EmojiConfig, samples: EmojiImages, out: Path, processes: Processes) -> Parts:
    """The model, the emoji, the teacher."""
    import torch

    from hastezoo.training.record import RunRecord, typed_command
    from hastezoo.zoo.card import Text

    model = create(config)
    seen: Any = model.config
    if (seen.in_channels, *seen.size) != samples.shape:
        raise UserError("model: the emoji are 3 x 32 x 32; set in_channels and input_size so")
    alignment = None if config.alignment is None else align(config.alignment, model, processes.device)
    record = RunRecord(
        recipe="emoji",
        checkpoint=CHECKPOINT,
        command=typed_command("hastezoo.recipes.emoji"),
        device=str(processes.device),
        processes=processes.count,
        data=f"{len(samples.emojis)} emoji of {len(samples)} names, drawn from {samples.font.name}",
        samples=len(samples),
        text=Text(kind="words", length=seen.context_length),
        resolution=samples.shape[1],
    )

    def hooks() -> list[Hook]:
        measured = (config.alignment or HASTE).model_copy(update={"attention_weight": 0.5})
        looks = diagnoses(config.train, lambda: align(measured, model, processes.device), samples, processes)
        return [_pictures(out, config, samples, processes), *looks]

    null = torch.zeros(seen.context_length, dtype=torch.int64)
    return Parts(model, samples, alignment, record, hooks, null)


def run(checkpoint: str, config: EmojiConfig, out: Path, **options: Any) -> None:
    """Train into `out`, going on if it holds a run, until it is finished. Options and errors are `running.run`'s."""
    samples = open_data(config)
    data = config.data.model_copy(update={"fingerprint": samples.fingerprint})
    config = config.model_copy(update={"data": data, "model": {**config.model, "words": samples.words}})
    running.run(checkpoint, config, out, lambda processes: assemble(config, samples, out, processes), **options)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--arm", type=click.Choice(list(ARMS)), default="haste", show_default=True, help="How to train.")
@click.option("--font", type=click.Path(path_type=Path), help="Noto Color Emoji, where it is not Debian's.")
@click.option("--names", type=click.Path(path_type=Path), help="Unicode's emoji-test.txt, where it is not Debian's.")
@recipe_options
@reporting_errors
def main(
    arm: str,
    font: Path | None,
    names: Path | None,
    out: Path | None,
    file: Path | None,
    settings: tuple[str, ...],
    origin: Path | None,
    device: str,
    fresh: bool,
    quiet: bool,
) -> None:
    """Train a model that draws emoji from words, from nothing; run again to go on."""
    checkpoint = CHECKPOINT if arm == "haste" else f"mmdit-ti-emoji-{arm}"
    config = EmojiConfig(alignment=ARMS[arm], data=EmojiData(font=font, names=names))
    out = out or Path("runs") / checkpoint
    run(checkpoint, configure(config, file, settings), out, device=device, fresh=fresh, quiet=quiet, origin=origin)


if __name__ == "__main__":
    main()
