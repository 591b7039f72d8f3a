"""Trains the small ViT that teaches the emoji's students, or the one that judges what they draw.

    python -m hastezoo.recipes.emoji_teacher                     # the teacher, into runs/emoji-vit
    python -m hastezoo.recipes.emoji_teacher --judge             # the judge, into runs/emoji-judge
    python -m hastezoo.recipes.emoji --set alignment.teacher.name=local-dir:runs/emoji-vit

Both learn which name belongs to which picture. The teacher sees what its students see and nothing more: the names that
are not held out. The judge learns from another split: all names that are held out, and half of the others. The two that
ship beside the recipes, `recipes/teachers/emoji-vit` and `emoji-judge`, were made by these commands, the judge in 150
epochs (`--epochs 150`).

It takes some minutes on two CPU cores. Ctrl-C keeps the last epoch; the same command goes on from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hastezoo.cli.errors import reporting_errors
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from hastezoo.data.emoji import EmojiImages

    from .emoji_contrast import Contrast

TEACHERS = Path(__file__).parent / "teachers"
EPOCHS, BATCH, RATE, DECAY = 100, 128, 1e-3, 0.05
STATE = "training.pt"
# Judge and teacher begin from different weights.
SEEDS = {"train": 0, "judge": 1}


def moved(images: Tensor, source: Any) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] turned, scaled, shifted, lit and covered in part, each in its own way."""
    import torch
    from torch.nn import functional as F

    count = len(images)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=source)

    turn, scale = between(-0.2, 0.2), between(0.85, 1.15)
    places = torch.stack([scale * turn.cos(), -scale * turn.sin(), scale * turn.sin(), scale * turn.cos()], 1)
    matrix = torch.cat([places.view(count, 2, 2), between(-0.15, 0.15, 2, 1)], dim=2)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    seen = 1 + F.grid_sample(images - 1, grid, align_corners=False)  # what comes in is white
    seen = seen * between(0.85, 1.0, 1, 1, 1) + 0.03 * torch.randn(seen.shape, generator=source)
    rows, columns = (between(-4, 32, 1, 1, 1).long() for _ in range(2))
    down, across = torch.arange(32).view(1, 1, 32, 1), torch.arange(32).view(1, 1, 1, 32)
    covered = (down >= rows) & (down < rows + 8) & (across >= columns) & (across < columns + 8)
    return torch.where(covered, 0.5, seen).clamp(0, 1)


def train(samples: EmojiImages, out: Path, seed: int = 0, epochs: int = EPOCHS, quiet: bool = False) -> Contrast:
    """Teach a `Contrast` the names of pictures, going on from what `out` holds of the same training.

    Raises:
        UserError: If `out` holds another training, or cannot be written.
    """
    import torch
    from rich.progress import track

    from hastezoo.data.order import generator, permutation

    from .emoji_contrast import Contrast

    torch.manual_seed(seed)
    model = Contrast(samples.words)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    steps = max(1, len(samples) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * steps)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    settings = {"seed": seed, "epochs": epochs, "words": list(samples.words)}
    begin = _resume(out / STATE, parts, settings)
    model.train()
    for epoch in track(range(begin, epochs), "names of pictures", total=epochs, completed=begin, disable=quiet):
        source = generator(seed, "teacher", epoch)
        order = permutation(seed, epoch, len(samples))
        turns = torch.randint(samples.variants, (len(samples),), generator=source)
        for chosen in (order + len(samples) * turns).split(BATCH)[:steps]:
            batch = samples.__getitems__(chosen.tolist())
            assert batch.images is not None
            loss = model.loss(moved(batch.images, source), batch.condition)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        _keep(out / STATE, epoch + 1, parts, settings)
    return model.eval()


def _keep(path: Path, epoch: int, parts: dict[str, Any], settings: dict[str, Any]) -> None:
    import torch

    from hastezoo.files import atomic_open

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_open(path) as stream:
            torch.save(
                {"epoch": epoch, **settings, **{name: part.state_dict() for name, part in parts.items()}}, stream
            )
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}; give another --out") from None


def _resume(path: Path, parts: dict[str, Any], settings: dict[str, Any]) -> int:
    """The epoch to go on from."""
    import pickle

    import torch

    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        if any(state[key] != value for key, value in settings.items()):
            raise UserError(f"{path.parent} holds a training with other settings; give another --out, or remove it")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} cannot be read ({' '.join(str(error).split())[:80]}); remove it to begin anew"
        ) from None
    return int(state["epoch"])


def retrieval(model: Contrast, samples: EmojiImages, names: list[str] | None = None) -> dict[str, float]:
    """The share of real pictures, one a name and without skin tone, whose own name is the nearest, or among five.

    Args:
        model: The judge of it.
        samples: The pictures.
        names: What they may be; by default their own names.
    """
    from hastezoo.conditioning.words import split_words

    rows = [family[0] for family in samples.families]
    known = set(model.reader.numbers)
    rows = [row for row in rows if known & set(split_words(samples.emojis[row].name))]
    own = [samples.emojis[row].name for row in rows]
    candidates = names or own
    index = {name: place for place, name in enumerate(candidates)}
    rows = [row for row in rows if samples.emojis[row].name in index]
    return ranked(model, samples.pixels[rows], [samples.emojis[row].name for row in rows], candidates)


def ranked(model: Contrast, pixels: Any, names: list[str], candidates: list[str]) -> dict[str, float]:
    """How often the name of a picture is the nearest of the candidates to it, and among the five nearest.

    Args:
        model: The judge.
        pixels: uint8 (N, 32, 32, 3).
        names: Of each picture; each is among the candidates.
        candidates: What a picture may be.
    """
    import torch

    with torch.no_grad():
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        likeness = model.of_pictures(pictures) @ model.of_names(candidates).T
        own = likeness.gather(1, torch.tensor([[candidates.index(name)] for name in names]))
        rank = (likeness > own).sum(1)
    return {"top1": float((rank == 0).float().mean()), "top5": float((rank < 5).float().mean()), "count": len(names)}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--judge", is_flag=True, help="The judge of samples, from its own split, instead of the teacher.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="[runs/emoji-vit, or runs/emoji-judge]")
@click.option("--font", type=click.Path(path_type=Path), help="Noto Color Emoji, where it is not Debian's.")
@click.option("--names", type=click.Path(path_type=Path), help="Unicode's emoji-test.txt, where it is not Debian's.")
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True)
@click.option("--limit", type=click.IntRange(2), help="The first so many names only, for a trial.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@reporting_errors
def main(
    judge: bool, out: Path | None, font: Path | None, names: Path | None, epochs: int, limit: int | None, quiet: bool
) -> None:
    """Train the ViT that teaches the emoji's students, or the judge of what they draw; run again to go on."""
    from hastezoo.data.emoji import FONT, NAMES, EmojiImages
    from hastezoo.files import alone_in

    out = out or Path("runs") / ("emoji-judge" if judge else "emoji-vit")
    split: Any = "judge" if judge else "train"
    samples = EmojiImages(split, font=font or FONT, names=names or NAMES, limit=limit)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; give another --out") from None
    with alone_in(out, "training in"):
        try:
            model = train(samples, out, SEEDS[split], epochs, quiet)
        except KeyboardInterrupt:
            kept = f"{out / STATE} keeps the last epoch" if (out / STATE).exists() else "before the end of an epoch"
            click.echo(f"stopped; {kept}, the same command goes on")
            raise SystemExit(130) from None
        facts = {"split": split, "names": len(samples), "epochs": epochs, "own_names": retrieval(model, samples)}
        model.save(out, facts)
        (out / STATE).unlink(missing_ok=True)
    if not quiet:
        click.echo(json.dumps(facts))
        click.echo(f"teach with it: python -m hastezoo.recipes.emoji --set alignment.teacher.name=local-dir:{out}")


if __name__ == "__main__":
    main()
