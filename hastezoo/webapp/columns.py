"""Requests of several columns, checked: a comparison of samplers side by side, a sweep over the values of a setting."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hastezoo.errors import UserError
from hastezoo.webapp.forms import DrawForm, Sampler, Subject, asked, check_work, offered_card, read
from hastezoo.webapp.settings import AppSettings
from hastezoo.zoo.card import Card

if TYPE_CHECKING:
    from hastezoo.asking import Ask

LETTERS = "ABC"  # of the columns of a comparison
MOST_COLUMNS, MOST_ROWS = 8, 16  # of a sweep
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def _numbers(value: Any) -> Any:
    """The numbers of a text, with commas or spaces between."""
    if not isinstance(value, str):
        return value
    texts = [text for text in re.split(r"[,;\s]+", value) if text]
    for text in texts:
        if not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
            raise ValueError(f"{text[:40]!r} is no number; write numbers with commas between, such as 1, 1.5, 2")
    return [float(text) for text in texts]


def _once(values: list[float]) -> list[float]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value:g} is there twice; name each value once")
    return values


class CompareForm(Subject):
    """The same images drawn in two or three ways.

    Attributes:
        samplers: A column each: A, B, C.
    """

    samplers: list[Sampler] = Field(min_length=2, max_length=len(LETTERS))


class SweepForm(DrawForm):
    """The same images with several values of a setting.

    Attributes:
        axis: The setting.
        values: Of it, a column each; a text has them with commas between.
    """

    axis: Literal["cfg", "steps"] = "cfg"
    values: Annotated[list[float], BeforeValidator(_numbers), AfterValidator(_once)] = Field(
        min_length=2, max_length=MOST_COLUMNS
    )


def read_comparison(subject: Mapping[str, Any], samplers: Sequence[Mapping[str, Any]]) -> CompareForm:
    """A comparison of what was sent.

    Args:
        subject: What to draw.
        samplers: Of each column.

    Raises:
        UserError: As `forms.read`; it says which column is meant.
    """
    columns = []
    for letter, values in zip(LETTERS, samplers, strict=False):
        with _of_column(letter):
            columns.append(read(Sampler, values))
    return read(CompareForm, {**subject, "samplers": columns})


def compared(form: CompareForm, settings: AppSettings) -> list[Ask]:
    """What each column of a comparison asks for.

    Raises:
        UserError: As `forms.asked`; or if the checkpoints do not draw the same things.
    """
    cards, chosen = [], []
    for letter, sampler in zip(LETTERS, form.samplers, strict=False):
        with _of_column(letter):
            cards.append(offered_card(sampler.model, settings))
            chosen.append(sampler.settled(cards[-1])[2])
    _check_alike(cards)
    asks = [asked(form, sampler, settings) for sampler in form.samplers]
    check_work(form.count, chosen[0], settings, more=chosen[1:])
    return asks


def swept(form: SweepForm, settings: AppSettings) -> list[Ask]:
    """What each column of a sweep asks for.

    Raises:
        UserError: As `forms.asked`; or if a value is none of the axis, or there are too many rows.
    """
    if form.count > MOST_ROWS:
        raise UserError(f"{form.count} rows are more than the {MOST_ROWS} of a sweep; ask for fewer images or classes")
    values = [_whole_steps(value) if form.axis == "steps" else value for value in form.values]
    card = offered_card(form.model, settings)
    chosen = [form.model_copy(update={form.axis: value}).settled(card)[2] for value in values]
    if form.axis == "steps" and chosen[0].solver == "dopri5":
        raise UserError("dopri5 chooses its steps itself; sweep the CFG scale, or choose another solver")
    asks = [asked(form, form, settings, **{form.axis: value}) for value in values]
    check_work(form.count, chosen[0], settings, more=chosen[1:])
    return asks


@contextmanager
def _of_column(letter: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"column {letter}: {error}") from None


def _check_alike(cards: Sequence[Card]) -> None:
    first = cards[0]
    for letter, card in zip(LETTERS, cards, strict=False):
        if card.classes != first.classes:  # None for text
            raise UserError(
                f"column A ({first.name}) draws {_draws(first)} and column {letter} ({card.name}) {_draws(card)}; "
                "choose checkpoints that draw the same"
            )


def _draws(card: Card) -> str:
    return "from text" if card.classes is None else f"classes of {card.classes}"


def _whole_steps(value: float) -> int:
    if value != int(value) or value < 1:
        raise UserError(f"{value:g} is no number of steps; steps are whole numbers from 1 on")
    return int(value)
