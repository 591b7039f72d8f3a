"""`hastezoo list` and `hastezoo info`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hastezoo.cli.main import main
from hastezoo.zoo.registry import find_card, list_cards, package_cards


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_list_shows_every_checkpoint_and_what_is_known_of_it() -> None:
    output = run("list")
    for card in list_cards():
        row = next(line for line in output.splitlines() if line.startswith(card.name))
        assert (
            card.architecture in row
            and card.status in row
            and ("yes" in row) == (card.weights is not None)
            and f"{card.parameters / 1e6:.1f} M" in row
        )
        measured = card.best("measured")
        assert measured is None or f"{measured.value:g}" in row


def test_list_as_json_is_the_cards() -> None:
    assert json.loads(run("list", "--json")) == [card.model_dump(mode="json") for card in list_cards()]


def test_info_shows_the_whole_card() -> None:
    output = " ".join(run("info", "sit-ti-digits").split())
    card = json.loads(run("info", "sit-ti-digits", "--json"))
    for key in ("name", "title", "architecture", "licence", "status", "method"):
        assert card[key] in output
    assert card["weights"]["sha256"] in output and "null label 10" in output and "[digits-nocfg]" in output
    for result in card["results"]:
        assert f"{result['value']:g}" in output and result["source"] in output


@pytest.mark.parametrize("name", package_cards())
def test_info_of_every_checkpoint(name: str) -> None:
    output = " ".join(run("info", name).split())
    card = find_card(name)
    assert card.title in output and card.status in output and f"{card.parameters:,}" in output
    for origin in card.origins:
        assert str(origin) in output
    if card.classes:
        assert f"null label {card.config['num_classes']}" in output


def test_unknown_name_is_one_line() -> None:
    result = CliRunner().invoke(main, ["info", "sit-ti-digit"])
    assert result.exit_code == 2
    assert result.output.startswith("error: unknown model 'sit-ti-digit'; nearest: sit-ti-digits")
    assert result.output.count("\n") == 1


def test_unknown_command_names_the_nearest() -> None:
    result = CliRunner().invoke(main, ["sampel"])
    assert result.exit_code == 2 and "did you mean sample?" in result.output


def test_help_names_every_command() -> None:
    from hastezoo.cli.main import COMMANDS

    output = run("--help")
    for name in COMMANDS:
        assert f"  {name} " in output
        assert "Usage" in run(name, "--help")
