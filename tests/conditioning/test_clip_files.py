"""Where a CLIP is found, on this machine or the Hub; what is none is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hastezoo.conditioning.clip import ClipText
from hastezoo.conditioning.clip_files import CLIP
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from tests.local_hub import COMMIT, LocalHub

FILES = ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.json", "merges.txt")


@pytest.fixture
def in_one(copy: Path, encoder: ClipText) -> Path:
    """A folder whose tokenizer is one file."""
    encoder.tokenizer.save_pretrained(copy)
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (copy / name).unlink()
    return copy


def serve(hub: LocalHub, folder: Path, repo: str = CLIP) -> None:
    for path in folder.iterdir():
        hub.files[repo, path.name] = path.read_bytes()


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_a_tokenizer_in_one_file(in_one: Path, encoder: ClipText) -> None:
    prompts = ["the red bus", "cafe\u0301 😀", "cat " * 99]
    assert torch.equal(ClipText.from_pretrained(in_one).states(prompts), encoder.states(prompts))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(UserError, match=rf"^the folder {copy} is no text encoder .* it has no {name}$"):
        ClipText.from_pretrained(copy)


def test_pickles_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"no model\.safetensors \(pytorch_model\.bin is not read: only safetensors are"
    ):
        ClipText.from_pretrained(copy)


@pytest.mark.parametrize(("how", "words"), [
    ("config", "has no readable config.json"),
    ("list", "has no readable config.json"),
    ("t5", "is no CLIP: its config.json says 't5'"),
    ("truncated", "cannot be loaded: "),
    ("width", "cannot be loaded: "),
    ("heads", "cannot be loaded: "),
    ("vocabulary", "cannot be loaded: "),
    ("layers", r"has no weights .*layers\.2.* \(16 are missing\)"),
    ("tokens", "has a tokenizer of 524 tokens and weights for 523"),
    ("image", r"has no weights .* \(36 are missing\)"),
    ("no-folder", "^there is no folder /.*; a text encoder is a folder, or owner/name of the Hub such as openai/clip"),
    ("folder-like", r"there is no folder \./some/clip"),
])  # fmt: skip
def test_what_is_no_text_encoder_is_refused_in_one_line(copy: Path, tmp_path: Path, how: str, words: str) -> None:
    config, weights, source = copy / "config.json", copy / "model.safetensors", str(copy)
    if how in ("config", "list"):
        config.write_text("{" if how == "config" else "[]")
    elif how == "t5":
        change(config, model_type="t5")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how in ("width", "heads", "layers"):
        change(config, **{"width": {"hidden_size": 64}, "heads": {"num_attention_heads": 5},
                          "layers": {"num_hidden_layers": 3}}[how])  # fmt: skip
    elif how == "vocabulary":
        (copy / "vocab.json").write_text("{")
    elif how == "tokens":
        vocabulary = json.loads((copy / "vocab.json").read_text(encoding="utf-8"))
        change(copy / "vocab.json", more=len(vocabulary))
    elif how == "image":
        save_file({"vision_model.x": torch.zeros(1)}, weights, {"format": "pt"})
    else:
        source = str(tmp_path / "nothing") if how == "no-folder" else "./some/clip"
    with pytest.raises(UserError, match=words) as caught:
        ClipText.from_pretrained(source)
    assert "\n" not in str(caught.value) and source in str(caught.value) and len(str(caught.value)) < 500


def test_it_comes_from_the_hub(whole: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """By owner/name, with or without the prefix and a revision, once; then from the cache without a request."""
    from huggingface_hub import constants

    serve(local_hub, whole)
    found = ClipText.from_pretrained()
    assert (found.source, found.revision, found.sha256) == (CLIP, COMMIT, sha256_of(whole / "model.safetensors"))
    expected = ClipText.from_pretrained(whole).states(["a cat"])
    assert torch.equal(found.states(["a cat"]), expected)
    assert ClipText.from_pretrained(f"hub:{CLIP}").source == CLIP
    assert ClipText.from_pretrained(f"{CLIP}@main").revision == COMMIT
    assert all("/config.json" in request for request in local_hub.requests if "/resolve/main/" in request), "one commit"
    assert sum("GET" in request and "/cdn/" in request for request in local_hub.requests) == 2, "weights, merges"
    asked = len(local_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(ClipText.from_pretrained().states(["a cat"]), expected) and len(local_hub.requests) == asked


def test_a_tokenizer_in_one_file_from_the_hub(in_one: Path, encoder: ClipText, local_hub: LocalHub) -> None:
    serve(local_hub, in_one, "me/clip")
    assert torch.equal(ClipText.from_pretrained("me/clip").states(["red cat"]), encoder.states(["red cat"]))


def test_what_the_hub_does_not_have(tiny_clip: Path, local_hub: LocalHub) -> None:
    with pytest.raises(
        UserError, match=rf"^the text encoder hub:{CLIP}:config\.json: there is no such .*--text-encoder"
    ):
        ClipText.from_pretrained()
    serve(local_hub, tiny_clip)
    del local_hub.files[CLIP, "model.safetensors"]
    local_hub.files[CLIP, "pytorch_model.bin"] = b"pickle"
    with pytest.raises(UserError, match=r"model\.safetensors: the repository has no such file") as caught:
        ClipText.from_pretrained()
    assert "\n" not in str(caught.value) and not any("pytorch_model" in request for request in local_hub.requests)
    serve(local_hub, tiny_clip, "some/clip")
    del local_hub.files["some/clip", "merges.txt"]
    with pytest.raises(UserError, match=r"merges\.txt: the repository has no such file"):
        ClipText.from_pretrained("hub:some/clip")
    with pytest.raises(UserError, match="is a file; a text encoder is a whole repository"):
        ClipText.from_pretrained(f"{CLIP}:model.safetensors")


def test_what_is_no_clip_is_refused_before_its_weights_come(copy: Path, local_hub: LocalHub) -> None:
    change(copy / "config.json", model_type="siglip")
    serve(local_hub, copy, "some/model")
    with pytest.raises(UserError, match=r"^some/model is no CLIP: its config\.json says 'siglip'$"):
        ClipText.from_pretrained("some/model")
    assert not any("safetensors" in request or "cdn" in request for request in local_hub.requests)
