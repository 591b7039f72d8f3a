"""What a page or a program sends -> a request that is allowed here. Everything is checked, whoever sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hastezoo.asking import LARGEST_SEED
from hastezoo.errors import UserError, explain
from hastezoo.sampling.protocol import Protocol
from hastezoo.webapp.settings import AppSettings
from hastezoo.zoo.card import Card
from hastezoo.zoo.registry import find_card, list_cards, make_protocol

if TYPE_CHECKING:
    from hastezoo.asking import Ask

ADAPTIVE_STEPS = 250  # what dopri5, which chooses its steps, is counted as
F = TypeVar("F", bound=BaseModel)


def _whole(value: Any) -> Any:
    """A seed written out: a number in a browser is exact up to 2**53 only."""
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.isascii() and text.isdecimal():
        return int(text)
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    raise ValueError("a seed is a whole number in 0..2**63-1")


def _lines(value: Any) -> Any:
    """Prompts, one a line."""
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


def _one_or_several(value: Any) -> Any:
    return [value] if isinstance(value, str | int) and value != "" else [] if value in (None, "") else value


Seed = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=LARGEST_SEED)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Sampler(_Form):
    """Which checkpoint draws, and how. What is None is taken from the protocol, and that from the card.

    Attributes:
        model: Name of a checkpoint.
        protocol: A named protocol.
        solver, steps, cfg: Settings of it.
        low, high: Of the interval of guidance.
    """

    model: str = Field(max_length=200)
    protocol: str | None = Field(None, max_length=200)
    solver: str | None = Field(None, max_length=200)
    steps: int | None = None
    cfg: float | None = None
    low: float | None = None
    high: float | None = None

    def settled(self, card: Card) -> tuple[str, dict[str, Any], Protocol]:
        """(the protocol's name, what is set of it otherwise, the whole).

        Raises:
            UserError: If a name or a value is not valid.
        """
        name = self.protocol or card.protocol
        base = make_protocol(name, {})
        low = base.interval[0] if self.low is None else self.low
        high = base.interval[1] if self.high is None else self.high
        given = {"solver": self.solver, "steps": self.steps, "cfg": self.cfg, "interval": (low, high)}
        changed = {key: value for key, value in given.items() if value is not None and value != getattr(base, key)}
        return name, changed, make_protocol(name, changed)


class Subject(_Form):
    """What is drawn: each class or prompt with `number` seeds from `seed` on.

    Attributes:
        classes: Numbers or names, of a model of classes; none to draw them from the seeds.
        prompts: Of a model of text; a text has one a line.
        negative: What guidance leads away from.
        number: Images of each class or prompt.
        seed: The first.
    """

    classes: Annotated[list[int | str], BeforeValidator(_one_or_several)] = Field([], max_length=1000)
    prompts: Annotated[list[str], BeforeValidator(_lines)] = Field([], max_length=1000)
    negative: str = ""
    number: int = Field(4, ge=1)
    seed: Seed = 0

    @property
    def count(self) -> int:
        """Images asked for."""
        return max(1, len(self.classes) or len(self.prompts)) * self.number


class DrawForm(Sampler, Subject):
    """A request for images."""


class EvaluateForm(Sampler):
    """A measurement.

    Attributes:
        reference: A named reference; None for that of the card's stated figure.
        number: Images; None for the protocol's count.
        seed: Of the first.
        labels: How classes are drawn; None for the protocol's way.
        allow_few: Measure also with fewer images than the features have dimensions.
    """

    reference: str | None = Field(None, max_length=200)
    number: int | None = Field(None, ge=1)
    seed: Seed = 0
    labels: Literal["random", "balanced"] | None = None
    allow_few: bool = False


def read(form: type[F], values: Mapping[str, Any]) -> F:
    """A form of what was sent; an empty text says nothing.

    Raises:
        UserError: If something is missing, unknown or no such value.
    """
    try:
        return form.model_validate({key: value for key, value in values.items() if value not in (None, "")})
    except ValidationError as error:
        raise UserError(explain(error, form)) from None


def offered(settings: AppSettings) -> list[Card]:
    """The checkpoints of this app."""
    return [card for card in list_cards() if not settings.models or card.name in settings.models]


def offered_card(name: str, settings: AppSettings) -> Card:
    """The card of a checkpoint of this app.

    Raises:
        UserError: If there is none of that name, or it is not offered here.
    """
    card = find_card(name)
    if settings.models and name not in settings.models:
        raise UserError(f"{name} is not offered here; choose one of {', '.join(settings.models)}")
    return card


def asked(subject: Subject, sampler: Sampler, settings: AppSettings, **overrides: Any) -> Ask:
    """What `hastezoo sample` would be asked for.

    Raises:
        UserError: If it cannot be drawn, or is more than is allowed here.
    """
    from hastezoo.asking import Ask, check, seeds_from

    card = offered_card(sampler.model, settings)
    name, changed, protocol = sampler.model_copy(update=overrides).settled(card)
    check_work(subject.count, protocol, settings)
    ask = Ask(
        model=sampler.model,
        classes=tuple(subject.classes),
        prompts=tuple(subject.prompts),
        negative=subject.negative,
        seeds=tuple(seeds_from(subject.seed, subject.number)),
        protocol=name,
        overrides=changed,
        device=settings.device,
        dtype=settings.dtype,
    )
    check(ask, card)
    return ask


def check_work(count: int, protocol: Protocol, settings: AppSettings, *, more: Sequence[Protocol] = ()) -> None:
    """Refuse what would hold the device for too long.

    Args:
        count: Images.
        protocol: They are drawn with.
        settings: Of the server.
        more: Further columns: the same number of images again with each of these.

    Raises:
        UserError: If it is more than the settings allow.
    """
    if count > settings.max_images:
        raise UserError(f"{count} images are more than the {settings.max_images} of one request here; ask for fewer")
    every = [protocol, *more]
    steps = sum(ADAPTIVE_STEPS if one.solver == "dopri5" else one.steps for one in every)
    if count * steps > settings.max_work:
        where = f" of {len(every)} columns" if more else ""
        raise UserError(
            f"{count} images x {steps:,} steps{where} are more than the {settings.max_work:,} image steps of one "
            "request here; take fewer of either"
        )
