"""The weights that teachers load: a local file's or the Hub's, and none that run code or leave a model random."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import Tensor
from torch.nn import functional as F

from hastezoo import hub
from hastezoo.alignment.teachers import create_teacher
from hastezoo.errors import UserError
from tests.alignment.vits import NAME, Evil, assert_teaches, one_line, random_images, reference, saved, stirred
from tests.local_hub import LocalHub

WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "without a head": lambda state: {key: value for key, value in state.items() if not key.startswith("head.")},
    "another head": lambda state: {**state, "head.weight": torch.zeros(7, 16), "head.bias": torch.zeros(7)},
    "model": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}}},
    "state_dict": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    "DINO": lambda state: {
        "student": {f"module.backbone.{key}": torch.zeros_like(value) for key, value in state.items()},
        "teacher": {f"backbone.{key}": value for key, value in state.items()} | {"head.mlp.weight": torch.zeros(2)},
    },
    "compiled": lambda state: {"model": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
    "mask token of DINOv2": lambda state: {**state, "mask_token": torch.zeros(1, 16)},
    "half precision": lambda state: {key: value.bfloat16() for key, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_local_file_of_torch(wrapping: str, tmp_path: Path) -> None:
    model = reference()
    torch.save(WRAPPED[wrapping](model.state_dict()), tmp_path / "w.pth")
    if wrapping == "half precision":
        model.bfloat16().float()
    assert_teaches(create_teacher(NAME, grid=(4, 4), weights=tmp_path / "w.pth"), model)


def test_a_local_file_of_safetensors_makes_no_request(tmp_path: Path, local_hub: LocalHub) -> None:
    model = reference()
    teacher = create_teacher(NAME, grid=(4, 4), weights=saved(tmp_path / "w.safetensors", model))
    assert_teaches(teacher, model)
    assert "state_dict" not in teacher._pass.model.pretrained_cfg, "timm's copy of the weights stays in memory"
    assert not local_hub.requests


def test_the_position_table_is_resampled_to_the_grid(tmp_path: Path) -> None:
    """Of a real architecture: its table of 4x4 patches becomes one of 2x3, by timm's bicubic with antialiasing."""
    torch.manual_seed(0)
    model = stirred(timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3))
    path = saved(tmp_path / "w.safetensors", model)
    teacher = create_teacher("vit_tiny_patch16_224.augreg_in21k", grid=(2, 3), weights=path)
    table = model.pos_embed.detach()[:, 1:].reshape(1, 4, 4, 192).permute(0, 3, 1, 2)
    table = F.interpolate(table, (2, 3), mode="bicubic", antialias=True).flatten(2).mT
    smaller = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), num_classes=3).eval()
    smaller.load_state_dict({**model.state_dict(), "pos_embed": torch.cat([model.pos_embed[:, :1], table], 1)})
    images = random_images(2, 3, 32, 48)
    with torch.no_grad():
        expected = smaller.forward_features((images - 0.5) / 0.5)[:, 1:]
    torch.testing.assert_close(teacher(images).features, expected, rtol=1e-4, atol=1e-4)


def of_openai(model: Any) -> dict[str, Tensor]:
    """A CLIP image tower under the names of OpenAI's file, with its projection."""
    names = {
        "cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre", "norm.": "ln_post.", "norm1": "ln_1", "norm2": "ln_2",
        "blocks.": "transformer.resblocks.",
        "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    state = {"visual.proj": torch.zeros(model.embed_dim, 8), "logit_scale": torch.zeros(())}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[f"visual.{key}"] = value.flatten() if "class" in key else value[0] if "positional" in key else value
    return state


@pytest.mark.parametrize(
    ("name", "tag"),
    [("deit_tiny_distilled_patch16_224", "fb_in1k"), ("vit_xsmall_patch16_clip_224", "tinyclip_yfcc15m")],
)
def test_files_of_real_architectures_lose_their_heads(name: str, tag: str, tmp_path: Path) -> None:
    """DeiT has two; OpenAI's names are the other ones that timm knows."""
    openai = "clip" in name
    model: Any = stirred(timm.create_model(name, **({"num_classes": 0} if openai else {}))).eval()
    torch.save(of_openai(model) if openai else model.state_dict(), tmp_path / "w.pth")
    teacher = create_teacher(f"{name}.{tag}", grid=(14, 14), weights=tmp_path / "w.pth")
    pixels = random_images(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.forward_features(pixels)[:, model.num_prefix_tokens :]
    mean, std = teacher._mean, teacher._std
    torch.testing.assert_close(teacher(pixels * std + mean).features, expected, rtol=1e-3, atol=1e-3)


def test_the_hub_is_asked_where_timm_keeps_it(local_hub: LocalHub) -> None:
    model = reference()
    local_hub.files[f"timm/{NAME}", "model.safetensors"] = save(model.state_dict())
    assert_teaches(create_teacher(NAME, grid=(4, 4)), model)
    sent = local_hub.sent
    assert sent > 0
    assert_teaches(create_teacher(NAME, grid=(4, 4)), model)
    assert local_hub.sent == sent, "the bytes came twice"


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"  # nothing listens there
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(hub.Unreachable, match=r"timm/vit_minute.*the Hub cannot be reached.*weights=") as caught:
        create_teacher(NAME)
    one_line(caught)


def test_what_the_hub_has_not(local_hub: LocalHub) -> None:
    with pytest.raises(UserError, match=r"timm/vit_minute_patch4_16\.tests.*no such repository.*weights=") as caught:
        create_teacher(NAME)
    one_line(caught)
    with pytest.raises(UserError, match=r"is not on the Hub; download https://example\.org/minute\.pth"):
        create_teacher("vit_minute_patch4_16.elsewhere")


def test_what_cannot_teach_is_refused_before_a_download(local_hub: LocalHub) -> None:
    with pytest.raises(
        UserError, match=r"attention_layers \[3\] are not in 0\.\.2, the blocks of vit_minute_patch4_16"
    ):
        create_teacher(NAME, attention_layers=(1, 3))
    with pytest.raises(UserError, match=r"block 1 of beitv2_base_patch16_224"):
        create_teacher("beitv2_base_patch16_224.in1k_ft_in22k", attention_layers=(1,))
    assert not local_hub.requests


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"embed_dim": 24}, "does not fit vit_minute_patch4_16.tests for images 16x16: .*size mismatch"),
        ({"depth": 2}, "does not fit .*Missing key"),
        ({"depth": 4}, "does not fit .*Unexpected key"),
    ],
)
def test_a_file_that_does_not_fit(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", reference(**change))
    with pytest.raises(UserError, match=reason) as caught:
        create_teacher(NAME, grid=(4, 4), weights=path)
    assert str(path) in one_line(caught)


def test_where_timm_loads_loosely_missing_weights_are_found(tmp_path: Path) -> None:
    """It does for average pooled SigLIPs. A state dict with other names would leave the teacher random."""
    name = "vit_base_patch32_siglip_gap_256.v2_webli"
    save_file({"vision_model.embeddings.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"does not fit .*: it has no \w+.*, and \d+ more are missing") as caught:
        create_teacher(name, grid=(2, 2), weights=tmp_path / "w.safetensors")
    one_line(caught)


@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(plain: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "w.pth"
    if plain:
        path.write_bytes(pickle.dumps({"args": Evil(mark)}, protocol=2))
    else:
        torch.save({"model": reference().state_dict(), "args": Evil(mark)}, path)
    with pytest.raises(UserError, match=r"asks for \w+\.system, .*it was not run") as caught:
        create_teacher(NAME, weights=path)
    one_line(caught)
    assert not mark.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.load(path, weights_only=False) if not plain else pickle.loads(path.read_bytes())
    assert mark.exists(), "the file was harmless"


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("w.safetensors", b"nonsense", "is damaged, or no file of weights.*torch\\.save are read$"),
        ("w.pth", b"nonsense", "is damaged, or no file of weights.*torch\\.save are read$"),
        ("w.pth", b"", "is damaged, or no file of weights.*torch\\.save are read$"),
        ("w.npz", b"PK\x03\x04", "is damaged, or no file of weights.*torch\\.save are read$"),
        ("absent.pth", None, "there is no file of weights"),
    ],
)
def test_files_that_are_no_weights(file: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / file
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        create_teacher(NAME, weights=path)
    assert str(path) in one_line(caught)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"head.weight": torch.zeros(10, 16)}])
def test_files_without_weights(content: Any, tmp_path: Path, local_hub: LocalHub) -> None:
    """Nor does timm fetch others instead."""
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth holds no weights"):
        create_teacher(NAME, weights=tmp_path / "w.pth")
    assert not local_hub.requests
