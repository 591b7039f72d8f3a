"""Cards and protocols: valid, true to the files and models they describe, and found by name."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from hastezoo.conditioning.labels import class_names
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.home import home
from hastezoo.models.layers import parameter_count
from hastezoo.models.registry import create_model
from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo import registry
from hastezoo.zoo.modelfile import load_model
from hastezoo.zoo.registry import DEFAULT_CHECKPOINT, ZOO, find_card, find_protocol, list_cards, package_cards
from hastezoo.zoo.weights import resolve

CARDS = list(package_cards())


@pytest.mark.parametrize("name", CARDS)
def test_card_is_true_to_its_architecture(name: str) -> None:
    card = find_card(name)
    assert isinstance(find_protocol(card.protocol), Protocol)
    assert card.config["input_size"] * card.autoencoder.downsampling == card.resolution
    with torch.device("meta"):
        model = create_model(card.architecture, **card.config)
    assert parameter_count(model) == card.parameters
    if card.classes is not None:
        assert len(class_names(card.classes)) == model.config.num_classes  # type: ignore[union-attr]


def test_every_promised_checkpoint_has_a_card() -> None:
    wanted = {f"sit-{size}" for size in ("s", "b", "l", "xl")} | {"sit-xl-512", "sit-xl-haste-512", "sit-ti-digits"}
    wanted |= {f"sit-{size}-{method}" for size in ("b", "l", "xl", "ti-digits") for method in ("repa", "haste")}
    wanted |= {"mmdit-coco", "mmdit-coco-repa", "mmdit-coco-haste", "mmdit-ti-emoji-haste"}
    assert set(CARDS) == wanted


@pytest.mark.parametrize("name", CARDS)
def test_card_states_what_the_methods_fix(name: str) -> None:
    """Original SiT runs time the other way and has 2C channels, REPA and HASTE do not. Latents: 0.18215."""
    card = find_card(name)
    original = card.architecture.startswith("sit") and card.method == "plain" and card.status != "embedded"
    assert bool(card.config.get("reversed_time")) == bool(card.config.get("learn_sigma")) == original
    described = card.autoencoder
    if card.resolution > 32:  # the package's own are models of pixels
        assert (described.repo, described.scale, described.bias) == ("stabilityai/sd-vae-ft-ema", 0.18215, 0.0)
    if "512" in name and card.method == "haste":
        assert card.protocol == "haste-512"
    elif card.classes == "imagenet":
        assert card.protocol == {"plain": "sit-ode", "repa": "repa", "haste": "haste"}[card.method]
    assert all(origin.format in ("sit" if original else card.method, "hastezoo") for origin in card.origins)


@pytest.mark.parametrize("name", CARDS)
def test_reported_results_are_the_published_ones(name: str, reported: list[dict[str, str]]) -> None:
    """Each figure of a card stands in the table of published figures, with this method, architecture and source."""
    card = find_card(name)
    column = {"FID": "fid", "sFID": "sfid", "IS": "is"}
    architecture = {"sit_b_2": "SiT-B/2", "sit_xl_2": "SiT-XL/2", "mmdit_coco": "MMDiT"}
    method = {"plain": "SiT", "repa": "REPA", "haste": "HASTE"}[card.method]
    for result in card.results:
        if result.kind != "reported":
            continue
        rows = [
            row
            for row in reported
            if row["model"] == architecture[card.architecture]
            and row["method"] == method
            and row["source"] == result.source
            and row["protocol"] == (result.protocol or "unknown")
            and row[column[result.metric.split()[0]]] not in ("",)
            and float(row[column[result.metric.split()[0]]]) == result.value
        ]
        assert rows, result
        assert rows[0]["dataset"] == {256: "imagenet256", 512: "imagenet512"}[card.resolution] or card.classes is None


@pytest.mark.parametrize("name", CARDS)
def test_message_for_absent_weights_is_one_line_with_commands(name: str) -> None:
    card = find_card(name)
    if card.status == "embedded":
        return
    with pytest.raises(UserError) as caught:
        resolve(card, local=True)
    text = str(caught.value)
    assert "\n" not in text and name in text
    assert ("hastezoo pull" in text) == any(origin.downloadable for origin in card.origins)
    assert ("hastezoo import" in text) == any(not origin.downloadable for origin in card.origins)
    assert ("nobody hosts them" in text) == (card.status == "recipe-only")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('status = "hub"', "status 'hub' does not fit"),
        ('status = "upstream"', "status 'upstream' does not fit"),
        ('status = "recipe-only"', "status 'recipe-only' does not fit"),
    ],
)
def test_a_card_cannot_pretend(own_home: Path, line: str, message: str) -> None:
    path = write_user_card(own_home, "x")
    path.write_text(path.read_text().replace('status = "embedded"', line))
    with pytest.raises(UserError, match=message):
        registry.read_card(path, path.parent)


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ('repo = "a/b"\nurl = "https://x.org/f"\nfile = "f"', "exactly one of"),
        ('repo = "a/b"\nfile = "../../f"', "outside its folder"),
        ('repo = "a/b"\nfile = "/etc/passwd"', "outside its folder"),
        ('repo = "../b"\nfile = "f"', "repo"),
        ('url = "file:///etc/passwd"\nfile = "f"', "url"),
        ('url = "http://x.org/f"\nfile = "f"', "url"),
        ('url = "https://x.org/f"\nfile = "f"\nsha256 = "abc"', "sha256"),
    ],
)
def test_origins_are_checked(own_home: Path, origin: str, message: str) -> None:
    path = write_user_card(own_home, "x")
    path.write_text(f'{path.read_text()}\n[[origins]]\nformat = "sit"\n{origin}\n')
    with pytest.raises(UserError, match=message):
        registry.read_card(path, path.parent)


def test_weights_of_a_card_stay_in_its_folder(own_home: Path) -> None:
    path = write_user_card(own_home, "x")
    path.write_text(path.read_text().replace('file = "sit-ti', 'file = "../sit-ti'))
    with pytest.raises(UserError, match="outside its folder"):
        registry.read_card(path, path.parent)


@pytest.mark.parametrize("name", CARDS)
def test_embedded_weights_are_the_ones_the_card_describes(name: str) -> None:
    card = find_card(name)
    assert (card.status == "embedded") == (card.weights is not None)
    if card.weights is None:
        return
    path = resolve(card).path
    assert path.stat().st_size == card.weights.bytes <= {8: 8_000_000, 32: 16_000_000}[card.resolution]
    assert sha256_of(path) == card.weights.sha256
    model, metadata = load_model(path)
    assert metadata["architecture"] == card.architecture and metadata["weights"] == '"ema"'
    for key, value in card.config.items():
        assert getattr(model.config, key) == (tuple(value) if isinstance(value, list) else value)


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
    assert resolve(find_card("mine")).path.parent == path.parent


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
    assert home() == own_home
    monkeypatch.delenv("HASTEZOO_HOME")
    assert home().name == "hastezoo"
