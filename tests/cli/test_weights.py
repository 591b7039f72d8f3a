"""import, pull, push, verify, cache, classes, and info of a file, as a user types them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from hastezoo.cli.main import main
from hastezoo.digests import sha256_of
from hastezoo.pictures import read_text
from hastezoo.zoo import store
from tests.local_hub import LocalHub
from tests.zoo.cards import origin, write_card
from tests.zoo.foreign import random_sit, save_repa


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def good(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def bad(*arguments: str | Path) -> str:
    """A failure: one line, no traceback, a non-zero exit."""
    result = run(*arguments)
    assert result.exit_code != 0 and "Traceback" not in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.output
    return lines[0]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """What a lab would release of a latent model."""
    save_repa(tmp_path / "0002500.pt", random_sit(in_channels=4), steps=2500, attn_coeff=0.5)
    return tmp_path / "0002500.pt"


def test_from_a_released_pickle_to_images(own_home: Path, released: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """The whole way: what is it, import, verify, list, sample by name, sample again from the record, remove."""
    write_card(own_home, latent=True)
    assert "haste" in good("info", released) and "EMA" in good("info", released)
    assert "no weights here" in bad("sample", "--model", "tiny", "--vae", tiny_vae)
    assert "hastezoo sample --model tiny" in good("import", "tiny", released)
    assert good("verify", "tiny").count("good") == 4
    row = next(line for line in good("list").splitlines() if line.startswith("tiny"))
    assert "yes" in row
    assert "2,5" not in good("info", "tiny") and str(released) in good("info", "tiny")
    assert "tiny" in good("cache", "list") and json.loads(good("cache", "list", "--json"))[0]["name"] == "tiny"
    out = tmp_path / "out"
    options = ("--vae", tiny_vae, "--steps", "3", "--out", out)
    good("sample", "--model", "tiny", "--class", "seven", *options)
    assert np.asarray(Image.open(out / "00000_class7_seed0.png")).shape == (32, 32, 3)
    request = json.loads((out / "samples.json").read_text())["request"]
    assert request["vae"] == str(tiny_vae) and len(request["vae_sha256"]) == 64
    good("sample", "--from", out / "samples.json", "--out", tmp_path / "again")
    assert (tmp_path / "again" / "00000_class7_seed0.png").read_bytes() == (out / "00000_class7_seed0.png").read_bytes()
    good("sample", "--model", "tiny", "--weights", released, "--class", "7", *options[:4], "--out", tmp_path / "direct")
    same = tmp_path / "direct" / "00000_class7_seed0.png"
    # The files name their weights, which are two; the images are one.
    used, imported = Image.open(same), Image.open(out / "00000_class7_seed0.png")
    assert np.array_equal(np.asarray(used), np.asarray(imported)), "imported or used as it is: one image"
    digests = [json.loads(read_text(Path(one.filename))["hastezoo"])["weights_sha256"] for one in (used, imported)]
    assert digests[0] == sha256_of(released) != digests[1]
    assert "removed tiny" in good("cache", "remove", "tiny", "--yes")
    assert store.entries() == []


def test_another_autoencoder_is_another_request(own_home: Path, released: Path, tiny_vae: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    write_card(own_home, latent=True)
    good("import", "tiny", released)
    vae = shutil.copytree(tiny_vae, tmp_path / "vae")
    good("sample", "--model", "tiny", "--vae", vae, "--steps", "2", "--out", tmp_path / "out")
    weights = vae / "diffusion_pytorch_model.safetensors"
    changed = {key: value + 0.1 for key, value in load_file(weights).items()}
    save_file(changed, weights)
    assert "made with another autoencoder" in bad("sample", "--from", tmp_path / "out" / "samples.json")
    assert "made with other settings" in bad(
        "sample", "--model", "tiny", "--vae", vae, "--steps", "2", "--out", tmp_path / "out"
    )


def test_autoencoders_that_do_not_fit(own_home: Path, released: Path, tiny_vae: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=3).save_pretrained(tmp_path / "flat")
    assert "takes no autoencoder" in bad("sample", "--vae", tiny_vae)
    write_card(own_home, latent=True)
    good("import", "tiny", released)
    message = bad("sample", "--model", "tiny", "--vae", tmp_path / "flat")
    assert "has 3 channels at 1/1, tiny needs 4 at 1/8" in message
    assert "takes no autoencoder" in bad("sample", "--vae-tiling")
    assert "there is no folder" in bad("sample", "--model", "tiny", "--vae", "./nothing")
    write_card(own_home, "pixels", config={"in_channels": 4})
    good("import", "pixels", released)
    write_card(own_home, "pixels", config={"in_channels": 4}, resolution=8)
    assert "the weights draw 4x4 pixels, pixels is of 8" in bad("sample", "--model", "pixels")


def test_pull_and_everything_from_the_hub(own_home: Path, released: Path, tiny_vae: Path, local_hub: LocalHub) -> None:
    local_hub.files["lab/model", "0002500.pt"] = released.read_bytes()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        local_hub.files["someone/vae", name] = (tiny_vae / name).read_bytes()
    write_card(own_home, latent=True, origins=origin(repo="lab/model", file="0002500.pt", format="haste"))
    output = good("pull", "tiny", "--vae")
    assert "fetching tiny from hub:lab/model:0002500.pt" in output and "autoencoder someone/vae" in output
    asked = len(local_hub.requests)
    good("pull", "tiny", "--quiet")
    assert len(local_hub.requests) == asked
    good("sample", "--model", "tiny", "--steps", "2", "--out", own_home / "out")
    good("sample", "--model", "tiny", "--weights", "hub:lab/model", "--steps", "2", "--out", own_home / "by-place")
    request = json.loads((own_home / "by-place" / "samples.json").read_text())["request"]
    assert request["weights"] == "hub:lab/model"
    assert "no such repository" in bad("sample", "--model", "tiny", "--weights", "hub:no/body:x.pt")
    assert "is no place on the Hub" in bad("sample", "--model", "tiny", "--weights", "hub:nobody")


def test_push_as_typed(own_home: Path, released: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    write_card(own_home, latent=True)
    assert "no weights here" in bad("push", "tiny", "--repo", "me/tiny")
    good("import", "tiny", released)
    output = good("push", "tiny", "--repo", "me/tiny", "--dry-run")
    assert "license: mit" in output and "not sent" in output and local_hub.requests == []
    assert "/me/tiny/commit/" in good("push", "tiny", "--repo", "me/tiny")
    assert ("me/tiny", "model.safetensors") in local_hub.files
    assert "is no place on the Hub" in bad("push", "tiny", "--repo", "tiny", "--dry-run")
    assert "there is no file nothing" in bad("push", "tiny", "--repo", "me/tiny", "--weights", "nothing", "--dry-run")
    released_by_hand = origin(page="https://lab.example/weights", file="x.pt", format="haste")
    write_card(own_home, latent=True, licence="none stated", redistribution="unstated", origins=released_by_hand)
    assert "may be passed on" in bad("push", "tiny", "--repo", "me/tiny", "--dry-run")


def test_verify_fails_with_a_line(own_home: Path, tmp_path: Path) -> None:
    model = random_sit()
    with torch.no_grad():
        model.final_layer.linear.bias[0] = float("nan")
    save_repa(tmp_path / "x.pt", model)
    write_card(own_home)
    good("import", "tiny", tmp_path / "x.pt")
    result = run("verify", "tiny")
    assert result.exit_code == 1 and "error: tiny is not sound: finite" in result.output
    assert "NaN or infinity in final_layer.linear.bias" in result.output
    assert "is not sound" in run("verify", own_home / "weights" / "tiny" / "model.safetensors").output
    assert "is not on this machine" in bad("verify", "sit-xl")


class Mark:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.path}",)


def test_bad_files_end_in_one_line_and_store_nothing(own_home: Path, released: Path, tmp_path: Path) -> None:
    write_card(own_home, latent=True)
    bomb, cut, absent = tmp_path / "bomb.pt", tmp_path / "cut.pt", tmp_path / "absent.pt"
    torch.save({"ema": Mark(tmp_path / "ran")}, bomb)
    cut.write_bytes(released.read_bytes()[:5000])
    for path, message in ((bomb, "system, which weights do not need"), (cut, "truncated"), (absent, "cannot read")):
        for command in (("info", path), ("import", "tiny", path)):
            assert message in bad(*command)
    assert "system" in bad("sample", "--model", "tiny", "--weights", bomb)
    assert not (tmp_path / "ran").exists() and store.entries() == []
    assert "is stored already" not in good("import", "tiny", released)
    assert "unknown dtype 'int8'" in bad("import", "tiny", released, "--dtype", "int8", "--force")
    assert "unknown format 'dit'" in bad("import", "tiny", released, "--format", "dit", "--force")
    assert "unknown model 'tiny2'; nearest: tiny" in bad("import", "tiny2", released)


def test_cache_removes_what_is_named_and_nothing_else(own_home: Path, released: Path) -> None:
    for name in ("one", "two"):
        write_card(own_home, name, latent=True)
        good("import", name, released)
    assert "is not in the store" in bad("cache", "remove", "one", "three", "--yes")
    assert store.entries() == ["one", "two"]
    for name in ("../cards", "..", str(own_home / "cards")):
        assert "is no name of a checkpoint" in bad("cache", "remove", name, "--yes")
    assert len(list((own_home / "cards").iterdir())) == 2
    result = CliRunner().invoke(main, ["cache", "remove", "one"], input="n\n")
    assert result.exit_code == 1 and store.entries() == ["one", "two"]
    (own_home / "weights" / "one" / "record.json").write_text("{}")
    assert "broken" in good("cache", "list")
    good("cache", "remove", "one", "two", "--yes")
    assert "0 in" in good("cache", "list")


def test_classes() -> None:
    output = good("classes", "retriever", "--model", "sit-xl-haste")
    assert output.count("\n") == 6 and "n02099601" in output and "silky golden coat" in output
    assert good("classes").count("\n") == 11
    rows = json.loads(good("classes", "golden retriever", "--model", "sit-xl", "--json"))
    assert rows[0]["class"] == 207
    assert "none of the 1000 classes" in bad("classes", "xyzzy", "--model", "sit-xl")
    assert "draws from text" in bad("classes", "--model", "mmdit-coco")


def test_checkpoints_that_cannot_be_drawn_from() -> None:
    said = bad("sample", "--model", "mmdit-coco-haste", "--prompt", "a cat")
    assert "`python -m hastezoo.recipes.coco256 --checkpoint mmdit-coco-haste`" in said
    assert "hastezoo import sit-xl-haste 2500000.pt" in bad("sample", "--model", "sit-xl-haste", "--class", "207")
    assert "nobody hosts them" in bad("pull", "sit-b-haste")


def test_info_tells_files_from_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sit-xl").write_text("not weights")
    assert "SiT-XL/2" in good("info", "sit-xl"), "a checkpoint's name wins over a file of that name"
    assert "sit-xl" in bad("info", "./sit-xl")
    assert "cannot read" in bad("info", "nothing.pt")
    assert "unknown model" in bad("info", "nothing")
    save_repa(tmp_path / "weights", random_sit(), steps=5)
    assert json.loads(good("info", "weights", "--json"))["step"] == 5
