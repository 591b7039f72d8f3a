"""The cost of a step against closed forms, published figures and what a real step keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hastezoo import hub
from hastezoo.alignment.config import AlignmentConfig, TeacherConfig, TerminationConfig
from hastezoo.alignment.holistic import create_alignment
from hastezoo.alignment.losses import BLOCK_ELEMENTS
from hastezoo.data.batch import Batch
from hastezoo.errors import UserError
from hastezoo.models import layers
from hastezoo.models.mmdit import MMDiT
from hastezoo.models.registry import create_model
from hastezoo.recipes.digits_teacher import SHIPPED
from hastezoo.sampling.interpolants import Linear
from hastezoo.training import estimate
from hastezoo.training.ema import Ema
from hastezoo.training.estimate import Cost, run_flops, step_cost
from hastezoo.training.gpus import find_gpu, hours, list_gpus
from hastezoo.training.objective import Draws, Objective
from hastezoo.training.student import Student
from hastezoo.zoo.registry import find_card

TEACHER = TeacherConfig(name=f"local-dir:{SHIPPED}")
ALIGNMENT = AlignmentConfig(teacher=TEACHER, feature_layer=2, attention_pairs=((0, 2), (1, 3)), projector_width=40)
# As many tokens as the teacher has, 16.
SMALL = {"input_size": 8, "in_channels": 1, "width": 48, "depth": 3, "heads": 3, "num_classes": 10}
XL = {"input_size": 32, "in_channels": 4, "num_classes": 1000}
# The same of text, with a context of 5 tokens.
TEXT = {
    "input_size": 8, "in_channels": 1, "width": 48, "depth": 3, "heads": 3, "context_width": 20, "context_length": 5,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {"sit": SMALL, "mmdit": TEXT}
BLOCKS = dict(BLOCK_ELEMENTS)
COST = Cost(4, 1000, 100, 50, 30, 36, 8, 0, 0, 200)


def plain_products(model: dict[str, Any], patch: int = 2, ratio: int = 4) -> tuple[int, int]:
    """Multiply-adds of a SiT's forward pass on an image, and those of the linears whose inputs need no gradient."""
    width, channels = model["width"], model["in_channels"]
    tokens = (model["input_size"] // patch) ** 2
    first = tokens * channels * patch**2 * width + 256 * width
    attention = tokens * (3 * width + width) * width + 2 * tokens**2 * width
    block = attention + 2 * tokens * ratio * width**2 + 6 * width**2
    final = tokens * width * channels * patch**2 + 2 * width**2
    return first + width**2 + model["depth"] * block + final, first


def joint_products(model: dict[str, Any], patch: int = 2, ratio: int = 4) -> tuple[int, int]:
    """The same of an MMDiT: both streams have linears of their own, and attention is over the tokens of both."""
    width, channels = model["width"], model["in_channels"]
    tokens, length = (model["input_size"] // patch) ** 2, model["context_length"]
    every = tokens + length
    first = tokens * channels * patch**2 * width + 256 * width + length * model["context_width"] * width
    attention = 2 * every**2 * width
    block = (4 + 2 * ratio) * every * width**2 + 2 * 6 * width**2
    last = ((4 + 2 * ratio) * tokens + 3 * length) * width**2 + (6 + 2) * width**2
    final = tokens * width * channels * patch**2 + 2 * width**2
    return first + width**2 + (model["depth"] - 1) * block + last + model["depth"] * attention + final, first


def vit_products(tokens: int, prefix: int, patch_values: int, width: int, depth: int) -> int:
    """Multiply-adds of a ViT without a head."""
    every = tokens + prefix
    return tokens * patch_values * width + depth * (12 * every * width**2 + 2 * every**2 * width)


@pytest.fixture(scope="module")
def xl() -> Cost:
    """Of HASTE's XL. Nothing is downloaded or drawn for it, and nothing that is changed stays so."""

    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("downloads")

    before = torch.get_rng_state()
    estimate._count_step.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "fetch", fetch)
        cost = step_cost("sit_xl_2", XL, AlignmentConfig(), batch=256, precision="bf16")
    assert torch.equal(before, torch.get_rng_state()) and BLOCK_ELEMENTS == BLOCKS
    return cost


@pytest.mark.parametrize("changes", [{}, {"input_size": 32, "in_channels": 5, "width": 96, "heads": 8, "depth": 2}])
def test_flops_in_closed_form(changes: dict[str, Any]) -> None:
    """The backward pass takes two products for each of the forward's: for the weights (or keys) and for the inputs."""
    model = SMALL | changes
    products, first = plain_products(model)
    cost = step_cost("sit", model, None, batch=3, precision="fp32")
    assert cost.plain_flops == cost.aligned_flops == 2 * (3 * products - first)
    assert cost.teacher_flops == cost.teacher_bytes == cost.projector_parameters == 0


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "depth": 1, "input_size": 16, "context_length": 77}])
def test_flops_of_a_joint_model_in_closed_form(changes: dict[str, Any]) -> None:
    model = TEXT | changes
    products, first = joint_products(model)
    cost = step_cost("mmdit", model, None, batch=3, precision="fp32")
    assert cost.plain_flops == cost.aligned_flops == 2 * (3 * products - first)


@pytest.mark.slow
def test_the_papers_joint_model_with_dinov2() -> None:
    """Projector and losses see the image's 256 tokens alone."""
    cost = step_cost("mmdit_coco", {}, AlignmentConfig(), batch=8, precision="bf16", recompute=True)
    card = find_card("mmdit-coco-haste")
    assert cost.parameters == card.parameters
    model = {**card.config, "context_length": 77}
    products, first = joint_products(model)
    width = 768
    outside = first + width**2 + 256 * width * 16 + 2 * width**2
    assert cost.plain_flops == 2 * (3 * products - first + products - outside)
    linears = 768 * 2048 + 2048 * 2048 + 2048 * 768
    attention = 4 * 12 * 256**2 * (3 * 32 + 64)
    assert cost.aligned_flops - cost.plain_flops == 2 * (3 * 256 * linears + attention)
    # Of each block its inputs are kept, in float32 the image's and in bf16 the context's.
    assert cost.plain_saved > 24 * 8 * width * (4 * 256 + 2 * 77)


def test_recomputation_is_a_second_forward_pass_of_the_blocks() -> None:
    plain, again = (
        step_cost("sit", SMALL, None, batch=3, precision="fp32", recompute=value) for value in (False, True)
    )
    outside, _ = plain_products(SMALL | {"depth": 0})
    inside = plain_products(SMALL)[0] - outside
    assert again.plain_flops - plain.plain_flops == 2 * inside
    assert again.plain_saved < plain.plain_saved / 2


def test_parameters_are_the_cards() -> None:
    card = find_card("sit-ti-digits")
    assert step_cost(card.architecture, card.config, None, batch=1, precision="fp32").parameters == card.parameters


def test_xl_with_dinov2(xl: Cost) -> None:
    """Of 256 tokens; the teacher sees 224 x 224 in patches of 14, and has a class token."""
    assert xl.plain_flops / 6e9 == pytest.approx(118.64, rel=1e-3)  # DiT's table, in multiply-adds of a forward pass
    assert xl.parameters == find_card("sit-xl-haste").parameters
    assert xl.teacher_flops == 2 * vit_products(256, 1, 3 * 14 * 14, 768, 12)
    norms, scales, embedding = 25 * 2 * 768, 12 * 2 * 768, (3 * 14 * 14 + 1) * 768 + 768 + 257 * 768
    assert xl.teacher_parameters == 12 * (12 * 768**2 + 9 * 768) + norms + scales + embedding
    assert xl.teacher_bytes == 4 * xl.teacher_parameters
    linears = 1152 * 2048 + 2048 * 2048 + 2048 * 768
    assert xl.projector_parameters == linears + 2048 + 2048 + 768
    # Rows of both maps, and a product for the gradient of each of queries and keys: 72 wide here, 64 there.
    attention = 4 * 12 * 256**2 * (3 * 72 + 64)
    assert xl.aligned_flops - xl.plain_flops == 2 * (3 * 256 * linears + attention)


def test_what_was_counted_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batch; whatever else differs is counted, and its numbers are its own. What failed is tried again."""
    made, make = [], estimate._student

    def student(*arguments: Any) -> Any:
        made.append(arguments)
        return make(*arguments)

    estimate._count_step.cache_clear()
    monkeypatch.setattr(estimate, "_student", student)
    usual: dict[str, Any] = {"alignment": ALIGNMENT, "batch": 3, "precision": "bf16"}
    first = step_cost("sit", SMALL, **usual)
    again = step_cost("sit", dict(reversed(SMALL.items())), **{**usual, "batch": 5})
    assert len(made) == 1 and again.plain_flops == first.plain_flops and again.plain_saved > first.plain_saved
    others = (
        step_cost("sit", SMALL | {"depth": 2}, **{**usual, "alignment": None}),
        step_cost("sit", SMALL, **{**usual, "precision": "fp32"}),
        step_cost("sit", SMALL, **{**usual, "recompute": True}),
        step_cost("sit", SMALL, **{**usual, "alignment": ALIGNMENT.model_copy(update={"attention_weight": 0.0})}),
        step_cost("sit_ti_2", SMALL, **usual),
    )
    assert (
        len(made) == 6
        and len(
            {(first.aligned_flops, first.aligned_saved, first.cast_bytes)}
            | {(cost.aligned_flops, cost.aligned_saved, cost.cast_bytes) for cost in others[:4]}
        )
        == 5
    )
    for _ in range(2):
        with pytest.raises(UserError, match="no setting 'widht'"):
            step_cost("sit", {"widht": 1}, **usual)
    assert len(made) == 8


def test_parts_of_a_model(xl: Cost) -> None:
    """XL's 28 blocks of 18 matrices of 1152 x 1152, with 15 rows of biases."""
    assert (xl.blocks, xl.block_parameters) == (28, 28 * (18 * 1152**2 + 15 * 1152))
    assert xl.cast_bytes == 2 * 28 * 18 * 1152**2
    assert xl.trained_bytes == 20 * xl.parameters + 16 * xl.projector_parameters == xl.state_bytes - xl.teacher_bytes


def kept_bytes(own: list[nn.Module], call: Any) -> int:
    """Bytes of the storages, each once, that autograd keeps in a call; parameters left out."""
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    there = {parameter.data_ptr() for module in own for parameter in module.parameters()}
    return sum(storage.nbytes() for place, storage in kept.items() if place not in there)


class RealStep:
    """A step as a run takes it, of SMALL or TEXT, on a CPU."""

    def __init__(self, config: AlignmentConfig | None, batch: int, architecture: str = "sit") -> None:
        self.model: Any = create_model(architecture, **MODELS[architecture])
        self.alignment = None
        if config is not None:
            self.alignment = create_alignment(config, self.model, torch.device("cpu"))
            self.alignment.begin(0)
        self.student = Student(self.model, self.alignment.projector if self.alignment else None)
        images = torch.randint(0, 256, (batch, 1, 8, 8), dtype=torch.uint8)
        conditions = {"sit": torch.zeros(batch, dtype=torch.int64), "mmdit": torch.zeros(batch, 5, 20).half()}
        self.null = {"sit": 10, "mmdit": torch.zeros(5, 20)}[architecture]
        self.batch = Batch(torch.randn(batch, 1, 8, 8), conditions[architecture], images)
        self.draws = Draws(torch.rand(batch), torch.randn(batch, 1, 8, 8), torch.zeros(batch, dtype=torch.bool))

    def kept(self, precision: str) -> int:
        objective = Objective(Linear(), self.null, self.alignment)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return kept_bytes([self.student], lambda: objective(self.student, self.batch, self.draws))

    def block(self, precision: str) -> int:
        tokens, c = torch.randn(len(self.batch), 16, 48), torch.randn(len(self.batch), 48)
        inputs = [tokens, c]
        if isinstance(self.model, MMDiT):
            # Of a linear, which autocast runs in bf16; positions and a table lift the others back to float32.
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            inputs = [torch.randn(len(self.batch), 5, 48, dtype=dtype), tokens, c.to(dtype)]
        inputs = [given.requires_grad_() for given in inputs]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return kept_bytes([self.student], lambda: self.model.blocks[1](*inputs))


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize(("precision", "batch", "dtype"), [("fp32", 5, "bfloat16"), ("bf16", 7, "float32")])
def test_kept_bytes_are_those_of_a_real_step(
    precision: str, batch: int, dtype: Any, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte, at a batch that was not tried: bytes are on a line, which autocast's copies of weights lift. With
    attention as on a GPU: a CPU's is in float32."""
    assert {"cpu"} == layers.SLOW_IN_BFLOAT16, "an estimate leaves it as it was"
    monkeypatch.setattr(layers, "SLOW_IN_BFLOAT16", set())
    config = ALIGNMENT.model_copy(update={"teacher": TEACHER.model_copy(update={"dtype": dtype})})
    cost = step_cost(architecture, MODELS[architecture], config, batch=batch, precision=precision)
    assert batch not in estimate.PROBES and cost.batch == batch
    assert cost.plain_saved == RealStep(None, batch, architecture).kept(precision)
    assert cost.aligned_saved == RealStep(config, batch, architecture).kept(precision)
    assert cost.aligned_saved > cost.plain_saved
    assert cost.teacher_bytes == cost.teacher_parameters * (2 if dtype == "bfloat16" else 4)
    assert cost.teacher_flops == 2 * vit_products(16, 1, 4, 128, 4)
    again = step_cost(architecture, MODELS[architecture], config, batch=batch, precision=precision, recompute=True)
    for aligned, saved in ((None, again.plain_saved), (config, again.aligned_saved)):
        real = RealStep(aligned, batch, architecture)
        real.model.recompute = True
        assert saved == real.kept(precision) + real.block(precision)


@pytest.mark.parametrize(
    "changes", [{"attention_weight": 0.0}, {"feature_weight": 0.0}, {"projector": "conv"}, {"heads": "mean"}], ids=str
)
def test_each_kind_of_alignment(changes: dict[str, Any]) -> None:
    config = ALIGNMENT.model_copy(update=changes)
    cost = step_cost("sit", SMALL, config, batch=5, precision="fp32")
    assert cost.aligned_saved == RealStep(config, 5).kept("fp32")
    assert cost.plain_flops == 2 * (3 * plain_products(SMALL)[0] - plain_products(SMALL)[1]) < cost.aligned_flops


def test_no_attention_map_is_kept() -> None:
    """Four times the tokens keep no more than four times as much; sixteen times as many would be in a map."""
    models = (SMALL | {"input_size": size, "depth": 1} for size in (64, 128))
    few, many = (step_cost("sit", model, None, batch=9, precision="bf16").plain_saved for model in models)
    assert many < 4 * few


def test_state_and_checkpoint_are_those_of_a_real_run() -> None:
    """Tensors of a step that was taken; the fixed positions and the optimizer's counters are not among them."""
    cost = step_cost("sit", SMALL, ALIGNMENT, batch=2, precision="fp32")
    real = RealStep(ALIGNMENT, 2)
    Objective(Linear(), 10, real.alignment)(real.student, real.batch, real.draws).total.backward()
    optimizer = torch.optim.AdamW(real.student.parameters())
    optimizer.step()
    weights = list(real.student.parameters())
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    ema = list(Ema(real.model, 0.9).model.parameters())
    assert real.alignment is not None and real.alignment.teacher is not None
    teacher = list(real.alignment.teacher._pass.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]

    def size(tensors: list[Any]) -> int:
        return sum(tensor.nbytes for tensor in tensors)

    assert cost.state_bytes == size(weights) + size(gradients) + size(moments) + size(ema) + size(teacher)
    assert cost.checkpoint_bytes == size(weights) + size(moments) + size(ema)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "sit_xxl_2"}, "model: unknown architecture 'sit_xxl_2'; near it: sit_"),
        ({"model": {"widht": 8}}, "model: sit has no setting 'widht'; nearest: width"),
        ({"model": {"width": 50, "heads": 3}}, "model: width 50 is not a multiple of heads 3"),
        ({"model": {"width": "wide"}}, "model: "),
        ({"alignment": ALIGNMENT.model_copy(update={"feature_layer": 4})}, "alignment: feature_layer 4 is not in 1..3"),
        (
            {
                "alignment": ALIGNMENT.model_copy(
                    update={"teacher": TeacherConfig(name="vit_bas_patch14_dinov2.lvd142m")}
                )
            },
            "timm has no model .*nearest: vit_base_patch14_dinov2.lvd142m",
        ),
        (
            {"alignment": ALIGNMENT.model_copy(update={"teacher": TeacherConfig(name="local-dir:none")})},
            "local-dir:none",
        ),
        ({"precision": "fp8"}, "precision is fp32 or bf16, not 'fp8'"),
        ({"batch": 0}, "a batch has 1 or more images, not 0"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"architecture": "sit", "model": SMALL, "alignment": None, "batch": 2, "precision": "fp32"}
    with pytest.raises(UserError, match=message):
        step_cost(**(given | arguments))


def test_flops_of_a_run() -> None:
    """10 steps on 4 images, 3 of them aligned: 40 x 30, 12 x 6 more, and the teacher's 12 x 8."""
    total, share = run_flops(COST, 10, 4, 3)
    assert total == 1200 + 72 + 96
    assert share == pytest.approx(96 / 1368)
    assert run_flops(replace(COST, aligned_flops=30, teacher_flops=0), 10, 4, 0) == (1200, 0)


@pytest.mark.parametrize(
    ("termination", "steps", "expected"),
    [
        (TerminationConfig(), 100, 100),
        (TerminationConfig(kind="step", step=30), 100, 30),
        (TerminationConfig(kind="step", step=300), 100, 100),
        (TerminationConfig(kind="gradient", start=50), 100, 100),
    ],
)
def test_aligned_steps(termination: TerminationConfig, steps: int, expected: int) -> None:
    assert estimate.aligned_steps(termination, steps) == expected


def test_hours() -> None:
    """312 TFLOP/s on 8 GPUs at half of the peak take an hour for 312e12 x 8 / 2 x 3600."""
    gpu = find_gpu("A100")
    assert hours(312e12 * 8 / 2 * 3600, gpu, 8, 0.5) == pytest.approx(1)
    assert hours(19.5e12 * 3600, gpu, 1, 1.0, precision="fp32") == pytest.approx(1)
    with pytest.raises(UserError, match=r"not 1\.2"):
        hours(1e15, gpu, 1, 1.2)
    with pytest.raises(UserError, match="not 0"):
        hours(1e15, gpu, 0, 0.5)


def test_gpus() -> None:
    assert {"a100", "h100", "h200", "l40s", "rtx4090", "v100"} <= set(list_gpus())
    for gpu in list_gpus().values():
        assert 1.5 * gpu.fp32 < gpu.bf16 and 8 <= gpu.memory < 300
    with pytest.raises(UserError, match="unknown GPU 'h10'; near it: h100"):
        find_gpu("h10")
