"""What a teacher says against timm itself: the attention its modules compute, the tokens they give."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

import pytest
import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from hastezoo.alignment.teachers import Lesson, Teacher, create_teacher
from hastezoo.errors import UserError
from tests.alignment.vits import MEAN, NAME, STD, minute, one_line, random_images, stirred, teacher_of

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "DINOv2-B": ("vit_base_patch14_dinov2", {"img_size": 56}),
    "DINOv2-B with registers": ("vit_base_patch14_reg4_dinov2", {"img_size": (28, 56)}),
    "CLIP-B/16": ("vit_base_patch16_clip_quickgelu_224", {"img_size": 64}),
    "QK norm": ("vit_tiny_patch16_224", {"img_size": 64, "qk_norm": True}),
    "no prefix": ("vit_tiny_patch16_224", {"img_size": 64, "class_token": False, "global_pool": "avg"}),
    "dynamic size": ("vit_tiny_patch16_224", {"img_size": (32, 64), "dynamic_img_size": True}),
    "DeiT distilled": ("deit_tiny_distilled_patch16_224", {"img_size": 64}),
    "DINOv3": ("vit_small_patch16_dinov3", {"img_size": (32, 48)}),
    "DINOv3 with QK norm": ("vit_small_patch16_dinov3", {"img_size": (32, 48), "qk_norm": True}),
    "EVA-02": ("eva02_tiny_patch14_224", {"img_size": (28, 42)}),
    "rotation by head": ("vit_small_patch16_rope_mixed_224", {"img_size": (32, 48)}),
    "axial rotation": ("vit_small_patch16_rope_224", {"img_size": (32, 48)}),
    "Perception Encoder": ("vit_pe_core_tiny_patch16_384", {"img_size": (32, 48)}),
    "shared keys": (
        "vit_small_patch16_dinov3",
        {"img_size": (32, 48), "attn_type": "rope", "qkv_fused": False, "num_kv_heads": 2},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_queries_and_keys_give_the_attention_of_the_module(kind: str) -> None:
    """Cutting the prefix before the softmax is the module's map on the patches, its rows made to sum to 1 again."""
    name, arguments = MODELS[kind]
    model = stirred(timm.create_model(name, depth=3, num_classes=0, **arguments))
    teacher = teacher_of(model, attention_layers=(0, 2), dtype=torch.float64)
    maps: dict[int, Tensor] = {}
    for layer, block in enumerate(model.blocks):
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda module, args, layer=layer: maps.update({layer: args[0]}))
    lesson = teacher(random_images(2, 3, *teacher.size, dtype=torch.float64))
    count, prefix = teacher.grid[0] * teacher.grid[1], model.num_prefix_tokens
    assert lesson.queries.keys() == lesson.keys.keys() == {0, 2}
    for layer in (0, 2):
        query, key = lesson.queries[layer], lesson.keys[layer]
        assert query.shape == key.shape == (2, model.blocks[0].attn.num_heads, count, query.shape[-1])
        assert maps[layer].shape[-1] == prefix + count
        found = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1)
        expected = maps[layer][:, :, prefix:, prefix:]
        expected = expected / expected.sum(-1, keepdim=True)
        assert expected.std() > 0.01, "flat maps would agree with anything"
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_rotation_is_part_of_what_is_taught() -> None:
    """Else the test of the maps would pass on models whose rotation does nothing."""
    model = stirred(timm.create_model("vit_small_patch16_dinov3", depth=1, num_classes=0, img_size=(32, 48)))
    teacher = teacher_of(model, attention_layers=(0,))
    plain: list[Tensor] = []
    model.blocks[0].attn.q_norm.register_forward_hook(lambda module, args, output: plain.append(output))
    query = teacher(random_images(1, 3, 32, 48)).queries[0]
    assert (query - plain[0][:, :, model.num_prefix_tokens :]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "arguments", "prefix"),
    [
        ("vit_tiny_patch16_224", {}, 1),
        ("vit_tiny_patch16_224", {"reg_tokens": 4}, 5),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}, 0),
        ("deit_tiny_distilled_patch16_224", {}, 2),
        ("vit_small_patch16_dinov3", {}, 5),
        ("vit_small_patch16_dinov3", {"use_fc_norm": True, "use_post_transformer_norm": True}, 5),
        ("xcit_nano_12_p16_224", {}, 1),
        ("cait_xxs24_224", {}, 1),
    ],
)
def test_features_are_the_normalised_patch_tokens(name: str, arguments: dict[str, Any], prefix: int) -> None:
    model = stirred(timm.create_model(name, depth=2, img_size=(32, 48), num_classes=0, **arguments))
    teacher = teacher_of(model)
    images = random_images(2, 3, 32, 48)
    with torch.no_grad():
        pixels = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        expected = model.forward_features(pixels)[:, prefix:]
    lesson = teacher(images)
    torch.testing.assert_close(lesson.features, expected, rtol=0, atol=0)
    assert lesson.features.shape == (2, 6, teacher.width) and lesson.grid == teacher.grid == (2, 3)
    assert teacher.depth == 2 and not lesson.queries and not lesson.keys


def test_a_class_token_is_cut_where_the_model_does_not_count_it() -> None:
    """As CaiT and XCiT do not in older timm."""
    model = stirred(timm.create_model(NAME))
    expected = teacher_of(model)(random_images(2, 3, 16, 16)).features
    del model.num_prefix_tokens
    assert torch.equal(teacher_of(model)(random_images(2, 3, 16, 16)).features, expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "beit_base_patch16_224"])
def test_where_the_last_norm_waits_for_the_pool_it_is_applied(name: str) -> None:
    """Average pooled models: `norm` does nothing and `fc_norm` is the real one."""
    size = (28, 42) if "14" in name else (32, 48)
    model = stirred(timm.create_model(name, depth=1, img_size=size, num_classes=0, global_pool="avg"))
    assert isinstance(model.norm, nn.Identity) and isinstance(model.fc_norm, nn.LayerNorm)
    teacher = teacher_of(model)
    tokens: list[Tensor] = []
    model.blocks[-1].register_forward_hook(lambda module, args, output: tokens.append(output))
    features = teacher(random_images(2, 3, *size)).features
    patches = tokens[0][:, model.num_prefix_tokens :]
    norm = model.fc_norm
    torch.testing.assert_close(features, F.layer_norm(patches, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
    assert (features - patches).abs().max() > 0.1


def test_it_is_frozen() -> None:
    teacher = minute(attention_layers=(1,))
    lesson = teacher(random_images(2, 3, 16, 16).requires_grad_())
    assert not teacher._pass.model.training
    assert not any(parameter.requires_grad for parameter in teacher._pass.model.parameters())
    assert not any(tensor.requires_grad for tensor in (lesson.features, lesson.queries[1], lesson.keys[1]))
    assert not lesson.features.is_inference(), "a student's loss could not be differentiated with it"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_its_own_dtype_rules(dtype: torch.dtype) -> None:
    """Whatever autocast says; and what it teaches is the same but for rounding."""
    images, exact = random_images(2, 3, 20, 20), minute(attention_layers=(1,))(random_images(2, 3, 20, 20))
    teacher = minute(attention_layers=(1,), dtype=dtype)
    plain = teacher(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = teacher(images)
    for found, same, reference in (
        (plain.features, cast.features, exact.features),
        (plain.queries[1], cast.queries[1], exact.queries[1]),
        (plain.keys[1], cast.keys[1], exact.keys[1]),
    ):
        assert found.dtype == dtype
        assert torch.equal(found, same)
        assert F.cosine_similarity(found.float().flatten(), reference.flatten(), dim=0) > 0.999


def test_layers_asked_for_twice_are_taken_once() -> None:
    teacher = minute(attention_layers=(2, 0, 2))
    assert teacher.attention_layers == (2, 0)
    assert set(teacher(random_images(1, 3, 16, 16)).queries) == {0, 2}


def test_nothing_of_a_call_is_kept() -> None:
    """Neither in the teacher nor in circles that wait for the garbage collector."""
    teacher = minute(attention_layers=(0, 1, 2))
    made: list[weakref.ref[Tensor]] = []
    for module in teacher._pass.model.modules():
        module.register_forward_hook(lambda module, args, output: made.append(weakref.ref(output)))
    lesson = teacher(random_images(2, 3, 16, 16))
    assert len(made) > 30 and sum(reference() is not None for reference in made) <= 6, "queries and keys alone"
    del lesson
    assert not any(reference() is not None for reference in made)


def test_nothing_is_kept_of_a_call_that_breaks_off() -> None:
    teacher = minute(attention_layers=(0,))
    made: list[weakref.ref[Tensor]] = []

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    teacher._pass.model.blocks[0].attn.q_norm.register_forward_hook(lambda m, args, out: made.append(weakref.ref(out)))
    teacher._pass.model.blocks[2].register_forward_hook(fail)
    with contextlib.suppress(RuntimeError):
        teacher(random_images(1, 3, 16, 16))
    assert len(made) == 1 and made[0]() is None
    assert teacher._pass.tap.take() == ({}, {}), "a view of it is kept"


def test_a_teacher_that_is_let_go_gives_its_memory_back() -> None:
    teacher = minute(attention_layers=(1,))
    teacher(random_images(1, 3, 16, 16))
    weight = weakref.ref(teacher._pass.model.blocks[0].mlp.fc1.weight)
    assert weight() is not None
    del teacher
    assert weight() is None


def assert_same(found: Lesson, expected: Lesson) -> None:
    torch.testing.assert_close(found.features, expected.features, rtol=0, atol=0)
    for ours, theirs in ((found.queries, expected.queries), (found.keys, expected.keys)):
        assert ours.keys() == theirs.keys()
        for layer in ours:
            torch.testing.assert_close(ours[layer], theirs[layer], rtol=0, atol=0)


@pytest.mark.parametrize("rotary", [False, True])
def test_compiled_it_says_the_same(rotary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one graph, hooks included, and without compiling again for a second batch."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def make(compile: bool) -> Teacher:
        if not rotary:
            return minute(attention_layers=(0, 2), compile=compile)
        torch.manual_seed(0)
        model = timm.create_model("vit_small_patch16_dinov3", depth=2, embed_dim=48, num_heads=2, img_size=32)
        return teacher_of(stirred(model), attention_layers=(0, 1), compile=compile)

    torch._dynamo.reset()
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda what: compile(what, backend=backend, fullgraph=True))
    eager, quick = make(False), make(True)
    for seed in range(2):
        images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(seed))
        assert_same(quick(images), eager(images))
    assert len(graphs) == 1
    assert quick._pass.tap.take() == ({}, {})


@pytest.mark.parametrize(
    ("name", "layers", "reason"),
    [
        (NAME, (-1,), r"attention_layers \[-1\] are not in 0\.\.2"),
        (NAME, (0, 3, 5), r"attention_layers \[3, 5\] are not in 0\.\.2"),
        ("swin_tiny_patch4_window7_224.ms_in1k", (), r"gives \(1, \d, \d, 768\) for an image"),
        ("swin_tiny_patch4_window7_224.ms_in1k", (1,), "has no blocks"),
        ("convnext_tiny.fb_in1k", (), "cuts no image into patches"),
        ("resnet18.a1_in1k", (0,), "cuts no image into patches"),
        ("samvit_base_patch16.sa1b", (), r"gives \(1, 256, 4, 4\) for an image"),
        ("samvit_base_patch16.sa1b", (0,), r"block 0 .*\(Block with Attention\) does not show its queries"),
        ("beit_base_patch16_224.in22k_ft_in22k", (0,), r"\(Block with Attention\) does not show its queries"),
        ("vit_relpos_base_patch16_224.sw_in1k", (0,), r"\(RelPosBlock with RelPosAttention\) does not show"),
        ("vit_base_patch16_xp_224", (0,), r"\(ParallelScalingBlock\) does not show its queries and keys"),
        ("vit_small_patch16_18x2_224", (0,), r"\(ParallelThingsBlock\) does not show its queries and keys"),
        ("cait_xxs24_224.fb_dist_in1k", (0,), "TalkingHeadAttn"),
    ],
)
def test_what_does_not_fit_the_method_is_refused(name: str, layers: tuple[int, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        create_teacher(name, pretrained=False, grid=(4, 4), attention_layers=layers)
    one_line(caught)


def test_attention_that_is_not_the_plain_softmax_is_refused() -> None:
    """The difference of two maps, though it has a q_norm; and a mask, which queries and keys do not tell."""
    model = timm.create_model(NAME, attn_layer="diff")
    with pytest.raises(UserError, match="DiffAttention"):
        teacher_of(model, attention_layers=(0,))

    class Causal(Eva):
        def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
            return super().forward_features(x, is_causal=True)

    size = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    with pytest.raises(UserError, match="block 0 of Causal masks its attention"):
        teacher_of(Causal(**size), attention_layers=(0,))
    assert teacher_of(Causal(**size)).width == 16


def test_tokens_that_are_not_the_patches_are_refused() -> None:
    class Pooled(VisionTransformer):
        def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
            return super().forward_features(x)[:, ::2]

    model = Pooled(img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(
        UserError, match=r"Pooled gives \(1, 8, 16\) for an image, not one token for each of 4x4 patches"
    ):
        teacher_of(model)
