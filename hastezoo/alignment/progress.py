"""How far a student has come towards a teacher: measures to look at, not losses to descend."""

from __future__ import annotations

import torch
from torch import Tensor

from hastezoo.alignment.losses import attention_alignment


def cknna(a: Tensor, b: Tensor, k: int = 10) -> float:
    """Centered kernel alignment over mutual nearest neighbours (Huh et al. 2024).

    Both sets of features describe the same images. Their kernels of inner products are compared where an image is
    among the k nearest of another in both; the unbiased estimate of HSIC is used, and rows are normalised first.

    Args:
        a: (images, D).
        b: (images, D'), the widths may differ.
        k: Neighbours.

    Returns:
        1 for equal neighbourhoods, about 0 for unrelated ones.

    Raises:
        ValueError: If there are not more than k images (and at least 4), or the numbers differ.
    """
    count = len(a)
    if count != len(b) or count <= k or count < 4:
        raise ValueError(
            f"cknna with k = {k} needs as many features on both sides and more than k, not {count}, {len(b)}"
        )
    kernels = [torch.nn.functional.normalize(side.double(), dim=-1) for side in (a, b)]
    first, second = (side @ side.mT for side in kernels)
    near_first, near_second = _nearest(first, k), _nearest(second, k)
    across = _hsic(first, second, near_first * near_second)
    own = _hsic(first, first, near_first) * _hsic(second, second, near_second)
    return float(across / own.clamp_min(0).sqrt().clamp_min(1e-12))


def _nearest(kernel: Tensor, k: int) -> Tensor:
    """1 where column j is among the k nearest of row i, i itself left out."""
    others = kernel.clone().fill_diagonal_(-torch.inf)
    return torch.zeros_like(kernel).scatter_(1, others.topk(k, dim=1).indices, 1.0)


def _hsic(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """The unbiased estimate of HSIC (Song et al. 2012) of two kernels under a mask."""
    count = len(first)
    a, b = ((kernel * mask).fill_diagonal_(0) for kernel in (first, second))
    whole = (a * b.mT).sum() + a.sum() * b.sum() / ((count - 1) * (count - 2)) - 2 * (a @ b).sum() / (count - 2)
    return whole / (count * (count - 3))


def attention_divergence(
    student_queries: Tensor, student_keys: Tensor, teacher_queries: Tensor, teacher_keys: Tensor
) -> float:
    """The mean divergence KL(teacher | student) of attention rows, in nats; heads paired by index.

    It is the alignment loss less the teacher's own entropy, so that 0 means equal. Shapes as of `attention_alignment`.
    """
    heads = min(student_queries.shape[1], teacher_queries.shape[1])
    queries, keys = teacher_queries[:, :heads], teacher_keys[:, :heads]
    crossed = attention_alignment(student_queries, student_keys, queries, keys)
    return float(crossed - attention_alignment(queries, keys, queries, keys))
