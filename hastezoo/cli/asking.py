"""The options of `hastezoo sample` -> an `Ask`; what options alone can get wrong is refused in their words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hastezoo.asking import LOADED_WITH, Ask, check, parse_seeds, seeds_from
from hastezoo.cli.options import overrides
from hastezoo.errors import UserError
from hastezoo.zoo.registry import find_card

if TYPE_CHECKING:
    from hastezoo.request import Request
    from hastezoo.zoo.card import Card


def read_ask(options: dict[str, Any]) -> Ask:
    """What the options ask for, checked as far as that goes without torch.

    Raises:
        UserError: If they do not go together, or ask for what cannot be drawn.
    """
    seeds = _seeds(options)
    card = find_card(options["model"])
    _check_kind(card, options)
    as_they_are = ("model", "classes", "protocol", "batch_size", "format", *LOADED_WITH)
    ask = Ask(
        **{key: options[key] for key in as_they_are},
        prompts=_prompts(options),
        negative=options["negative"] or "",
        seeds=seeds,
        overrides=overrides(options),
    )
    return check(ask, card)


def asked_again(request: Request, device: str) -> Ask:
    """What loads the pipeline of a recorded request, on its own device unless another than "auto" is named."""
    chosen = {key: getattr(request, key) for key in LOADED_WITH}
    return Ask(model=request.model, **chosen | {"device": request.device if device == "auto" else device})


def _seeds(options: dict[str, Any]) -> list[int]:
    """The seeds that --seeds lists, or -n and --seed count."""
    if options["seeds"] is not None:
        if options["number"] is not None or options["seed"] is not None:
            raise UserError("--seeds lists the images itself; leave out -n and --seed")
        return parse_seeds(options["seeds"], called="--seeds")
    number = options["number"] if options["number"] is not None else 1
    return seeds_from(options["seed"] or 0, number, called=("--seed", "-n"))


def _check_kind(card: Card, options: dict[str, Any]) -> None:
    """Classes for a model of classes, prompts for a model of text."""
    given = [name for name in ("prompt", "prompts", "negative") if options[name] not in (None, ())]
    if card.text is None and given:
        raise UserError(f"{card.name} draws classes, not text: leave out --{given[0]}, and name one with --class")
    if card.text is not None and options["classes"]:
        raise UserError(f"{card.name} draws from text: leave out --class, and say what to draw with --prompt")
    if options["prompt"] and options["prompts"] is not None:
        raise UserError("--prompts lists the prompts itself; leave out --prompt")
    if card.text is not None and not options["prompt"] and options["prompts"] is None:
        raise UserError(f'{card.name} draws from text: say what with --prompt "a red bus", or --prompts FILE')


def _prompts(options: dict[str, Any]) -> list[str]:
    from hastezoo.conditioning.prompts import read_prompts

    return list(options["prompt"]) if options["prompts"] is None else read_prompts(options["prompts"])
