"""Importing: foreign file -> the store, held against the card; verify and describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hastezoo.errors import UserError
from hastezoo.zoo import store
from hastezoo.zoo.importing import card_config, import_file, open_weights
from hastezoo.zoo.inspection import describe_file
from hastezoo.zoo.modelfile import load_model, read_metadata, save_model
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.verify import verify, verify_file
from tests.text_models import random_mmdit
from tests.zoo.cards import origin, write_card
from tests.zoo.foreign import (
    mmdit_state,
    projectors,
    random_sit,
    repa_arguments,
    repa_state,
    save_container,
    save_repa,
    state_of,
)


def test_round_trip_of_every_tensor(own_home: Path, tmp_path: Path) -> None:
    """convert -> save -> load: the same tensors, the projectors apart, the record true."""
    state = save_repa(tmp_path / "last.pt", random_sit(), steps=77, attn_coeff=0.5)
    card = write_card(own_home)
    entry = import_file(card, tmp_path / "last.pt")
    model, metadata = load_model(entry.path)
    loaded = {**model.state_dict(), **load_file(entry.folder / store.PROJECTORS)}
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
    assert (metadata["weights"], metadata["origin"], metadata["step"]) == ('"ema"', '"haste"', "77")
    record = entry.record
    assert (record.format, record.which, record.step, record.dtype) == ("haste", "ema", 77, "float32")
    assert record.notes == [] and record.bytes == entry.path.stat().st_size
    assert sorted(path.name for path in entry.folder.iterdir()) == [
        "model.safetensors",
        "projectors.safetensors",
        "record.json",
    ]
    assert all(check.good for check in verify(card))


def test_raw_weights_and_dtype(own_home: Path, tmp_path: Path) -> None:
    state = save_repa(tmp_path / "last.pt", random_sit())
    entry = import_file(write_card(own_home), tmp_path / "last.pt", ema=False, dtype="bfloat16")
    loaded = load_file(entry.path)
    for key, value in loaded.items():
        assert torch.equal(value, (state[key] + 1).to(torch.bfloat16))
    assert (entry.record.which, entry.record.dtype) == ("model", "bfloat16")


def test_original_sit_is_turned_round(own_home: Path, tmp_path: Path) -> None:
    model = random_sit(learn_sigma=True, reversed_time=True)
    torch.save(state_of(model), tmp_path / "SiT.pt")
    convention = {"learn_sigma": True, "reversed_time": True}
    entry = import_file(write_card(own_home, method="plain", config=convention), tmp_path / "SiT.pt")
    loaded, _ = load_model(entry.path)
    assert loaded.config == model.config  # type: ignore[union-attr]
    assert "whether it is the EMA is not stated" in entry.record.notes[0]
    with pytest.raises(UserError, match=r"learn_sigma True \(the card says False\), reversed_time True"):
        import_file(write_card(own_home, "other"), tmp_path / "SiT.pt")


def test_what_the_file_leaves_open_the_card_decides(own_home: Path, tmp_path: Path) -> None:
    torch.save({"ema": state_of(random_sit())}, tmp_path / "x.pt")
    assert import_file(write_card(own_home), tmp_path / "x.pt").record.format == "haste"
    original = write_card(own_home, "plain", method="plain", config={"reversed_time": True})
    assert import_file(original, tmp_path / "x.pt").record.format == "sit"
    assert load_model(store.find("plain").path)[0].config.reversed_time  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"reversed_time True \(the card says False\)"):
        import_file(write_card(own_home, "third"), tmp_path / "x.pt", format="sit")


def test_our_own_and_foreign_safetensors(own_home: Path, tmp_path: Path) -> None:
    model = random_sit()
    save_model(tmp_path / "ours.safetensors", model, "sit", weights="ema", step=5)
    record = import_file(write_card(own_home), tmp_path / "ours.safetensors").record
    assert (record.format, record.which, record.step) == ("hastezoo", "ema", 5)
    save_file({**state_of(model), **projectors(16)}, tmp_path / "foreign.safetensors")
    record = import_file(write_card(own_home, "b"), tmp_path / "foreign.safetensors").record
    assert (record.format, record.which) == ("repa", "unknown")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"depth": 2}, r"depth 3 \(the card says 2\)"),
        ({"num_classes": 1000}, r"num_classes 10 \(the card says 1000\)"),
        ({"input_size": 8}, r"input_size 4 \(the card says 8\)"),
    ],
)
def test_weights_of_another_model_are_refused(
    own_home: Path, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    save_repa(tmp_path / "last.pt", random_sit())
    with pytest.raises(UserError, match=message):
        import_file(write_card(own_home, config=config), tmp_path / "last.pt")
    assert store.entries() == []


def test_weights_of_another_architecture_or_path_are_refused(own_home: Path, tmp_path: Path) -> None:
    save_repa(tmp_path / "last.pt", random_sit())
    with pytest.raises(UserError, match="they are a sit, sit-xl-haste is a sit_xl_2"):
        import_file(find_card("sit-xl-haste"), tmp_path / "last.pt")
    save_repa(tmp_path / "cosine.pt", random_sit(), path_type="cosine")
    with pytest.raises(UserError, match="trained on the cosine path, tiny is on the linear path"):
        import_file(write_card(own_home), tmp_path / "cosine.pt")


def test_doubts_are_noted(own_home: Path, tmp_path: Path) -> None:
    save_repa(tmp_path / "repa.pt", random_sit())
    assert "it may be a REPA checkpoint" in import_file(write_card(own_home), tmp_path / "repa.pt").record.notes[0]
    save_repa(tmp_path / "haste.pt", random_sit(), attn_coeff=0.5)
    assert import_file(write_card(own_home, "h"), tmp_path / "haste.pt").record.notes == []
    step = write_card(own_home, "s", steps=2000, origins=origin(page="https://x.org", file="f", format="haste"))
    assert (
        "step 1,234, the figures on the card are of 2,000" in import_file(step, tmp_path / "haste.pt").record.notes[0]
    )
    repa = write_card(own_home, "r", method="repa")
    assert "it may be a HASTE checkpoint" in import_file(repa, tmp_path / "haste.pt").record.notes[0]


def test_what_is_stored_is_not_replaced_unasked(own_home: Path, tmp_path: Path) -> None:
    card = write_card(own_home)
    save_repa(tmp_path / "a.pt", random_sit(0))
    save_repa(tmp_path / "b.pt", random_sit(1))
    first = import_file(card, tmp_path / "a.pt").record
    with pytest.raises(UserError, match=r"is stored already \(from .*a\.pt\); --force replaces it"):
        import_file(card, tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(b"broken")
    with pytest.raises(UserError):
        import_file(card, tmp_path / "c.pt", force=True)
    assert store.find("tiny").record == first  # type: ignore[union-attr]
    assert import_file(card, tmp_path / "b.pt", force=True).record.sha256 != first.sha256
    with pytest.raises(UserError, match="ships with the package"):
        import_file(find_card("sit-ti-digits"), tmp_path / "a.pt")


def test_a_failure_while_writing_leaves_nothing(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_repa(tmp_path / "a.pt", random_sit())

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hastezoo.zoo.store.write_json", fail)
    with pytest.raises(OSError, match="No space left"):
        import_file(write_card(own_home), tmp_path / "a.pt")
    assert [path.name for path in (own_home / "weights").iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_found(own_home: Path, tmp_path: Path, value: float) -> None:
    model = random_sit()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3, 5] = value  # type: ignore[union-attr,index]
    save_repa(tmp_path / "a.pt", model)
    card = write_card(own_home)
    import_file(card, tmp_path / "a.pt")
    bad = [check for check in verify(card) if not check.good]
    assert [check.what for check in bad] == ["finite"]
    assert bad[0].detail == "NaN or infinity in blocks.1.mlp.fc1.weight"


def test_verify_finds_other_bytes_shapes_and_configs(own_home: Path, tmp_path: Path) -> None:
    card = write_card(own_home)
    save_repa(tmp_path / "a.pt", random_sit())
    entry = import_file(card, tmp_path / "a.pt")
    metadata, tensors = read_metadata(entry.path), load_file(entry.path)

    def bad(**changes: Any) -> list[str]:
        save_file({**tensors, **changes.get("tensors", {})}, entry.path, {**metadata, **changes.get("metadata", {})})
        return [check.what for check in verify(card) if not check.good]

    assert bad(tensors={"extra": torch.zeros(1)}) == ["sha256", "shapes"]
    config = {**json.loads(metadata["config"]), "depth": 4}
    assert bad(metadata={"config": json.dumps(config)}) == ["sha256", "config", "shapes"]
    assert bad(metadata={"config": "no json"}) == ["sha256", "config"]
    with pytest.raises(UserError, match="is not on this machine"):
        verify(write_card(own_home, "absent"))
    assert all(check.good for check in verify(find_card("sit-ti-digits")))


def test_what_is_this_file(own_home: Path, tmp_path: Path) -> None:
    save_repa(tmp_path / "last.pt", random_sit(), steps=9, attn_coeff=0.5)
    facts = describe_file(tmp_path / "last.pt")
    assert (facts["format"], facts["architecture"], facts["weights"], facts["step"]) == ("haste", "sit", "EMA", 9)
    assert str(facts["time"]).startswith("t = 0 is data") and "attn_coeff 0.5" in str(facts["arguments"])
    parameters = sum(parameter.numel() for parameter in random_sit().parameters())
    assert facts["parameters"] == f"{parameters:,}"
    assert facts["projectors"] == f"{sum(t.numel() for t in projectors(16).values()):,} parameters, kept apart"
    entry = import_file(write_card(own_home), tmp_path / "last.pt")
    facts = describe_file(entry.path)
    assert (facts["format"], facts["step"], facts["converted from"]) == ("hastezoo safetensors", "9", "haste")
    assert facts["parameters"] == f"{parameters:,}" and facts["weights"] == "EMA"
    torch.save(state_of(random_sit(learn_sigma=True)), tmp_path / "SiT.pt")
    facts = describe_file(tmp_path / "SiT.pt")
    assert facts["num_heads"] == "not readable from the file" and "heads" not in str(facts["config"])
    assert str(facts["time"]).startswith("t = 0 is noise") and str(facts["weights"]).startswith("not stated")


def test_a_file_that_may_be_either_is_described_as_such(tmp_path: Path) -> None:
    torch.save(state_of(random_sit(width=128, heads=4)), tmp_path / "x.pt")
    facts = describe_file(tmp_path / "x.pt")
    assert str(facts["format"]).startswith("undecided") and facts["time"] == "depends on the format"
    torch.save(repa_state(random_sit(width=128, heads=4)), tmp_path / "y.pt")
    assert describe_file(tmp_path / "y.pt")["format"] == "repa"


def test_our_files_that_do_not_fit_themselves_are_not_imported(own_home: Path, tmp_path: Path) -> None:
    model = random_sit()
    save_model(tmp_path / "x.safetensors", model, "sit")
    metadata, tensors = read_metadata(tmp_path / "x.safetensors"), state_of(model)
    for state in ({**tensors, "extra": torch.zeros(1)}, {key: tensors[key] for key in list(tensors)[1:]}):
        save_file(state, tmp_path / "x.safetensors", metadata)
        with pytest.raises(UserError, match="do not fit their own config"):
            import_file(write_card(own_home), tmp_path / "x.safetensors")
    assert store.entries() == []


def test_our_files_with_broken_metadata(tmp_path: Path) -> None:
    good = {"format": "hastezoo-1", "architecture": "sit"}
    for metadata in ({"format": "hastezoo-1"}, {**good, "config": "no json"}, {**good, "config": "[1]"}):
        save_file(state_of(random_sit()), tmp_path / "x.safetensors", metadata)
        for look in (describe_file, open_weights):
            with pytest.raises(UserError, match="its metadata is broken"):
                look(tmp_path / "x.safetensors")
        with pytest.raises(UserError, match="do not fit their own config"):
            load_model(tmp_path / "x.safetensors")
    assert [check.what for check in verify_file(tmp_path / "x.safetensors") if not check.good] == ["config"]


TEXT = {"input_size": 4, "in_channels": 4, "width": 64, "depth": 2, "heads": 2, "context_width": 32}


def write_text_card(home: Path, name: str = "tiny-text", **config: Any) -> Any:
    """A card for `random_mmdit`."""
    content = "\n".join(f"{key} = {value}" for key, value in (TEXT | config).items())
    (home / "cards").mkdir(parents=True, exist_ok=True)
    (home / "cards" / f"{name}.toml").write_text(
        f"""name = "{name}"
title = "A tiny model of text"
architecture = "mmdit"
parameters = 1
method = "haste"
resolution = 32
protocol = "coco"
status = "recipe-only"
licence = "MIT"
redistribution = "allowed"
[config]
{content}
[autoencoder]
kind = "kl"
repo = "someone/vae"
downsampling = 8
[text]
repo = "someone/clip"
"""
    )
    return find_card(name)


def test_text_to_image_round_trip(own_home: Path, tmp_path: Path) -> None:
    """What no weight depends on does not count: a usual length of contexts, and how training began."""
    state = mmdit_state()
    save_container(tmp_path / "last.pt", state, repa_arguments(attn_coeff=0.5, resolution=32), steps=250)
    card = write_text_card(own_home, context_length=16, adaln_zero="true")
    entry = import_file(card, tmp_path / "last.pt")
    record = entry.record
    assert (record.format, record.which, record.step, record.notes) == ("mmdit", "ema", 250, [])
    model, metadata = load_model(entry.path)
    loaded = {**model.state_dict(), **load_file(entry.folder / store.PROJECTORS)}
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
    assert metadata["architecture"] == "mmdit" and all(check.good for check in verify(card))
    x, t, context = torch.zeros(1, 4, 4, 4), torch.ones(1), torch.ones(1, 7, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x, t, context), random_mmdit()(x, t, context))


def test_text_to_image_of_another_model_is_refused(own_home: Path, tmp_path: Path) -> None:
    torch.save(mmdit_state(), tmp_path / "x.pt")
    for config, message in (
        ({"depth": 3}, r"depth 2 \(the card says 3\)"),
        ({"heads": 4}, r"heads 2 \(the card says 4\)"),
        ({"context_width": 48}, r"context_width 32 \(the card says 48\)"),
    ):
        with pytest.raises(UserError, match=message):
            import_file(write_text_card(own_home, **config), tmp_path / "x.pt")
    with pytest.raises(UserError, match="they are a mmdit, mmdit-coco-haste is a mmdit_coco"):
        import_file(find_card("mmdit-coco-haste"), tmp_path / "x.pt")
    with pytest.raises(UserError, match="they are a mmdit, tiny is a sit"):
        import_file(write_card(own_home), tmp_path / "x.pt")
    # Where the shapes leave heads open, the card decides.
    torch.save(mmdit_state(depth=3), tmp_path / "three.pt")
    entry = import_file(write_text_card(own_home, "three", depth=3, heads=8), tmp_path / "three.pt")
    assert load_model(entry.path)[0].config.heads == 8  # type: ignore[union-attr]


def test_what_is_this_file_of_text_to_image(own_home: Path, tmp_path: Path) -> None:
    save_container(tmp_path / "last.pt", mmdit_state(), repa_arguments(attn_coeff=0.5), steps=9)
    facts = describe_file(tmp_path / "last.pt")
    assert (facts["format"], facts["architecture"], facts["weights"], facts["step"]) == ("mmdit", "mmdit", "EMA", 9)
    assert "heads 2, context_width 32, context_length 77" in str(facts["config"]) and "num_heads" not in facts
    parameters = sum(parameter.numel() for parameter in random_mmdit().parameters())
    assert facts["parameters"] == f"{parameters:,}" and str(facts["time"]).startswith("t = 0 is data")
    assert facts["projectors"] == f"{sum(t.numel() for t in projectors(64).values()):,} parameters, kept apart"
    torch.save(mmdit_state(depth=3), tmp_path / "three.pt")
    facts = describe_file(tmp_path / "three.pt")
    assert facts["num_heads"] == "not readable from the file" and "heads" not in str(facts["config"])
    entry = import_file(write_text_card(own_home), tmp_path / "last.pt")
    facts = describe_file(entry.path)
    assert (facts["format"], facts["architecture"], facts["converted from"]) == (
        "hastezoo safetensors",
        "mmdit",
        "mmdit",
    )
    assert facts["parameters"] == f"{parameters:,}"


def test_a_cards_config_is_made_whole_or_refused(own_home: Path) -> None:
    whole = card_config(find_card("mmdit-coco"))
    assert (whole["depth"], whole["context_length"], whole["adaln_zero"]) == (24, 77, False)
    assert card_config(write_text_card(own_home))["mlp_ratio"] == 4.0
    with pytest.raises(UserError, match="the config of tiny-text's card makes no model: mmdit has no setting 'widht'"):
        card_config(write_text_card(own_home, widht=3))
    with pytest.raises(UserError, match="the config of tiny-text's card makes no model: width 64 is not a multiple"):
        card_config(write_text_card(own_home, heads=5))
