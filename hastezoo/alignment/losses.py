"""What the student is asked to match: a teacher's features (REPA) and its attention (HASTE), in float32 or better.

Attention is compared without storing any N x N map. The cross-entropy of row i of two attention maps,

    H_i = - sum_j p_ij log a_ij = logsumexp_j s_ij - sum_j p_ij s_ij,    s = q k^T / sqrt(d) of the student,

needs a few rows of both maps at a time, and its gradient in s is a - p whatever is done with the loss later. So one
pass over blocks of rows gives the loss and both gradients, as large as q and k; the backward pass only scales them.
Head sizes may differ between the sides, and nothing depends on which fused attention kernels a device has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hastezoo.alignment.config import HeadPairing

# Elements of a block of attention rows: on a CPU a block should stay in its cache, a GPU wants larger ones.
BLOCK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 24}
SMALL_MAP = 64  # tokens up to which a whole map is a block


def feature_alignment(projected: Tensor, target: Tensor) -> Tensor:
    """The negative mean cosine between projected student tokens and the teacher's (REPA).

    Args:
        projected: (B, N, D), what the projector made of the student's tokens.
        target: (B, N, D), the teacher's final normalised patch tokens.

    Returns:
        A scalar in [-1, 1], in float32 whatever the inputs are (float64 stays): squared norms overflow in fp16.

    Raises:
        ValueError: If the shapes differ.
    """
    if projected.shape != target.shape:
        raise ValueError(f"projected {tuple(projected.shape)} and target {tuple(target.shape)} differ in shape")
    with torch.autocast(projected.device.type, enabled=False):
        return -F.cosine_similarity(_exact(projected), _exact(target), dim=-1).mean()


def attention_alignment(
    student_queries: Tensor,
    student_keys: Tensor,
    teacher_queries: Tensor,
    teacher_keys: Tensor,
    *,
    heads: HeadPairing = "index",
) -> Tensor:
    """The cross-entropy of attention rows, mean over rows, heads and batch (HASTE); no N x N map is stored.

    Args:
        student_queries, student_keys: (B, heads, N, d) after QK norm, before scaling by d^-0.5.
        teacher_queries, teacher_keys: (B, heads', N, d') of patch tokens alone: class and register tokens are cut
            before the softmax.
        heads: `index` pairs head h with head h up to the smaller number and leaves surplus heads free; `mean` compares
            the attention averaged over the heads of each side.

    Returns:
        A scalar in nats, in float32 (float64 stays). Gradients flow to the student alone.

    Raises:
        ValueError: If batch or tokens differ, or `heads` is unknown.
    """
    student, teacher = student_queries.shape, teacher_queries.shape
    if (student[0], student[2]) != (teacher[0], teacher[2]):
        raise ValueError(f"student {tuple(student)} and teacher {tuple(teacher)} differ in batch or tokens")
    if heads not in ("index", "mean"):
        raise ValueError(f"heads {heads!r} is neither 'index' nor 'mean'")
    sides = (student_queries, student_keys, teacher_queries, teacher_keys)
    if heads == "mean":
        return _RowCrossEntropy.apply(*(side.unsqueeze(1) for side in sides))
    paired = min(student[1], teacher[1])
    return _RowCrossEntropy.apply(*(side[:, :paired].unsqueeze(2) for side in sides))


class _RowCrossEntropy(torch.autograd.Function):
    """The mean cross-entropy of rows. Inputs are (B, groups, heads, N, d); maps are averaged within a group of heads.

    The loss is a scalar, so its gradient is known up to a factor in the forward pass, and is taken there: the blocks
    of the maps are at hand once instead of twice.
    """

    @staticmethod
    def forward(ctx: Any, qs: Tensor, ks: Tensor, qt: Tensor, kt: Tensor) -> Tensor:
        training = any(ctx.needs_input_grad)
        exact = _exact(qs[:0]).dtype
        grad_q = torch.zeros_like(qs, dtype=exact, memory_format=torch.contiguous_format) if training else None
        grad_k = torch.zeros_like(ks, dtype=exact, memory_format=torch.contiguous_format) if training else None
        total = torch.zeros((), dtype=exact, device=qs.device)
        rows = qs.shape[0] * qs.shape[1] * qs.shape[3]
        scale = qs.shape[-1] ** -0.5
        with torch.autocast(qs.device.type, enabled=False):
            for b, g, r in _blocks(qs, qt):
                queries, keys = _exact(qs[b, g, :, r]), _exact(ks[b, g])
                target = _attention(_exact(qt[b, g, :, r]), _exact(kt[b, g]))
                log_rows = torch.matmul(queries * scale, keys.mT).log_softmax(-1)
                entropy, slope = _compare(log_rows, target)
                total += entropy
                if grad_q is not None and grad_k is not None:
                    slope *= scale / rows
                    grad_q[b, g, :, r] = torch.matmul(slope, keys)
                    grad_k[b, g] += torch.matmul(slope.mT, queries)
        ctx.dtypes = qs.dtype, ks.dtype
        if training:
            ctx.save_for_backward(grad_q, grad_k)
        return total / rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        grads = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return (*((upstream * grad).to(dtype) for grad, dtype in grads), None, None)


def _compare(log_rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of attention rows, and its gradient in the student's logits.

    Args:
        log_rows: (b, g, heads, r, N), the student's log-attention; it may be overwritten.
        target: (b, g, heads', r, N), the teacher's attention.
    """
    if log_rows.shape[2] == target.shape[2] == 1:
        entropy = -torch.dot(target.flatten(), log_rows.flatten())
        return entropy, log_rows.exp_().sub_(target)
    target = target.mean(2, keepdim=True)
    log_mean = log_rows.logsumexp(2, keepdim=True) - math.log(log_rows.shape[2])
    pull = -target * (log_rows - log_mean).exp_().div_(log_rows.shape[2])  # to each head by its share of the mean
    slope = pull - log_rows.exp() * pull.sum(-1, keepdim=True)
    return -torch.sum(target * log_mean), slope


def _attention(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.matmul(queries * queries.shape[-1] ** -0.5, keys.mT).softmax(-1)


def _exact(x: Tensor) -> Tensor:
    """In float32, or float64 if it is."""
    return x if x.dtype == torch.float64 else x.float()


def _blocks(student: Tensor, teacher: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of batch, groups and rows whose maps have bounded sizes, and never all rows of a large map."""
    batch, groups, _, tokens, _ = student.shape
    heads = max(student.shape[2], teacher.shape[2])
    budget = BLOCK_ELEMENTS.get(student.device.type, BLOCK_ELEMENTS["cuda"])
    whole = tokens if tokens <= SMALL_MAP else tokens // 2
    row_step = max(1, min(whole, budget // (heads * tokens)))
    group_step = max(1, min(groups, budget // (heads * tokens * row_step)))
    batch_step = max(1, min(batch, budget // (heads * tokens * row_step * groups)))
    for b in range(0, batch, batch_step):
        for g in range(0, groups, group_step):
            for r in range(0, tokens, row_step):
                yield slice(b, b + batch_step), slice(g, g + group_step), slice(r, r + row_step)
