"""From a run's folder to a checkpoint of the user's own: weights and a card with the run's numbers, found by name."""

from __future__ import annotations

import contextlib
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from hastezoo.conditioning.labels import class_names, package_lists
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.files import atomic_write, write_json
from hastezoo.home import home
from hastezoo.hub import WEIGHTS
from hastezoo.training import results
from hastezoo.training.history import History, read_history
from hastezoo.training.record import FILE, RunRecord, read_json
from hastezoo.zoo.card import Card, Training, Weights
from hastezoo.zoo.registry import find_card, list_cards, package_cards, read_card
from hastezoo.zoo.toml import to_toml

if TYPE_CHECKING:
    from torch import Tensor, nn

Which = Literal["ema", "model"]
Model = TypeVar("Model", bound=BaseModel)
LICENCE = "of whoever trained it"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")  # as the card's schema has it
TITLES = {"plain": "", "repa": " with REPA", "haste": " with HASTE"}
WORDS = {"ema": "The moving average (EMA)", "model": "The raw weights, not their average,"}


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Train(_Record):
    steps: int
    batch_size: int


class _Alignment(_Record):
    attention_weight: float


class _Settings(_Record):
    """What of config.json a card needs."""

    architecture: str
    model: dict[str, Any] = {}
    train: _Train
    alignment: _Alignment | None = None

    @property
    def method(self) -> Literal["plain", "repa", "haste"]:
        if self.alignment is None:
            return "plain"
        return "haste" if self.alignment.attention_weight else "repa"


@dataclass(frozen=True)
class Exported:
    """What an export made.

    Attributes:
        card: As it was read back.
        path: Its file.
        weights: The safetensors beside it.
    """

    card: Card
    path: Path
    weights: Path


@dataclass(frozen=True)
class _Taken:
    """A checkpoint of the run.

    Attributes:
        newest: Whether it is the last that the run wrote.
    """

    step: int
    which: Which
    newest: bool
    state: dict[str, Tensor]


def export_run(
    run: Path,
    name: str,
    *,
    step: int | None = None,
    weights: Which = "ema",
    title: str = "",
    licence: str = LICENCE,
    dtype: str | None = None,
    force: bool = False,
) -> Exported:
    """Make a checkpoint of the user's own from a run, finished or not.

    Writes `HASTEZOO_HOME/cards/NAME.safetensors` and then `NAME.toml`, each whole or not at all; for a data set of the
    user's own also `HASTEZOO_HOME/classes/NAME.json`. The run's folder is only read, so it may still go on.

    Args:
        run: The folder that a recipe trained into.
        name: Of the new checkpoint.
        step: Of a checkpoint that was kept; None takes the newest that can be read.
        weights: The moving average, or the weights that were trained.
        title: Of the card; by default architecture and method.
        licence: Of the weights.
        dtype: Convert them to float32, bfloat16 or float16; None keeps them as they were trained.
        force: Replace a checkpoint of the user's of that name.

    Raises:
        UserError: If there is no such run, no such checkpoint, or it does not fit the run's settings; its weights are
            not finite, or not in that dtype; the classes are not known; or the name is taken or no name. Nothing is
            written then.
    """
    if not run.is_dir():
        raise UserError(f"there is no folder {run}; name the one that a recipe trained into")
    _check_name(name)
    record, settings = RunRecord.read(run), read_json(run / "config.json", _Settings)
    classes = None if record.class_list or record.text else home() / "classes" / f"{name}.json"
    _check_free(name, classes, force)
    taken = _take(run, step, weights)
    if dtype is not None:
        from hastezoo.devices import find_dtype

        kind = find_dtype(dtype)
        taken = replace(taken, state={key: value.to(kind) for key, value in taken.state.items()})
    _check_finite(taken, run)
    model = _build(settings, taken, run)
    _check_classes(record, name, model, run)
    card = _describe(run, name, record, settings, taken, model)
    card = card.model_copy(update={"licence": licence, **({"title": title} if title else {})})
    return _install(card, model, taken, record, classes)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name of a checkpoint: small letters, digits, dots and hyphens, such as sit-mine"
        )
    if Path(name).suffix in WEIGHTS:
        raise UserError(f"{name!r} would be taken for a file of weights; leave out {Path(name).suffix}")


def _check_free(name: str, classes: Path | None, force: bool) -> None:
    """Refuse a name that is taken. A card of the user's under a name of the package's would never be found."""
    cards = home() / "cards"
    if name in package_cards():
        raise UserError(f"the name {name!r} is that of a checkpoint of the package; choose another")
    if classes is not None and name in package_lists():
        raise UserError(f"the name {name!r} is that of a list of classes of the package; choose another")
    if not (cards / f"{name}.toml").exists() and name in {card.name for card in list_cards()}:
        raise UserError(f"the name {name!r} is taken by a card in another file of {cards}; choose another")
    places = [cards / f"{name}.toml", cards / f"{name}.safetensors", *([classes] if classes else [])]
    there = [str(place) for place in places if place.exists()]
    if there and not force:
        raise UserError(f"the name {name!r} is taken: there is {there[0]}; choose another, or --force to replace it")


def _take(run: Path, step: int | None, which: Which) -> _Taken:
    """The checkpoint of a step, or the newest that can be read; those that cannot are passed over with a warning."""
    from hastezoo.training.checkpoints import Checkpoints, step_of

    folder = run / "checkpoints"
    # Not by `Checkpoints.latest`: it clears away what is half-written, and the run may be writing just now.
    kept = {step_of(path): path for path in reversed(Checkpoints(folder).paths())}
    if not kept:
        raise UserError(f"{run} has no checkpoint yet; Ctrl-C makes a run write one, and the same command goes on")
    if step is not None and step not in kept:
        raise UserError(f"no checkpoint of step {step} is kept in {folder}; kept: {', '.join(map(str, sorted(kept)))}")
    for chosen in sorted(kept, reverse=True) if step is None else [step]:
        try:
            return _Taken(chosen, which, chosen == max(kept), _load(kept[chosen], which))
        except UserError as error:
            if step is not None or chosen == min(kept):
                raise
            warnings.warn(f"{error}; trying the one before", stacklevel=2)
    raise AssertionError("the oldest is taken or raises")


def _load(path: Path, which: Which) -> dict[str, Tensor]:
    """Nothing but these weights: the optimizer is twice as large, and nobody asks for it."""
    from hastezoo.training import onefile
    from hastezoo.training.sharded import Shards

    found = Shards(path).read(which) if path.is_dir() else onefile.load(path, mmap=True).get(which)
    if not isinstance(found, dict) or not found:
        raise UserError(f"checkpoint {path} cannot be read (it has no {which!r})")
    return found


def _check_finite(taken: _Taken, run: Path) -> None:
    import torch

    bad = [name for name, tensor in taken.state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise UserError(f"{run}: the weights of step {taken.step} are not finite: NaN or infinity in {bad[0]}")


def _build(settings: _Settings, taken: _Taken, run: Path) -> nn.Module:
    """The model that the run's settings describe, with the checkpoint's tensors."""
    import torch

    from hastezoo.models.registry import create_model

    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.model.items()}
    try:
        with torch.device("meta"):
            model = create_model(settings.architecture, **values)
        model.load_state_dict(taken.state, assign=True)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the checkpoint of step {taken.step} does not fit {run / 'config.json'}: {reason}") from None
    return model


def _check_classes(record: RunRecord, name: str, model: Any, run: Path) -> None:
    if record.text is not None:
        return
    names = list(class_names(record.class_list)) if record.class_list else record.classes
    if len(names) != model.config.num_classes:
        raise UserError(f"{run / FILE} names {len(names)} classes, but the model has {model.config.num_classes}")


def _describe(run: Path, name: str, record: RunRecord, settings: _Settings, taken: _Taken, model: Any) -> Card:
    """The card, but for its weights."""
    from hastezoo.models.layers import parameter_count

    try:
        base = find_card(record.checkpoint)
    except UserError as error:
        raise UserError(f"{run / FILE}: {error}") from None
    history = _history(run)
    step = taken.step if taken.which == "ema" else None
    lines = [line for line in history.metrics if line.step <= taken.step] if history else []
    recipe = record.recipe.removeprefix("hastezoo.recipes.")
    return Card(
        name=name,
        title=f"{settings.architecture}{TITLES[settings.method]}, {record.resolution} px",
        description=_description(recipe, settings, taken, history),
        architecture=settings.architecture,
        config=asdict(model.config),
        parameters=parameter_count(model),
        method=settings.method,
        path=base.path,
        resolution=record.resolution,
        autoencoder=record.autoencoder,
        classes=None if record.text else record.class_list or name,
        text=record.text,
        protocol=base.protocol,
        status="recipe-only",  # until its weights are written
        steps=taken.step,
        recipe=recipe,
        licence=LICENCE,
        redistribution="allowed",
        data=_data(record),
        papers=base.papers,
        training=Training(
            batch_size=settings.train.batch_size,
            seconds=results.seconds(lines),
            device=record.device + (f", {record.processes} processes" if record.processes > 1 else ""),
            command=record.command,
        ),
        results=[*results.evaluated(run, step, newest=taken.newest), *results.losses(lines)],
    )


def _data(record: RunRecord) -> str:
    told = not record.samples or str(record.samples) in record.data.replace(",", "")
    return record.data if told else f"{record.data} ({record.samples:,} samples)"


def _history(run: Path) -> History | None:
    """What the run recorded; None where it was stopped before its first line."""
    path = run / "metrics.jsonl"
    return read_history(run) if path.is_file() and b"\n" in path.read_bytes() else None


def _description(recipe: str, settings: _Settings, taken: _Taken, history: History | None) -> str:
    text = f"{WORDS[taken.which]} of a run of hastezoo.recipes.{recipe} after {taken.step:,} steps"
    if taken.step < settings.train.steps:
        text += f", {'stopped' if taken.newest else 'taken'} at step {taken.step:,} of {settings.train.steps:,}"
    ended = history.ended_at if history else None
    return text + (f"; alignment ended after step {ended:,}." if ended is not None and ended <= taken.step else ".")


def _install(card: Card, model: nn.Module, taken: _Taken, record: RunRecord, classes: Path | None) -> Exported:
    """Write everything aside, read it back, and only then give it its names, the card's last."""
    from hastezoo.zoo.modelfile import save_model

    cards = home() / "cards"
    cards.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=cards) as aside:
        weights, text = Path(aside) / f"{card.name}.safetensors", Path(aside) / f"{card.name}.toml"
        save_model(weights, model, card.architecture, weights=taken.which, step=taken.step)
        facts = Weights(file=weights.name, sha256=sha256_of(weights), bytes=weights.stat().st_size)
        card = card.model_copy(update={"weights": facts, "status": "embedded"})
        atomic_write(text, to_toml(card.model_dump(mode="json", exclude_none=True, exclude_defaults=True)).encode())
        read_card(text, cards)
        places = [cards / weights.name, cards / text.name]
        if classes is not None:
            classes.parent.mkdir(parents=True, exist_ok=True)
            write_json(classes, list(record.classes))
        with _removed_on_failure(*places, *([classes] if classes else [])):
            places[1].unlink(missing_ok=True)  # the one that is replaced: no card may stand beside another's weights
            weights.replace(places[0])
            text.replace(places[1])
    return Exported(read_card(places[1], cards), places[1], places[0])


@contextlib.contextmanager
def _removed_on_failure(*paths: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
