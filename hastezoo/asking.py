"""Asking for images: what can be asked for, checked before anything is loaded, as a pipeline and a request.

The command line and the app both ask through this, so that the same question gives the same images.
"""

from __future__ import annotations

import itertools
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from hastezoo.conditioning.labels import ClassList, class_names, find_label
from hastezoo.conditioning.prompts import clean, shown
from hastezoo.conditioning.words import WordNumbers, refuse_unread
from hastezoo.errors import UserError
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT

if TYPE_CHECKING:
    from hastezoo.conditioning.conditions import Prompts
    from hastezoo.pipeline import Pipeline
    from hastezoo.request import Request
    from hastezoo.zoo.card import Card

# The settings of a Protocol that have an option on the command line.
PROTOCOL_KEYS = ("solver", "steps", "cfg", "interval", "channels", "diffusion", "last_step", "start")
LOADED_WITH = ("device", "dtype", "weights", "compile", "vae", "vae_tiling", "text_encoder")
MOST_SEEDS = 10_000_000
LARGEST_SEED = 2**63 - 1
NOTES = 5  # on prompts, shown


class Ask(BaseModel):
    """What somebody asks for: each class or prompt, in the order given, drawn with every seed.

    Attributes:
        model: Name of a checkpoint.
        classes: Numbers or names, of a model of classes; none draws each label from its seed.
        prompts, negative: Of a model of text: what to draw, and what guidance leads away from.
        seeds: Of each class or prompt.
        protocol: A named protocol; None for the card's.
        overrides: Settings of the Protocol that replace the named one's.
        weights, vae, vae_tiling, text_encoder, device, dtype, compile: As `Pipeline.from_pretrained` takes them.
        batch_size: Images at a time, or "auto".
        format: Of the files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = DEFAULT_CHECKPOINT
    classes: Sequence[int | str] = ()
    prompts: Sequence[str] = ()
    negative: str = ""
    seeds: Sequence[int] = (0,)
    protocol: str | None = None
    overrides: dict[str, Any] = {}
    weights: str | None = None
    vae: str | None = None
    vae_tiling: bool = False
    text_encoder: str | None = None
    batch_size: int | str = "auto"
    device: str = "auto"
    dtype: str = "float32"
    compile: bool = False
    format: Literal["png", "npz", "webp"] = "png"


def parse_seeds(text: str, called: str = "the list of seeds") -> list[int]:
    """The seeds that a text such as 0-15,40 lists.

    Args:
        text: Seeds and ranges, both ends included, with commas between.
        called: What the text is, for the message.

    Raises:
        UserError: If the text is something else, or names a seed twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"{called} {text!r}: {part.strip()!r} is no seed (0, 1, ...) or range; write 0-15,40")
        start, stop = int(first), int(last or first)
        if stop < start or stop - start >= MOST_SEEDS or stop > LARGEST_SEED:
            raise UserError(f"{called} {text!r}: the range {part.strip()!r} is empty, too long or too large")
        seeds += range(start, stop + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{called} {text!r} names a seed twice")
    return seeds


def seeds_from(
    first: int, number: int, called: tuple[str, str] = ("the first seed", "the number of images")
) -> list[int]:
    """The seeds first .. first + number - 1.

    Args:
        first, number: Where they begin, and how many.
        called: What the two are, for the message.

    Raises:
        UserError: If one is out of range.
    """
    if not 0 <= first <= LARGEST_SEED - MOST_SEEDS:
        raise UserError(f"{called[0]} must be at least 0 and below 2**63 - {MOST_SEEDS}, not {first}")
    if not 1 <= number <= MOST_SEEDS:
        raise UserError(f"{called[1]} must be in 1..{MOST_SEEDS}, not {number}")
    return list(range(first, first + number))


def check(ask: Ask, card: Card) -> Ask:
    """Refuse what can be refused without torch; settle the rest.

    Args:
        ask: Of anybody.
        card: Of its model.

    Returns:
        The same with classes by number, and prompts cleaned and each once. Checking it again changes nothing and
        warns of nothing.

    Raises:
        UserError: If there is no seed or one is out of range, classes are asked of a model of text or the other way
            round, a class is unknown, something is asked for twice, or there is no prompt or an unfit one, such as one
            of which a model of words knows no word.
    """
    _check_seeds(ask.seeds)
    negative = clean(ask.negative)
    if card.text is None:
        if ask.prompts or negative:
            what = "prompts" if ask.prompts else "the negative prompt"
            raise UserError(f"{card.name} draws classes, not text: leave out {what}, and name a class")
        labels = _distinct_labels(ask.classes, class_names(str(card.classes))) if ask.classes else []
        return ask.model_copy(update={"classes": tuple(labels), "negative": negative})
    if ask.classes:
        raise UserError(f"{card.name} draws from text: leave out the classes, and say what to draw with a prompt")
    if not ask.prompts:
        raise UserError(f'{card.name} draws from text: say what with a prompt, such as "a red bus"')
    prompts = _distinct_prompts(ask.prompts)
    if card.text.kind == "words" and ask.weights is None:  # weights of one's own may know other words
        refuse_unread(WordNumbers(card.config["words"], card.text.length), (*prompts, negative))
    return ask.model_copy(update={"prompts": prompts, "negative": negative})


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("no seeds: ask for at least one image")
    for seed in (min(seeds), max(seeds)):
        if not 0 <= seed <= LARGEST_SEED:
            raise UserError(f"a seed is a whole number in 0..2**63-1, not {seed}")
    ascending = all(map(operator.lt, seeds, itertools.islice(seeds, 1, None)))  # a set of millions is dear
    if not ascending and len(set(seeds)) < len(seeds):
        raise UserError(f"seed {_repeated(seeds)} is asked for twice")


def _distinct_labels(asked: Sequence[int | str], names: ClassList) -> list[int]:
    labels = [find_label(one, names) for one in asked]
    if len(set(labels)) < len(labels):
        raise UserError(f"class {_repeated(labels)} is asked for twice")
    return labels


def _distinct_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(clean(prompt) for prompt in prompts)
    if len(counts) < len(prompts):
        more = f"{len(prompts) - len(counts)} more, such as {shown(counts.most_common(1)[0][0])}"
        warnings.warn(f"prompts that are repeated are drawn once ({more})", stacklevel=3)
    return tuple(counts)


def _repeated(values: Sequence[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def load(
    ask: Ask,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Pipeline:
    """The pipeline that draws what is asked for; its weights are fetched if they are not here.

    Args:
        ask: Its model, and what is to be loaded with it.
        say, progress: Told of downloads and conversions.

    Raises:
        UserError: If something is not to be had, or does not fit the model.
    """
    from hastezoo.pipeline import Pipeline

    chosen = {key: getattr(ask, key) for key in LOADED_WITH}
    return Pipeline.from_pretrained(ask.model, say=say, progress=progress, **chosen)


def make_request(ask: Ask, pipeline: Pipeline) -> Request:
    """Conditions x seeds as a request, checked once more; what is to be known of the prompts is warned of.

    Args:
        ask: What to draw.
        pipeline: As `load` gives it.

    Raises:
        UserError: As `check`, by the words of the weights that are loaded; or if a setting of the protocol or the batch
            size is not valid.
    """
    from hastezoo.conditioning.conditions import Prompts
    from hastezoo.request import Request

    ask = check(ask, pipeline.card)
    conditions, seeds = pipeline.conditions, list(ask.seeds)
    text: dict[str, Any] = {}
    if isinstance(conditions, Prompts):
        refuse_unread(conditions.encoder, (*ask.prompts, ask.negative))
        _say_notes([*ask.prompts, *([ask.negative] if ask.negative else [])], conditions)
        encoder = conditions.encoder
        text = {"text_encoder": encoder.source or None, "text_encoder_sha256": encoder.sha256}
        labels = [number for number in range(len(ask.prompts)) for _ in seeds]
    else:
        labels = [int(label) for label in ask.classes for _ in seeds] or conditions.read(None, seeds)
    crossed = len(labels) // len(seeds)
    return Request(
        model=ask.model,
        weights=_settled(ask.weights),
        weights_sha256=pipeline.weights_sha256,
        vae=pipeline.autoencoder.source or None,
        vae_sha256=pipeline.autoencoder.sha256,
        vae_tiling=ask.vae_tiling,
        **text,
        protocol=pipeline.protocol(ask.protocol, **ask.overrides),
        prompts=list(ask.prompts),
        negative=ask.negative,
        labels=labels,
        seeds=seeds * crossed,
        conditions=crossed,
        batch_size=pipeline.batch_size(ask.batch_size),
        device=str(pipeline.device),
        dtype=ask.dtype,
        compile=ask.compile,
        format=ask.format,
    )


def _say_notes(prompts: list[str], conditions: Prompts) -> None:
    """What to know of some prompts, such as that they are cut; of a long list of the first few."""
    said = [f"{shown(prompt)}: {note}" for prompt in prompts for note in conditions.encoder.notes(prompt)]
    for note in said[:NOTES]:
        warnings.warn(note, stacklevel=3)
    if len(said) > NOTES:
        warnings.warn(f"{len(said) - NOTES} more notes on prompts are not shown", stacklevel=3)


def _settled(weights: str | None) -> str | None:
    """A file by its absolute path, so that another working directory finds it; a place on the Hub as it is."""
    return weights if weights is None or weights.startswith("hub:") else str(Path(weights).resolve())
