"""Publishing: to a Hub on this machine, by the real client; and what must not be published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load

from hastezoo.errors import UserError
from hastezoo.loading import load_network
from hastezoo.zoo.importing import import_file
from hastezoo.zoo.modelfile import save_model
from hastezoo.zoo.publish import pack, push
from hastezoo.zoo.registry import find_card, package_cards
from hastezoo.zoo.weights import resolve
from tests.local_hub import COMMIT, LocalHub
from tests.word_models import WORDS, write_word_checkpoint
from tests.zoo.cards import origin, write_card
from tests.zoo.foreign import random_sit, save_repa, state_of

REPO = "me/tiny"
RELEASED = origin(page="https://lab.example/weights", file="last.pt", format="haste")


@pytest.fixture
def stored(own_home: Path, tmp_path: Path) -> Path:
    save_repa(tmp_path / "last.pt", random_sit(), attn_coeff=0.5)
    return import_file(write_card(own_home, origins=RELEASED), tmp_path / "last.pt").path


def front_matter(readme: str) -> dict[str, Any]:
    _, text, _ = readme.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def test_push_and_pull_again(stored: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    card = find_card("tiny")
    url = push(pack(card, stored, REPO), REPO, private=True)
    assert url == f"{local_hub.url}/{REPO}/commit/{COMMIT}"
    assert (
        "private" in (local_hub.created[0].get("visibility"), *local_hub.created[0]) and len(local_hub.commits) == 4
    )  # a header and three files, at once
    files = local_hub.of(REPO)
    assert set(files) == {"model.safetensors", "README.md", "config.json"}
    assert files["model.safetensors"] == stored.read_bytes()
    assert json.loads(files["config.json"])["architecture"] == "sit"
    matter = front_matter(files["README.md"].decode())
    assert (matter["license"], matter["library_name"]) == ("mit", "hastezoo")
    expected = state_of(random_sit())
    network = load_network(card, resolve(card, f"hub:{REPO}"))
    assert all(torch.equal(network.state_dict()[key], expected[key]) for key in expected)


def test_without_a_token_the_refusal_is_one_line(
    stored: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"{local_hub.url}/nowhere")
    with pytest.raises(UserError, match="hub:me/tiny: ") as caught:
        push(pack(find_card("tiny"), stored, REPO), REPO)
    assert "\n" not in str(caught.value) and local_hub.commits == []


def test_weights_that_may_not_be_passed_on_are_refused(own_home: Path, tmp_path: Path) -> None:
    """HASTE's repository states no licence: what it released stays where it is. What was trained here is one's own."""
    save_repa(tmp_path / "last.pt", random_sit(), attn_coeff=0.5)
    card = write_card(own_home, licence="none stated", redistribution="unstated", origins=RELEASED)
    path = import_file(card, tmp_path / "last.pt").path
    with pytest.raises(UserError, match="does not say that its weights may be passed on"):
        pack(card, path, REPO, "mit")
    save_model(tmp_path / "own.safetensors", random_sit(1), "sit", weights="ema")
    with pytest.raises(UserError, match="say under which licence"):
        pack(card, tmp_path / "own.safetensors", REPO)
    assert front_matter(pack(card, tmp_path / "own.safetensors", REPO, "cc-by-4.0").readme)["license"] == "cc-by-4.0"


def test_a_released_licence_stays(stored: Path) -> None:
    with pytest.raises(UserError, match=r"was released under MIT; it cannot be published under apache-2\.0"):
        pack(find_card("tiny"), stored, REPO, "apache-2.0")


def test_a_release_is_not_passed_on_under_another_cards_licence(own_home: Path, tmp_path: Path) -> None:
    """HASTE's file has the shapes of REPA's, and REPA's card a licence that allows it."""
    save_repa(tmp_path / "last.pt", random_sit(), attn_coeff=0.5)
    repa = origin(page="https://lab.example/weights", file="last.pt", format="repa")
    card = write_card(own_home, method="repa", origins=repa)
    path = import_file(card, tmp_path / "last.pt").path
    with pytest.raises(UserError, match="from a release in the format 'haste', those of tiny from repa"):
        pack(card, path, REPO)


def test_own_weights_stay_ones_own_through_the_store(own_home: Path, tmp_path: Path) -> None:
    """A file that a recipe wrote has no origin, imported or not; one that was released keeps its own."""
    save_model(tmp_path / "own.safetensors", random_sit(1), "sit", weights="ema")
    card = write_card(own_home, licence="none stated", redistribution="unstated", origins=RELEASED)
    path = import_file(card, tmp_path / "own.safetensors").path
    readme = pack(card, path, REPO, "mit").readme
    assert "Written by a recipe" in readme
    save_repa(tmp_path / "last.pt", random_sit(), attn_coeff=0.5)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(import_file(card, tmp_path / "last.pt", force=True).path.read_bytes())
    path = import_file(card, copy, force=True).path
    with pytest.raises(UserError, match="may be passed on"):
        pack(card, path, REPO, "mit")


def test_published_figures_are_not_claimed_for_other_weights(own_home: Path, tmp_path: Path) -> None:
    from hastezoo.zoo.card import Result

    figure = Result(metric="FID", value=1.5, kind="reported", source="a paper")
    card = write_card(own_home, origins=RELEASED).model_copy(update={"results": [figure]})
    save_model(tmp_path / "own.safetensors", random_sit(), "sit")
    assert "not of these weights" in pack(card, tmp_path / "own.safetensors", REPO).readme
    save_repa(tmp_path / "last.pt", random_sit(), attn_coeff=0.5)
    assert "not of these weights" not in pack(card, import_file(card, tmp_path / "last.pt").path, REPO).readme
    assert (
        "not of these weights"
        not in pack(find_card("sit-ti-digits"), resolve(find_card("sit-ti-digits")).path, REPO).readme
    )


def test_weights_that_are_not_sound_are_refused(own_home: Path, tmp_path: Path) -> None:
    model = random_sit()
    with torch.no_grad():
        model.final_layer.linear.bias[0] = float("nan")
    save_model(tmp_path / "nan.safetensors", model, "sit")
    card = write_card(own_home)
    with pytest.raises(
        UserError, match=r"not fit to be published: finite: NaN or infinity in final_layer\.linear\.bias"
    ):
        pack(card, tmp_path / "nan.safetensors", REPO)
    save_repa(tmp_path / "last.pt", random_sit())
    with pytest.raises(UserError, match="hastezoo import tiny"):
        pack(card, tmp_path / "last.pt", REPO)


def test_model_card_of_the_shipped_checkpoint(own_home: Path) -> None:
    """Front matter in YAML, every result with its kind, Python that runs."""
    card = find_card("sit-ti-digits")
    readme = pack(card, resolve(card).path, "me/digits").readme
    matter = front_matter(readme)
    assert matter["license"] == "apache-2.0" and matter["pipeline_tag"] == "unconditional-image-generation"
    for result in card.results:
        assert f"{result.value:g}" in readme and f"*{result.kind}* by {result.source}" in readme
    code = readme.split("```python\n")[1].split("```")[0].replace(', weights="hub:me/digits"', "")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert len(scope["images"]) == 2


def test_unknown_licences_are_named(own_home: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "own.safetensors", random_sit(), "sit")
    matter = front_matter(pack(write_card(own_home), tmp_path / "own.safetensors", REPO, "My licence 1.0").readme)
    assert (matter["license"], matter["license_name"]) == ("other", "My licence 1.0")


@pytest.mark.parametrize("name", [name for name, card in package_cards().items() if card.origins])
def test_released_cards_have_licences_that_the_hub_knows(name: str) -> None:
    from hastezoo.zoo.publish import LICENCES

    card = find_card(name)
    assert (card.licence.lower() in LICENCES) == (card.redistribution == "allowed")


def test_safetensors_of_a_push_have_their_config_inside(stored: Path) -> None:
    assert load(stored.read_bytes()).keys() == state_of(random_sit()).keys()
    parcel = pack(find_card("tiny"), stored, REPO)
    assert parcel.config["width"] == 16 and parcel.config["heads"] == 2


def test_model_card_of_a_model_of_words(own_home: Path) -> None:
    """Its config names the vocabulary, its front matter says that it draws from text, and its Python runs."""
    card = write_word_checkpoint(own_home)
    parcel = pack(card, resolve(card).path, "me/words")
    assert "| text | words that the network encodes itself, 6 of a prompt |" in parcel.readme
    assert front_matter(parcel.readme)["pipeline_tag"] == "text-to-image"
    assert json.loads(json.dumps(parcel.config))["words"] == WORDS and parcel.config["architecture"] == "word_mmdit"
    code = parcel.readme.split("```python\n")[1].split("```")[0].replace(', weights="hub:me/words"', "")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert [image.size for image in scope["images"]] == [(8, 8)]


def test_the_text_of_other_model_cards_names_its_encoder() -> None:
    from hastezoo.zoo.publish import _text

    card = find_card("mmdit-coco-haste")
    assert card.text is not None and _text(card.text) == f"{card.text.repo}, 77 tokens"
