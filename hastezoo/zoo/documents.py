"""The tables of checkpoints in the documents, written from the cards.

python -m hastezoo.zoo.documents            # rewrites the tables in README.md and MODEL_CARD.md of a checkout
python -m hastezoo.zoo.documents --check    # fails if one is out of date
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hastezoo.errors import UserError
from hastezoo.files import atomic_write
from hastezoo.zoo.card import Card, Result
from hastezoo.zoo.registry import package_cards
from hastezoo.zoo.weights import recipe_exists

BEGIN, END = "<!-- checkpoints: `make documents` writes this table -->", "<!-- end of checkpoints -->"
# Which columns a document shows; None for all.
DOCUMENTS = {"README.md": ("name", "parameters", "size", "steps", "quality", "weights"), "MODEL_CARD.md": None}


def table(cards: Sequence[Card], columns: Sequence[str] | None = None) -> str:
    """Checkpoints as a Markdown table.

    Args:
        cards: One a row.
        columns: Some of the columns; None for all.
    """
    rows = [_row(card) for card in cards]
    chosen = list(columns or rows[0])
    lines = [chosen, ["---"] * len(chosen), *([row[column] for column in chosen] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(card: Card) -> dict[str, str]:
    return {
        "name": f"`{card.name}`",
        "architecture": f"`{card.architecture}`",
        "parameters": f"{card.parameters / 1e6:.1f} M",
        "size": f"{card.resolution} px",
        "method": card.method,
        "steps": steps(card),
        "quality": quality(card),
        "weights": where(card),
        "licence": card.licence,
    }


def steps(card: Card) -> str:
    """Training steps of the weights; in brackets what a recipe is to run, where there are no weights."""
    if card.steps is None:
        return "-"
    return f"({card.steps:,})" if card.status == "recipe-only" else f"{card.steps:,}"


def quality(card: Card) -> str:
    """The first measured number, else the first reported one, with where it is from."""
    result = card.best("measured") or card.best("reported")
    return (
        "-"
        if result is None
        else f"{result.metric} {result.value:g} ({_conditions(result)}), *{result.kind}* by {result.source}"
    )


def _conditions(result: Result) -> str:
    count = f"{result.count:,} samples" if result.count else ""
    protocol = f"protocol `{result.protocol}`" if result.protocol else "protocol not stated"
    return ", ".join(part for part in (protocol, count) if part)


def where(card: Card) -> str:
    """Where the weights are, in words."""
    if card.status == "embedded":
        return "in the package"
    if not card.origins:
        return f"none known; `hastezoo.recipes.{card.recipe}` trains it" if recipe_exists(card) else "none known"
    first = card.origins[0]
    if first.repo:
        return f"[{first.repo}](https://huggingface.co/{first.repo})"
    return "direct link" if first.url else f"[by hand]({first.page}), then `hastezoo import`"


def updated(text: str, columns: Sequence[str] | None) -> str:
    """A document with its table written anew.

    Raises:
        UserError: If it has no place for one.
    """
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise UserError(f"the document has no lines {BEGIN!r} and {END!r} to put the table between")
    block = f"{BEGIN}\n\n{table(list(package_cards().values()), columns)}\n\n{END}"
    return pattern.sub(lambda _: block, text)


def main(arguments: Sequence[str]) -> int:
    """Write the tables, or check them."""
    root = Path(__file__).resolve().parents[2]
    stale = []
    for name, columns in DOCUMENTS.items():
        path = root / name
        text = path.read_text(encoding="utf-8")
        fresh = updated(text, columns)
        if fresh != text:
            stale.append(name)
            if "--check" not in arguments:
                atomic_write(path, fresh.encode())
    if stale:
        print(f"{'out of date' if '--check' in arguments else 'written'}: {', '.join(stale)}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
