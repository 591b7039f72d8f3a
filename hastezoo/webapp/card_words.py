"""What the page says of the zoo: its checkpoints as a table, and one of them in full. A user's card is text like any
other: everything is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hastezoo.webapp.tables import link, table
from hastezoo.webapp.words import count, family
from hastezoo.zoo.card import Card, Origin, Result
from hastezoo.zoo.documents import steps
from hastezoo.zoo.facts import facts
from hastezoo.zoo.weights import is_here

METHODS = {"plain": "plain", "repa": "REPA", "haste": "HASTE"}
COLUMNS = ("name", "family", "parameters", "size", "method", "steps", "quality", "weights", "licence")
NUMBERS = ("parameters", "size", "steps")
# Facts that the page says otherwise, or that are the server's own affair: where its files are.
ELSEWHERE = ("name", "title", "description", "papers", "weights", "status")
NOTHING = "<p class='hz-status'>No checkpoint has all of these words.</p>"


def matching(cards: Sequence[Card], text: str) -> list[Card]:
    """The checkpoints that have every word of a text somewhere: in their name, family, method, data, ..."""
    wanted = text.casefold().split()
    return [card for card in cards if all(one in _said(card) for one in wanted)]


def _said(card: Card) -> str:
    every = [
        card.name, card.title, card.description, card.architecture, family(card), card.method, card.classes or "text",
        f"{card.resolution} px {card.resolution}px", card.status, where(card), card.licence, card.data,
        *(f"{result.metric} {result.short} {result.kind}" for result in card.results),
    ]  # fmt: skip
    return "\n".join(every).casefold()


def where(card: Card) -> str:
    """Where the weights are, in a word or two."""
    if is_here(card):
        return "ready"
    if not card.origins:
        return "none known"
    return "fetched when used" if any(origin.downloadable for origin in card.origins) else "fetched by hand"


def listing(cards: Sequence[Card], chosen: str = "") -> str:
    """Checkpoints as a table whose rows can be chosen.

    Args:
        cards: One a row.
        chosen: Name of the one that is.
    """
    head = "".join(f"<th scope='col'{_kind(one)}>{one}</th>" for one in COLUMNS)
    body = "".join(_row(card, card.name == chosen) for card in cards)
    said = f"<p class='hz-card-line' role='status'>{count(len(cards), 'checkpoint')}</p>"
    if not cards:
        return said + NOTHING
    return (
        f"{said}<div class='hz-scroll hz-zoo' role='region' aria-label='Checkpoints' tabindex='0'>"
        "<table class='hz-table'><caption class='hz-unseen'>Checkpoints; the button in a row shows its card</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(card: Card, chosen: bool) -> str:
    name = escape(card.name)
    cells = {
        "family": family(card),
        "parameters": f"{card.parameters / 1e6:,.1f} M",
        "size": f"{card.resolution} px",
        "method": METHODS[card.method],
        "steps": steps(card),
    }
    state = "<span class='hz-tag hz-{}'>{}</span>".format("embedded" if is_here(card) else card.status, where(card))
    return (
        f"<tr data-name='{name}'{' class=hz-chosen' if chosen else ''}><th scope='row'>"
        f"<button type='button' aria-pressed='{str(chosen).lower()}'>{name}</button></th>"
        + "".join(f"<td{_kind(key)}>{escape(text)}</td>" for key, text in cells.items())
        + f"<td>{_quality(card)}</td><td>{state}</td><td>{escape(card.licence)}</td></tr>"
    )


def _kind(column: str) -> str:
    return " class='hz-number'" if column in NUMBERS else ""


def _quality(card: Card) -> str:
    """The first measured number, else the first reported one."""
    result = card.best("measured") or card.best("reported")
    if result is None:
        return "-"
    return f"{escape(result.short or result.metric)} {result.value:g} {_whose(result)}"


def _whose(result: Result) -> str:
    return f"<span class='hz-tag hz-{result.kind}'>{result.kind}</span>"


def described(card: Card) -> str:
    """All there is to know of a checkpoint."""
    known = {key: value for key, value in facts(card).items() if not key.startswith(("result ", "origin "))}
    rows = [{"fact": key, "value": value} for key, value in known.items() if key not in ELSEWHERE]
    status = f"<span class='hz-tag hz-{'embedded' if is_here(card) else card.status}'>{where(card)}</span>"
    return (
        f"<article class='hz-result' aria-label='{escape(card.name)}'><h3>{escape(card.name)}</h3>"
        f"<p class='hz-card-line'>{status} {escape(card.title)}</p><p>{escape(card.description)}</p>"
        f"<h4>Results</h4>{_results(card)}<h4>Facts</h4>{table(rows, caption='Facts', headings=False)}"
        f"{_links('Papers', [link(one) for one in card.papers])}"
        f"{_links('Where the weights are from', [_origin(one) for one in card.origins])}</article>"
    )


def _results(card: Card) -> str:
    if not card.results:
        return "<p>The card states no figures.</p>"
    return f"<ul class='hz-notes'>{''.join(f'<li>{_result(one)}</li>' for one in card.results)}</ul>"


def _result(result: Result) -> str:
    over = f" over {result.count:,}" if result.count else ""
    how = f"protocol {result.protocol}" if result.protocol else "protocol not stated"
    note = f" ({escape(result.note)})" if result.note else ""
    return (
        f"<b>{escape(result.metric)} {result.value:g}</b>{over}, {escape(how)} {_whose(result)} by "
        f"{escape(result.source)}{note}"
    )


def _origin(origin: Origin) -> str:
    """A link to a place on the Hub, a file, or a page."""
    address = f"https://huggingface.co/{origin.repo}" if origin.repo else origin.url or origin.page or ""
    place = link(address, origin.repo or address)
    digest = f", sha256 {origin.sha256}" if origin.sha256 else ""
    note = f" ({escape(origin.note)})" if origin.note else ""
    return f"{escape(origin.file)} at {place}{digest}{note}"


def _links(title: str, items: list[str]) -> str:
    if not items:
        return ""
    return f"<h4>{title}</h4><ul class='hz-notes'>{''.join(f'<li>{one}</li>' for one in items)}</ul>"
