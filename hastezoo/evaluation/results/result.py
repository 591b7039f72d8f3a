"""What an evaluation found: `result.json`, typed, and how it is shown: on the terminal, in a README."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from hastezoo.errors import UserError, explain
from hastezoo.evaluation.results.figures import Expected, Open
from hastezoo.evaluation.results.settings import Settings
from hastezoo.files import write_json
from hastezoo.zoo.metrics import DASH, KEYS, decimals, metric_name, metrics_of, shown
from hastezoo.zoo.overrides import overridden, setting

FILE = "result.json"
SHORT = {"precision": "P", "recall": "R"}  # at the head of a table for a README


class Value(Open):
    """A number, or why there is none.

    Attributes:
        value: None where it is not to be had.
        error: Its standard error, where that was estimated.
        reason: Why there is no value.
    """

    value: float | None = None
    error: float | None = None
    reason: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _finite(cls, given: Any) -> Any:
        """JSON has no NaN. A metric that is not finite is none, and says so."""
        if not isinstance(given, dict):
            return given
        lost = [key for key in ("value", "error") if _is_not_finite(given.get(key))]
        reason = {"reason": "it is not finite"} if "value" in lost and not given.get("reason") else {}
        return {**given, **dict.fromkeys(lost), **reason}


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class Curve(Open):
    """FID of the first `count` samples, and `limit`, what it would be of infinitely many, where that was estimated."""

    count: list[int] = Field(default_factory=list)
    fid: list[float] = Field(default_factory=list)
    limit: float | None = None

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.count) != len(self.fid):
            raise ValueError(f"{len(self.count)} counts do not go with {len(self.fid)} distances")
        return self


class EvaluationResult(Open):
    """What `result.json` holds.

    Attributes:
        metrics: By key: fid, sfid, is, precision, recall, kid, precision_float32, recall_float32.
        settings: All that they depend on.
        expected: The card's figures.
        notes: What a reader should know.
        curve: FID against the number of samples.
    """

    metrics: dict[str, Value]
    settings: Settings = Settings()
    expected: list[Expected] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    curve: Curve | None = None

    @property
    def name(self) -> str:
        """What was measured: the checkpoint, or the samples."""
        return self.settings.model or self.settings.samples or "samples"


def read_result(path: Path) -> EvaluationResult:
    """Read a result.

    Args:
        path: The file, or the folder that holds `result.json`.

    Raises:
        UserError: If there is none, or it is something else.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return EvaluationResult.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        where = f"{path} holds no {FILE}" if path.is_dir() else f"there is no file {path}"
        raise UserError(f"{where}; name a folder or file that `hastezoo eval-fid` wrote") from None
    except ValidationError as error:
        raise UserError(f"{explain(error, EvaluationResult, str(file))}: no result of an evaluation") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UserError(f"{file} cannot be read: {reason}") from None


def write_result(result: EvaluationResult, path: Path) -> None:
    """Write a result, whole or not at all.

    Args:
        result: To write.
        path: The file, or the folder for `result.json`.
    """
    write_json(path / FILE if path.is_dir() else path, result.model_dump(mode="json"))


def table_rows(result: EvaluationResult) -> list[dict[str, object]]:
    """A row a metric for the terminal, with what the card expects; `footnotes` says what `[1]` stands for."""
    unlike, rows = _unlike(result), []
    for key in _keys(result):
        value = result.metrics[key]
        row: dict[str, object] = {
            "metric": metric_name(key, result.settings.features),
            "value": shown(key, value.value, value.error),
            "error": shown(key, value.error, value.error),
        }
        figures = [one for one in result.expected if one.key == key]
        rows.append(row | _held_against(figures[0] if figures else None, value, unlike))
        rows += [dict.fromkeys(row, "") | _held_against(one, value, unlike) for one in figures[1:]]
    if not result.expected:
        return [{key: row[key] for key in ("metric", "value", "error")} for row in rows]
    return rows


def _held_against(figure: Expected | None, value: Value, unlike: dict[tuple[str, ...], int]) -> dict[str, object]:
    if figure is None:
        return {"expected": "", "comparable": ""}
    verdict = figure.verdict(value.value, value.error)
    comparable = f"no [{unlike[tuple(figure.reasons)]}]" if figure.reasons else f"yes: {verdict}" if verdict else "yes"
    return {"expected": f"{_number(figure)} {figure.kind}", "comparable": comparable}


def _number(figure: Expected) -> str:
    """As it was published: no digits are made up, but for those that a file of numbers dropped."""
    text = f"{figure.value:g}"
    return text if len(text.partition(".")[2]) >= decimals(figure.key) else shown(figure.key, figure.value)


def _keys(result: EvaluationResult) -> list[str]:
    known = [key for key in KEYS if key in result.metrics]
    return known + [key for key in result.metrics if key not in known]


def _unlike(result: EvaluationResult) -> dict[tuple[str, ...], int]:
    """The number of the footnote for each set of reasons."""
    groups = dict.fromkeys(tuple(figure.reasons) for figure in result.expected if figure.reasons)
    return {reasons: number for number, reasons in enumerate(groups, 1)}


def footnotes(result: EvaluationResult) -> list[str]:
    """The lines under the table: where figures are from, why they cannot be compared, what is missing, the notes."""
    lines = []
    for reasons, number in _unlike(result).items():
        figures = _figures(result, [one for one in result.expected if tuple(one.reasons) == reasons])
        lines.append(f"[{number}] {figures}: not comparable, because {'; '.join(reasons)}")
    if figures := _figures(result, [one for one in result.expected if not one.reasons]):
        lines.append(f"expected: {figures}")
    lines += _missing(result, _keys(result))
    lines += dict.fromkeys(remark for figure in result.expected for remark in figure.remarks)
    return [*lines, *result.notes]


def _figures(result: EvaluationResult, figures: list[Expected]) -> str:
    """Figures by source: `FID 1.42 and sFID 4.70 reported by the HASTE rebuttal`."""
    sources = dict.fromkeys((figure.kind, figure.source) for figure in figures)
    parts = []
    for kind, source in sources:
        own = [one for one in figures if (one.kind, one.source) == (kind, source)]
        named = ", ".join(f"{metric_name(one.key, result.settings.features)} {_number(one)}" for one in own)
        parts.append(f"{named} {kind} by {source}")
    return "; ".join(parts)


def _missing(result: EvaluationResult, keys: Collection[str]) -> list[str]:
    """Metrics without a value, by reason, a line each."""
    reasons: dict[str, list[str]] = {}
    for key in keys:
        if key in result.metrics and result.metrics[key].value is None:
            name = metric_name(key, result.settings.features)
            reasons.setdefault(result.metrics[key].reason or "not measured", []).append(name)
    return [f"no {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def markdown_table(results: Sequence[EvaluationResult]) -> str:
    """Results as a table, one a row, with the reasons for what is missing below it; a table for each kind of features.

    Args:
        results: In the order of the rows.
    """
    kinds = dict.fromkeys(result.settings.features for result in results)
    return "\n\n".join(_table([one for one in results if one.settings.features == kind]) for kind in kinds)


def markdown_row(result: EvaluationResult, keys: Sequence[str] = ()) -> str:
    """One result as a row.

    Args:
        result: What was measured.
        keys: Its metrics; by default those that its features have, KID only where it was measured.
    """
    settings = result.settings
    reference = settings.reference
    cells = [
        _title(result),
        DASH if settings.step is None else f"{settings.step:,}",
        _safe(protocol_words(settings)),
        DASH if settings.count is None else f"{settings.count:,}",
        settings.labels or DASH,
        *(_cell(result, key) for key in keys or _columns([result])),
        _safe((reference.name or reference.description) if reference else DASH),
    ]
    return _line(cells)


def protocol_words(settings: Settings) -> str:
    """The protocol, with what was changed of it: `haste` with steps 50."""
    if settings.protocol is None:
        return DASH
    changed = [setting(key, value) for key, value in overridden(settings.sampling, settings.protocol).items()]
    return f"`{settings.protocol}`" + (f" with {', '.join(changed)}" if changed else "")


def _table(results: Sequence[EvaluationResult]) -> str:
    keys = _columns(results)
    names = [_heading(key, results[0].settings.features) for key in keys]
    head = ["model", "steps", "protocol", "n", "labels", *names, "reference"]
    lines = [_line(head), _line(["---"] * len(head)), *(markdown_row(one, keys) for one in results)]
    notes = [f"- {_title(one)}: {line}" for one in results for line in _missing(one, keys)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _title(result: EvaluationResult) -> str:
    settings = result.settings
    other = f" with {_safe(Path(settings.weights).name)}" if settings.weights else ""  # not the card's own weights
    return f"`{settings.model}`{other}" if settings.model else _safe(result.name)


def _columns(results: Sequence[EvaluationResult]) -> list[str]:
    """The metrics that the features have; KID, which few publish, where somebody measured it."""
    measured = {key for result in results for key, value in result.metrics.items() if value.value is not None}
    return [key for key in metrics_of(results[0].settings.features) if key != "kid" or key in measured]


def _heading(key: str, features: str) -> str:
    return SHORT.get(key, metric_name(key)) if features == "inception" else metric_name(key, features)


def _cell(result: EvaluationResult, key: str) -> str:
    value = result.metrics.get(key)
    if value is None or value.value is None:
        return DASH
    error = f" ± {shown(key, value.error, value.error)}" if value.error else ""
    return shown(key, value.value, value.error) + error


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
