"""What is only looked at: CKNNA and the divergence of attention; and the low-frequency experiment."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hastezoo.alignment.frequencies import low_pass
from hastezoo.alignment.progress import attention_divergence, cknna


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out(a: Tensor, b: Tensor, k: int) -> float:
    """CKNNA by its definition, entry by entry, with the unbiased HSIC over ordered quadruples in closed form."""
    count = len(a)
    rows = [[row / row.norm() for row in side] for side in (a, b)]
    kernels = [[[float(x @ y) for y in side] for x in side] for side in rows]

    def near(kernel: list[list[float]], i: int) -> set[int]:
        return set(sorted((j for j in range(count) if j != i), key=lambda j: -kernel[i][j])[:k])

    def hsic(first: int, second: int) -> float:
        both = [near(kernels[first], i) & near(kernels[second], i) for i in range(count)]
        p, q = (
            [[kernels[side][i][j] if j in both[i] else 0.0 for j in range(count)] for i in range(count)]
            for side in (first, second)
        )
        n = range(count)
        pairs = sum(p[i][j] * q[j][i] for i in n for j in n)
        sums = sum(map(sum, p)) * sum(map(sum, q)) / ((count - 1) * (count - 2))
        triples = sum(p[i][j] * q[j][m] for i in n for j in n for m in n) * 2 / (count - 2)
        return (pairs + sums - triples) / (count * (count - 3))

    return hsic(0, 1) / math.sqrt(hsic(0, 0) * hsic(1, 1))


def test_cknna_against_its_definition() -> None:
    a = features(0, 12, 5)
    b = torch.cat([a[:, :3], features(1, 12, 4)], dim=1)
    assert cknna(a, b, k=4) == pytest.approx(written_out(a, b, 4), abs=1e-12)


def test_cknna_knows_the_same_from_another() -> None:
    a, b = features(0, 60, 16), features(1, 60, 24)
    rotation = torch.linalg.qr(features(2, 16, 16))[0]
    assert cknna(a, a) == pytest.approx(1, abs=1e-9)
    assert cknna(a, 5 * a @ rotation) == pytest.approx(1, abs=1e-9), "it sees neither rotation nor scale"
    near = cknna(a, torch.cat([a, 0.5 * b], dim=1))
    assert cknna(a, b) < 0.25 < near < 1


@pytest.mark.parametrize(("a", "b"), [(11, 12), (10, 10)])
def test_cknna_needs_enough(a: int, b: int) -> None:
    with pytest.raises(ValueError, match="more than k"):
        cknna(features(0, a, 3), features(0, b, 3), k=10)


def test_divergence_is_zero_for_equals_and_the_formula_otherwise() -> None:
    qs, ks, qt, kt = (features(seed, 2, 3, 10, 4) for seed in range(4))
    assert attention_divergence(qs, ks, qs, ks) == pytest.approx(0, abs=1e-12)
    student, teacher = ((q @ k.mT / 2).softmax(-1) for q, k in ((qs, ks), (qt, kt)))
    wanted = float((teacher * (teacher / student).log()).sum(-1).mean())
    assert attention_divergence(qs, ks, qt, kt) == pytest.approx(wanted, abs=1e-12) and wanted > 0
    surplus = attention_divergence(qs[:, :2], ks[:, :2], qt, kt)
    assert surplus == pytest.approx(float((teacher * (teacher / student).log())[:, :2].sum(-1).mean()), abs=1e-12)


def test_low_pass_keeps_low_waves_and_takes_high_ones() -> None:
    x = torch.arange(16, dtype=torch.float64)
    low, high = (torch.cos(2 * math.pi * waves * x / 16).expand(1, 1, 16, 16) for waves in (2, 6))
    level = torch.full((1, 1, 16, 16), 0.7, dtype=torch.float64)
    for wave in (low, low.mT):
        assert (low_pass(level + wave + high, 0.5) - level - wave).abs().max() < 1e-6
    assert (low_pass(low + high, 1.0) - low - high).abs().max() < 1e-6
    diagonal = torch.cos(2 * math.pi * 6 * (x[:, None] + x) / 16).expand(1, 1, 16, 16)
    assert low_pass(diagonal, 1.0).abs().max() < 1e-6, "the kept frequencies are a disc"
    with pytest.raises(ValueError, match="floating point"):
        low_pass(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), 0.5)
