"""The two losses against their naive float64 forms, and against the reference implementation's outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hastezoo.alignment import losses
from hastezoo.alignment.grids import resize_tokens
from hastezoo.alignment.losses import attention_alignment, feature_alignment

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


def naive(qs: Tensor, ks: Tensor, qt: Tensor, kt: Tensor, heads: str = "index") -> Tensor:
    """Both maps in full: - mean over rows of sum_j p_ij log a_ij."""
    student = (qs @ ks.mT / qs.shape[-1] ** 0.5).softmax(-1)
    teacher = (qt @ kt.mT / qt.shape[-1] ** 0.5).softmax(-1)
    if heads == "mean":
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    paired = min(student.shape[1], teacher.shape[1])
    return -(teacher[:, :paired] * student[:, :paired].log()).sum(-1).mean()


def sides(
    batch: int, tokens: int, heads: tuple[int, int], sizes: tuple[int, int], dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Queries and keys of a student, which want gradients, and of a teacher."""
    source = torch.Generator().manual_seed(tokens + heads[0])
    made = []
    for count, size, wanted in ((heads[0], sizes[0], True), (heads[1], sizes[1], False)):
        for _ in range(2):
            # Laid out as the models hand them out: (B, N, heads, d), transposed.
            x = 1.5 * torch.randn(batch, tokens, count, size, generator=source, dtype=torch.float64)
            made.append(x.to(dtype).transpose(1, 2).requires_grad_(wanted))
    return made


@pytest.mark.parametrize("pairing", ["index", "mean"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("batch", "tokens", "heads", "sizes"),
    [
        (2, 256, (16, 12), (72, 64)),
        (1, 256, (12, 16), (64, 72)),
        (3, 16, (4, 4), (8, 8)),
        (2, 77, (3, 5), (8, 6)),
        (1, 130, (1, 1), (4, 4)),
        (5, 1, (2, 2), (4, 4)),
    ],
)
def test_value_and_gradients_are_the_naive_ones(
    batch: int, tokens: int, heads: tuple[int, int], sizes: tuple[int, int], dtype: torch.dtype, pairing: Any
) -> None:
    inputs = sides(batch, tokens, heads, sizes, dtype)
    exact = [x.detach().double().requires_grad_(x.requires_grad) for x in inputs]
    ours, wanted = attention_alignment(*inputs, heads=pairing), naive(*exact, heads=pairing)
    assert ours.dtype == dtype and abs(ours.item() - wanted.item()) < TOLERANCE[dtype]
    found, reference = (torch.autograd.grad(3 * loss, x[:2]) for loss, x in ((ours, inputs), (wanted, exact)))
    for a, b in zip(found, reference, strict=True):
        assert a.dtype == dtype
        # Relative to the largest entry: with 1/(B heads N) in it, a gradient is small whatever it is.
        assert (a.double() - b).abs().max() <= TOLERANCE[dtype] * max(float(b.abs().max()), 1e-12)


@pytest.mark.parametrize("elements", [1, 40, 1000, 10**7])
@pytest.mark.parametrize("pairing", ["index", "mean"])
def test_blocks_of_any_size_give_the_same(elements: int, pairing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = sides(3, 70, (4, 3), (8, 6))
    monkeypatch.setitem(losses.BLOCK_ELEMENTS, "cpu", elements)
    ours, wanted = attention_alignment(*inputs, heads=pairing), naive(*inputs, heads=pairing)
    assert abs(ours.item() - wanted.item()) < 1e-12
    for a, b in zip(torch.autograd.grad(ours, inputs[:2]), torch.autograd.grad(wanted, inputs[:2]), strict=True):
        assert (a - b).abs().max() < 1e-14


def test_a_finite_difference() -> None:
    inputs = sides(1, 5, (2, 2), (3, 4))
    assert torch.autograd.gradcheck(lambda q, k: attention_alignment(q, k, *inputs[2:]), inputs[:2])
    assert torch.autograd.gradcheck(lambda q, k: attention_alignment(q, k, *inputs[2:], heads="mean"), inputs[:2])


def test_surplus_heads_are_free_and_the_teacher_gets_nothing() -> None:
    queries, keys, teacher_queries, teacher_keys = sides(1, 20, (5, 3), (4, 4))
    loss = attention_alignment(queries, keys, teacher_queries.requires_grad_(), teacher_keys)
    loss.backward()
    assert queries.grad is not None and teacher_queries.grad is None
    assert queries.grad[:, :3].abs().min() > 0 and not queries.grad[:, 3:].any()


def test_equal_attention_costs_the_entropy_and_has_no_gradient() -> None:
    queries, keys, *_ = sides(2, 30, (3, 3), (4, 4))
    loss = attention_alignment(queries, keys, queries.detach(), keys.detach())
    rows = (queries @ keys.mT / 2).softmax(-1)
    assert float(loss) == pytest.approx(float(-(rows * rows.log()).sum(-1).mean()), abs=1e-12)
    assert max(float(grad.abs().max()) for grad in torch.autograd.grad(loss, (queries, keys))) < 1e-15


def test_bf16_inputs_and_autocast_are_computed_in_float32() -> None:
    inputs = [x.detach().bfloat16() for x in sides(2, 64, (4, 4), (16, 16))]
    for x in inputs[:2]:
        x.requires_grad_()
    wanted = naive(*[x.detach().float() for x in inputs])
    with torch.autocast("cpu", torch.bfloat16):
        loss = attention_alignment(*inputs)
        features = feature_alignment(inputs[0].flatten(0, 1), inputs[2].flatten(0, 1))
    assert loss.dtype == features.dtype == torch.float32 and float(loss) == pytest.approx(float(wanted), abs=1e-5)
    loss.backward()
    assert inputs[0].grad is not None and inputs[0].grad.dtype == torch.bfloat16


def test_large_logits_stay_finite() -> None:
    """A row that is one-hot to the last bit: log a is -2000, not -inf, and neither loss nor gradient is NaN."""
    inputs = [100 * x.detach().float() for x in sides(1, 8, (2, 2), (4, 4))]
    for x in inputs[:2]:
        x.requires_grad_()
    loss = attention_alignment(*inputs)
    assert torch.isfinite(loss) and all(torch.isfinite(grad).all() for grad in torch.autograd.grad(loss, inputs[:2]))


def test_golden_losses(golden: Any) -> None:
    tensors = golden("losses")
    attention = torch.stack(
        [
            attention_alignment(
                *(tensors[f"student_{name}.{student}"] for name in ("query", "key")),
                *(tensors[f"teacher_{name}.{teacher}"] for name in ("query", "key")),
            )
            for student, teacher in zip(range(4, 8), range(8, 12), strict=True)
        ]
    ).mean()
    assert abs(float(attention - tensors["attention"])) <= 1e-5
    assert abs(float(feature_alignment(tensors["projected"], tensors["teacher_features"]) - tensors["feature"])) <= 1e-5


def test_features_against_the_formula() -> None:
    a, b = torch.randn(2, 2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for x, y in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True):
        total -= float(x @ y / (x.norm() * y.norm())) / 14
    assert float(feature_alignment(a, b)) == pytest.approx(total, abs=1e-12)
    assert float(feature_alignment(a, 3 * a)) == pytest.approx(-1, abs=1e-12)
    # In fp16 the squared norm of such a token is infinite.
    assert float(feature_alignment(300 * torch.ones(1, 2, 8).half(), torch.ones(1, 2, 8).half())) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feature_alignment(torch.ones(1, 2, 3), torch.ones(1, 2, 4)), "differ in shape"),
        (lambda: attention_alignment(*[torch.ones(1, 2, 4, 3)] * 2, *[torch.ones(1, 2, 5, 3)] * 2), "batch or tokens"),
        (lambda: attention_alignment(*[torch.ones(1, 2, 4, 3)] * 4, heads="all"), "neither 'index' nor 'mean'"),  # type: ignore[arg-type]
        (lambda: resize_tokens(torch.ones(1, 15, 3), (4, 4), (2, 2)), "do not fill"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("to", [(14, 14), (8, 20), (16, 16)])
def test_resizing_queries_and_keys_resizes_the_logits(to: tuple[int, int]) -> None:
    """The student's logits, interpolated along both axes of the map, are those of its resized queries and keys."""
    queries, keys, *_ = sides(2, 256, (3, 3), (8, 8))
    logits = queries @ keys.mT

    def along_last(maps: Tensor) -> Tensor:
        grids = maps.reshape(-1, 1, 16, 16)
        resized = torch.nn.functional.interpolate(grids, size=to, mode="bilinear", align_corners=False)
        return resized.reshape(*maps.shape[:-1], -1)

    wanted = along_last(along_last(logits).mT).mT
    ours = resize_tokens(queries, (16, 16), to) @ resize_tokens(keys, (16, 16), to).mT
    assert ours.shape[-1] == to[0] * to[1] and (ours - wanted).abs().max() < 1e-12
