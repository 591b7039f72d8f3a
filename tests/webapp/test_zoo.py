"""The zoo's tab: what is found, what is shown of a card, and that a card is text and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from hastezoo.webapp import card_words
from hastezoo.webapp.studio import Studio
from hastezoo.webapp.tabs import zoo
from hastezoo.zoo.registry import find_card, list_cards

BAD = "<script>alert(1)</script>"
EVIL = f"""
name = "evil"
title = "{BAD}"
description = "<img src=x onerror=alert(1)>"
architecture = "sit_ti_2"
parameters = 1_865_988
method = "plain"
resolution = 8
classes = "digits"
protocol = "digits"
status = "upstream"
licence = "{BAD}"
data = "{BAD}"
papers = ["javascript:alert(1)", "https://example.org/'onclick='alert(1)"]

[config]
input_size = "{BAD}"

[[origins]]
page = "https://example.org/'{BAD}"
file = "{BAD}"
format = "sit"
note = "{BAD}"

[[results]]
metric = "{BAD}"
short = "{BAD}"
value = 1.0
kind = "measured"
source = "{BAD}"
protocol = "{BAD}"
note = "{BAD}"
"""


@pytest.fixture
def evil(own_home: Path) -> None:
    """A user's card that would run as a script."""
    folder = own_home / "cards"
    folder.mkdir(parents=True)
    (folder / "evil.toml").write_text(EVIL)


def found(text: str) -> set[str]:
    return {card.name for card in card_words.matching(list_cards(), text)}


def rows(html: str) -> list[str]:
    return re.findall(r"<tr data-name='([^']*)'", html)


def test_all_words_must_match_anywhere_and_in_any_case() -> None:
    everything = {card.name for card in list_cards()}
    assert found("") == found("  ") == everything
    assert found("sit-xl-haste") == {"sit-xl-haste", "sit-xl-haste-512"}
    assert found("HASTE digits") == found("digits haste") == {"sit-ti-digits-haste"}
    assert found("mmdit") == found("text") == {name for name in everything if name.startswith("mmdit")}
    assert found("text emoji") == {"mmdit-ti-emoji-haste"}
    assert found("512px xl") == {"sit-xl-512", "sit-xl-haste-512"}
    assert found("repa ready") == {"sit-ti-digits-repa"}
    assert found("nothing like it") == set()


def test_the_filtered_table_has_the_rows_and_says_how_many(studio: Studio) -> None:
    html = zoo.listed(studio, "digits", "sit-ti-digits-repa")
    assert rows(html) == ["sit-ti-digits", "sit-ti-digits-repa", "sit-ti-digits-haste"]
    assert "role='status'>3 checkpoints<" in html
    assert "<tr data-name='sit-ti-digits-repa' class=hz-chosen" in html
    assert html.count("aria-pressed='true'") == 1 and html.count("aria-pressed='false'") == 2
    assert "No checkpoint has all of these words" in zoo.listed(studio, "zebra")
    assert rows(zoo.listed(studio, None)) == [card.name for card in studio.cards]


def test_a_row_says_what_is_known_and_whose_the_figure_is(studio: Studio) -> None:
    html = card_words.listing([find_card("sit-xl-haste")])
    assert html.count("scope='col'") == len(card_words.COLUMNS) == 9 and "<caption" in html
    text = re.sub(r"<[^>]+>", " ", html.partition("<tbody>")[2])
    said = "sit-xl-haste SiT · 256 px 674.8 M 256 px HASTE 2,500,000 FID 1.42 reported fetched by hand none stated"
    assert " ".join(text.split()) == said


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("sit-ti-digits", "ready"),
        ("sit-xl", "fetched when used"),
        ("sit-xl-haste", "fetched by hand"),
        ("mmdit-coco", "none known"),
    ],
)
def test_where_the_weights_are(name: str, where: str) -> None:
    assert card_words.where(find_card(name)) == where


def test_a_card_shows_every_result_with_whose_it_is() -> None:
    for card in list_cards():
        html = card_words.described(card)
        assert html.count("'hz-tag hz-measured'") == sum(one.kind == "measured" for one in card.results)
        assert html.count("'hz-tag hz-reported'") == sum(one.kind == "reported" for one in card.results)
        assert all(f"<a href='{paper}' target='_blank' rel='noopener noreferrer'>" in html for paper in card.papers)
        assert f"{card.parameters:,}" in html


def test_a_card_shows_no_place_on_the_server(own_home: Path) -> None:
    card = find_card("sit-ti-digits-haste")
    assert str(card.weights_path) not in card_words.described(card) and "/embedded/" not in card_words.described(card)


@pytest.mark.usefixtures("evil")
def test_everything_of_a_card_is_escaped(studio: Studio) -> None:
    html = zoo.listed(studio, "evil") + card_words.described(find_card("evil"))
    html += "".join(str(one) for one in zoo.show(studio, {"model": "evil", "words": BAD}))
    assert rows(zoo.listed(studio, "evil")) == ["evil"]
    tags = set(re.findall(r"<(\w+)", html.replace(BAD, "", 1)))  # the filter's text is a text box's, not HTML
    assert not tags & {"script", "img"}, tags
    assert "href='javascript" not in html and "<li>javascript:alert(1)</li>" in html
    assert "'onclick" not in html and html.count("&lt;script&gt;") >= 10


def test_choosing_shows_the_card_and_what_can_be_done_with_it(studio: Studio) -> None:
    shown, generate, evaluate = zoo.choose(find_card("sit-xl"))
    assert "<h3>sit-xl</h3>" in shown and generate == "Generate with sit-xl"
    assert (evaluate["value"], evaluate["interactive"]) == ("Evaluate sit-xl", True)
    assert zoo.choose(find_card("mmdit-coco"))[2]["interactive"] is False, "it takes prompts from a file"


def test_a_link_opens_a_card_and_a_filter(studio: Studio) -> None:
    text, model, table, card, *_ = zoo.show(studio, {"words": "xl 512", "model": "sit-xl-512"})
    assert (text, model) == ("xl 512", "sit-xl-512") and "<h3>sit-xl-512</h3>" in card
    assert rows(table) == ["sit-xl-512", "sit-xl-haste-512"]


@pytest.mark.parametrize("name", ["nothing", ["sit-xl"], {"a": 1}, "../x"])
def test_a_card_that_is_not_there_is_said_in_a_line(name: Any, studio: Studio) -> None:
    with pytest.raises(gr.Error, match="unknown model"):
        zoo.show(studio, {"model": name})


def test_the_tab_names_its_fields_and_elements(studio: Studio) -> None:
    with gr.Blocks():
        tab = zoo.build(studio)
    assert set(tab.fields) == {"words", "model"} and len(tab.shown) == len(zoo.show(studio, {}))
    ids = {one.elem_id for one in [*tab.shown]}
    assert ids == {"zoo-words", "zoo-model", "zoo-table", "zoo-card", "zoo-generate", "zoo-evaluate"}
