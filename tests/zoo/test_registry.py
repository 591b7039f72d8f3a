"""Cards and protocols: valid, true to the files and models they describe, and found by name."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from hastezoo.conditioning.labels import class_names
from hastezoo.errors import UserError
from hastezoo.models.registry import create_model
from hastezoo.models.sit import parameter_count
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo import registry
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, ZOO, find_card, find_protocol, list_cards, package_cards
from hastezoo.zoo.weights import load_model, resolve, sha256_of

CARDS = list(package_cards())


@pytest.mark.parametrize("name", CARDS)
def test_card_is_true_to_its_architecture(name: str) -> None:
    card = find_card(name)
    with torch.device("meta"):
        model = create_model(card.architecture, **card.config)
    assert parameter_count(model) == card.parameters
    assert len(class_names(card.classes)) == model.config.num_classes  # type: ignore[union-attr]
    assert isinstance(find_protocol(card.protocol), Protocol)


@pytest.mark.parametrize("name", CARDS)
def test_embedded_weights_are_the_ones_the_card_describes(name: str) -> None:
    card = find_card(name)
    assert (card.status == "embedded") == (card.weights is not None)
    if card.weights is None:
        return
    path = resolve(card)
    assert path.stat().st_size == card.weights.bytes <= 8_000_000
    assert sha256_of(path) == card.weights.sha256
    model, metadata = load_model(path)
    assert metadata["architecture"] == card.architecture and metadata["weights"] == '"ema"'
    for key, value in card.config.items():
        assert getattr(model.config, key) == value


def test_default_checkpoint_ships_with_the_package() -> None:
    assert find_card(DEFAULT_CHECKPOINT).status == "embedded"


def test_every_embedded_file_has_a_card() -> None:
    files = {path.name for path in (ZOO / "embedded").glob("*.safetensors")}
    assert files == {card.weights.file for card in package_cards().values() if card.weights}


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown model 'sit-ti-digit'; nearest: sit-ti-digits"):
        find_card("sit-ti-digit")
    with pytest.raises(UserError, match="unknown protocol 'sit-od'; nearest: sit-ode"):
        find_protocol("sit-od")


def test_protocols_are_those_of_the_papers() -> None:
    haste, repa, ode, sde = (find_protocol(name) for name in ("haste", "repa", "sit-ode", "sit-sde"))
    assert (haste.solver, haste.steps, haste.cfg, haste.interval) == ("euler-maruyama", 250, 1.65, (0.0, 0.72))
    assert (haste.diffusion, haste.last_step, haste.last_step_size) == ("linear", "mean", 0.04)
    assert (haste.channels, haste.rounding, haste.count) == (None, "truncate", 50000)
    assert (repa.cfg, repa.interval) == (1.8, (0.0, 0.7))
    assert (ode.solver, ode.steps, ode.cfg, ode.channels, ode.rounding) == ("heun", 125, 1.5, 3, "nearest")
    assert (sde.diffusion, sde.channels) == ("sigma", 3)
    assert find_protocol("haste-512").cfg == 1.25 and find_protocol("coco").count == 40192
    assert find_protocol("haste-nocfg").cfg == find_protocol("repa-nocfg").cfg == 1


def write_user_card(home: Path, name: str, text: str | None = None) -> Path:
    folder = home / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    source = (ZOO / "cards" / "sit-ti-digits.toml").read_text()
    path = folder / f"{name}.toml"
    path.write_text(text if text is not None else source.replace('name = "sit-ti-digits"', f'name = "{name}"', 1))
    return path


def test_a_users_card_is_found_beside_its_weights(own_home: Path) -> None:
    path = write_user_card(own_home, "mine")
    shutil.copy(ZOO / "embedded" / "sit-ti-digits.safetensors", path.parent)
    assert "mine" in [card.name for card in list_cards()]
    assert resolve(find_card("mine")).parent == path.parent


def test_a_broken_or_clashing_user_card_is_passed_over_with_a_warning(own_home: Path) -> None:
    write_user_card(own_home, "broken", "name = ")
    write_user_card(own_home, "misspelt", 'naem = "x"')
    write_user_card(own_home, "sit-ti-digits")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cards = list_cards()
    assert [card.name for card in cards] == CARDS
    text = "\n".join(str(warning.message) for warning in caught)
    assert "cannot be read" in text and "is taken" in text and "misspelt.toml" in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        card = find_card("sit-ti-digits")
    assert card.weights_path == registry.ZOO / "embedded" / "sit-ti-digits.safetensors"


def test_an_unknown_key_in_a_card_names_the_nearest(own_home: Path) -> None:
    path = write_user_card(own_home, "x")
    path.write_text(path.read_text().replace("resolution = 8", "resolutoin = 8"))
    with pytest.raises(UserError, match="resolut"):
        registry.read_card(path, path.parent)


def test_home_is_where_the_environment_says(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.home() == own_home
    monkeypatch.delenv("HASTEZOO_HOME")
    assert registry.home().name == "hastezoo"
