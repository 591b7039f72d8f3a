"""Names of teachers that say too little, nothing, or the wrong thing about the weights."""

from __future__ import annotations

import pytest
import timm

from hastezoo.alignment.teachers import create_teacher
from hastezoo.errors import UserError
from tests.alignment.vits import one_line
from tests.local_hub import LocalHub


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_clip_224.openai",
        "vit_large_patch14_clip_224.openai",
        "vit_large_patch14_clip_336.openai",
        "vit_base_patch32_clip_224.laion400m_e32",
        "vit_huge_patch14_clip_378.dfn5b",
    ],
)
def test_weights_of_quick_gelu_need_its_architecture(name: str) -> None:
    right = name.replace("_clip_", "_clip_quickgelu_")
    with pytest.raises(UserError, match=f"quick GELU.*take {right}$"):
        create_teacher(name)
    assert any("QuickGELU" in note for note in timm.get_pretrained_cfg(name).notes), "timm says so itself"


def test_every_name_that_timm_says_is_quick_gelus_is_refused() -> None:
    for name in timm.list_models("*clip*", pretrained=True):
        known = timm.get_pretrained_cfg(name)
        if "quickgelu" not in name and any("QuickGELU" in note for note in known.notes or ()):
            with pytest.raises(UserError, match="quick GELU"):
                create_teacher(name, pretrained=False)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_base_patch14_dinov2", r"does not say which weights; write one of vit_base_patch14_dinov2\.lvd142m$"),
        ("vit_base_patch16_224", r"write one of vit_base_patch16_224\.\w+, vit_base_patch16_224\.\w+, .*\.\.\."),
        ("vit_base_patch14_dinov2.lvd124m", r"nearest: vit_base_patch14_dinov2\.lvd142m"),
        ("vit_base_patch14_dinov3.lvd142m", r"no model 'vit_base_patch14_dinov3.lvd142m'; nearest: .*dinov2\.lvd142m"),
        ("dinov2_vitb14", "timm has no model 'dinov2_vitb14'"),
        ("hf-hub:timm/resnet18", "timm has no model 'hf-hub:timm/resnet18'"),
        ("%$", "timm has no model"),
    ],
)
def test_names_that_say_too_little_or_nothing(name: str, reason: str, local_hub: LocalHub) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        create_teacher(name)
    one_line(caught)
    assert not local_hub.requests
