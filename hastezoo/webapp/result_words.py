"""What the page says of evaluations, as HTML; everything that comes from outside is escaped."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from hastezoo.evaluation.references.named import named_references
from hastezoo.evaluation.results.comparison_tables import described, metric_rows, settings_rows
from hastezoo.evaluation.results.expected import stated
from hastezoo.evaluation.results.report import CURVE
from hastezoo.evaluation.results.result import footnotes, protocol_words, table_rows
from hastezoo.evaluation.run import GRID
from hastezoo.webapp import evaluating
from hastezoo.webapp.following import picture
from hastezoo.webapp.tables import link, table
from hastezoo.webapp.words import count, duration, outcome
from hastezoo.zoo.metrics import metric_name

if TYPE_CHECKING:
    from hastezoo.evaluation.results.comparison import Comparison
    from hastezoo.evaluation.results.result import EvaluationResult
    from hastezoo.webapp.evaluating import Evaluated
    from hastezoo.webapp.turns import Ticket
    from hastezoo.zoo.card import Card

NUMBERS = ("value", "error", "expected")
ABOUT = "<p class='hz-card-line'>{}</p>"


def reference_line(name: str) -> str:
    """What a named reference is, and where it is to be had if it is not here."""
    known = named_references().get(name)
    if known is None:
        return ABOUT.format("Real digits from scikit-learn: part of the package, nothing is fetched.")
    about = escape(known.description)
    if not evaluating.is_here(name):
        size = f", {known.bytes / 2**20:,.0f} MiB" if known.bytes else ""
        about += (
            f".<br><span class='hz-tag hz-recipe-only'>not here</span> {escape(known.file)}{size} is to be had from "
            f"{link(known.url, known.url.split('/')[2])}; it goes into the server's folder of references"
        )
    return ABOUT.format(f"{about}." + (f"<br>{escape(known.note)}." if known.note else ""))


def stated_line(card: Card) -> str:
    """The figure that a card states, which an evaluation is held against."""
    figure = stated(card)
    if card.text is not None:
        return ABOUT.format(
            "A model of text is measured with a file of prompts, which this page does not take: use "
            "<code>hastezoo eval-fid --prompts</code>."
        )
    if figure is None:
        return ABOUT.format("The card states no figure to hold a measurement against.")
    number = figure.count or evaluating.protocol_count(figure.protocol)
    over = f" over {number:,} images" if number else ""
    how = f", protocol {figure.protocol}" if figure.protocol else ", protocol not stated"
    said = f"{metric_name('fid', figure.features)} {figure.value:g}{over}{how}, {figure.kind} by {figure.source}"
    weights = "" if figure.features == "pixels" else (
        f" Seen with {figure.features}, whose weights are fetched if they are not here."
    )  # fmt: skip
    return ABOUT.format(f"Stated: {escape(said)}.{escape(weights)}")


def stopped(ticket: Ticket) -> str:
    """What a ticket says that came to no result."""
    if ticket.state == "failed":
        return outcome(ticket.error, "failed")
    now = ticket.progress
    where = f" at {now.text}" if now.text else ""
    step = f", step {now.step}" if now.step else ""
    kept = "whole chunks of 500 images are kept, and the same evaluation goes on from there"
    return outcome(f"cancelled{where}{step}; {kept}", "cancelled")


def evaluated(found: Evaluated) -> str:
    """The numbers with what to expect, the pictures, the settings."""
    result = found.result
    lines = [*found.notes, *footnotes(result)]
    notes = f"<ul class='hz-notes'>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""
    return (
        f"<section class='hz-result' aria-label='Result'><h3>{escape(result.name)}</h3>"
        f"<p class='hz-card-line'>{escape(described(result))}; {duration(found.seconds)}</p>"
        f"{table(table_rows(result), caption='The metrics', right=NUMBERS)}{notes}"
        f"<div class='hz-columns hz-pictures'>{_pictures(found)}</div>"
        f"<details class='hz-details'><summary>Settings</summary>{settings_table(result)}</details></section>"
    )


def _pictures(found: Evaluated) -> str:
    name = found.result.name
    wanted = {
        CURVE: ("Distance against the number of images", f"Plot of the distance of the first N images of {name}"),
        GRID: ("The first images", f"Grid of the first images that {name} drew"),
    }
    shown = {file: found.picture(file) for file in wanted}
    return "".join(_figure(picture(path), *wanted[file]) for file, path in shown.items() if path is not None)


def _figure(source: str, caption: str, alt: str) -> str:
    kind = " class='hz-plot'" if alt.startswith("Plot") else ""
    return (
        f"<figure{kind}><img src='{source}' alt='{escape(alt)}'><figcaption class='hz-card-line'>{escape(caption)}"
        "</figcaption></figure>"
    )


def settings_table(result: EvaluationResult) -> str:
    """What the numbers depend on, and on what they were computed."""
    settings = result.settings
    reference = settings.reference
    drawn = {key: value for key, value in (settings.sampling or {}).items() if key not in ("labels", "count")}
    sampling = [f"{key.replace('_', ' ')} {_value(value)}" for key, value in drawn.items() if value is not None]
    facts: dict[str, Any] = {
        "checkpoint": settings.model,
        "sha256 of its weights": settings.weights_sha256,
        "training steps": settings.step and f"{settings.step:,}",
        "protocol": protocol_words(settings).replace("`", ""),
        "sampling": ", ".join(sampling),
        "labels": settings.labels,
        "images": settings.count and f"{settings.count:,} of {settings.resolution} px",
        "first seed": settings.seed,
        "autoencoder": settings.vae,
        "features": settings.features,
        "reference": reference and f"{reference.name}: {reference.description}",
        "images behind it": reference and reference.count and f"{reference.count:,}",
        "computed in": f"{settings.dtype} on {settings.device}, batches of {settings.batch_size}",
        "versions": ", ".join(f"{name} {version}" for name, version in settings.versions.items()),
        "date": settings.date,
    }
    rows = [{"setting": key, "value": value} for key, value in facts.items() if value not in (None, "")]
    return table(rows, caption="The settings", headings=False)


def _value(value: Any) -> str:
    return " to ".join(f"{one:g}" for one in value) if isinstance(value, list | tuple) else str(value)


def compared(comparison: Comparison, plot: bytes | None) -> str:
    """Two results side by side: their numbers and differences, what forbids to compare them, what else differs."""
    pairs = zip(comparison.names, comparison.results, strict=True)
    heads = "".join(f"<li><b>{escape(name)}</b> {escape(described(result))}</li>" for name, result in pairs)
    rows = metric_rows(comparison)
    parts = [f"<ul class='hz-notes'>{heads}</ul>"]
    parts.append(table(rows, caption="Metrics side by side", right=list(rows[0])[1:] if rows else ()))
    parts.append(_reasons(comparison))
    if plot is not None:
        data = f"data:image/png;base64,{base64.b64encode(plot).decode()}"
        names = " and ".join(result.name for result in comparison.results)
        figure = _figure(data, "Distance against the number of images", f"Plot of the distances of {names}")
        parts.append(f"<div class='hz-columns hz-pictures'>{figure}</div>")
    for title, settings in (("Settings", comparison.settings), ("Circumstances", comparison.circumstances)):
        if settings:
            differ = f"{title} that differ"
            content = table(settings_rows(comparison.names, settings), caption=differ)
            summary = f"{differ} ({count(len(settings), 'setting')})"
            parts.append(f"<details class='hz-details'><summary>{escape(summary)}</summary>{content}</details>")
    return f"<section class='hz-result' aria-label='Side by side'>{''.join(parts)}</section>"


def _reasons(comparison: Comparison) -> str:
    if not comparison.reasons:
        return "<p class='hz-status'>Taken with the same settings: the two can be compared.</p>"
    items = "".join(f"<li>{escape(reason)}</li>" for reason in comparison.reasons)
    return f"<p class='hz-status'>Not comparable, because:</p><ul class='hz-notes'>{items}</ul>"
