"""What the figures on cards say to a program: tied to what they say to people, and to the published table."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hastezoo.zoo.card import Card, Result
from hastezoo.zoo.metrics import KEYS, metric_name
from hastezoo.zoo.overrides import stated_protocol
from hastezoo.zoo.registry import find_card, list_cards, package_cards, protocols
from hastezoo.zoo.toml import to_toml
from tests.zoo.test_registry import write_user_card

FIGURES = [(name, index) for name, card in package_cards().items() for index in range(len(card.results))]
NAMES = {metric_name(key, features): (key, features) for key in KEYS for features in ("inception", "pixels")}


def figure_of(name: str, index: int) -> tuple[Card, Result]:
    card = find_card(name)
    return card, card.results[index]


def named(result: Result) -> tuple[str, str]:
    """The metric and features that the text for people names; nothing where no evaluation measures it."""
    text = result.short or result.metric
    found = [known for known in NAMES if re.match(rf"{known}(?![\w-])", text)]
    return NAMES[found[0]] if found else ("", "")


@pytest.mark.parametrize(("name", "index"), FIGURES)
def test_keys_say_what_the_text_says(name: str, index: int) -> None:
    card, result = figure_of(name, index)
    assert (result.key, result.features) == named(result)
    if not result.key:
        assert not result.reference and not result.step and not result.labels and not result.overrides
        return
    size = f"imagenet{card.resolution}"
    assert result.reference == ("digits" if result.features == "pixels" else size if card.classes else "coco256-val")
    told = re.search(r"\((\d+)K", result.metric)  # FID (100K), FID (250K, cfg 3.5)
    assert (result.step or card.steps) == (int(told[1]) * 1000 if told else card.steps)
    assert result.step != card.steps
    guided = re.search(r"cfg ([\d.]+)", result.metric)
    if guided and result.protocol:
        drawing = stated_protocol(result.protocol, result.overrides)
        assert drawing is not None and drawing.cfg == float(guided[1])
    assert set(result.overrides) <= {"cfg"} and (result.protocol or not result.overrides)
    assert result.protocol == "" or result.protocol in protocols()


@pytest.mark.parametrize(("name", "index"), FIGURES)
def test_published_figures_are_those_of_the_table(name: str, index: int, reported: list[dict[str, str]]) -> None:
    """Reference, step and guidance of the row that has this value."""
    card, result = figure_of(name, index)
    if result.kind != "reported":
        return
    column = {"fid": "fid", "sfid": "sfid", "is": "is"}[result.key]
    model = {"sit_b_2": "SiT-B/2", "sit_xl_2": "SiT-XL/2", "mmdit_coco": "MMDiT"}[card.architecture]
    method = {"plain": "SiT", "repa": "REPA", "haste": "HASTE"}[card.method]
    rows = [
        row
        for row in reported
        if (row["model"], row["method"], row["source"]) == (model, method, result.source)
        and row[column] and float(row[column]) == result.value
    ]  # fmt: skip
    assert rows
    row = rows[0]
    assert result.reference.removesuffix("-val") == row["dataset"]
    assert 1000 * int(row["iterations_k"]) == (result.step or card.steps)
    assert (result.protocol or "unknown") == row["protocol"]
    cfg = re.match(r"cfg ([\d.]+)", row["guidance"])
    drawing = stated_protocol(result.protocol, result.overrides)
    if drawing is not None:
        assert drawing.cfg == float(cfg[1]) if cfg else (drawing.cfg == 1) == row["guidance"].startswith("none")


def test_labels_are_stated_where_they_are_known() -> None:
    """REPA's 1.42 is of random labels, and our own figures are of the protocol's."""
    labelled = {card.name for card in package_cards().values() for result in card.results if result.labels}
    assert labelled == {"sit-xl-repa", *(name for name in package_cards() if "digits" in name)}
    assert {one.labels for card in package_cards().values() for one in card.results} == {"", "random"}


def test_features_are_inceptions_unless_told() -> None:
    fields: dict[str, Any] = {"metric": "x", "value": 1.0, "kind": "reported", "source": "y"}
    assert Result(**fields).features == "" and Result(**fields, key="fid").features == "inception"
    assert Result(**fields, key="fid", features="pixels").features == "pixels"
    with pytest.raises(ValueError, match="key"):
        Result(**fields, key="fd")


def test_a_figure_survives_toml(own_home: Path) -> None:
    figure: dict[str, Any] = {
        "metric": "FID", "value": 2.0, "kind": "measured", "source": "x", "protocol": "haste", "key": "fid",
        "features": "dinov2", "reference": "digits", "step": 7, "labels": "balanced",
        "overrides": {"steps": 50, "interval": [0.1, 0.5]},
    }  # fmt: skip
    path = write_user_card(own_home, "mine")
    values = tomllib.loads(path.read_text())
    path.write_text(to_toml({**values, "results": [figure]}))
    (result,) = next(card for card in list_cards() if card.name == "mine").results
    assert result == Result(**figure)
    drawing = stated_protocol(result.protocol, result.overrides)
    assert drawing is not None and (drawing.steps, drawing.interval, drawing.cfg) == (50, (0.1, 0.5), 1.65)
