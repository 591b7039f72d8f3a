"""Precision and recall by nearest neighbours (Kynkäänniemi et al., NeurIPS 2019), with the ADM evaluator's numbers.

The ADM evaluator rounds features to half precision, and their norms, products and distances once more, which raises
both shares by 0.001 to 0.005. They are computed here twice from the same blocks: rounded as there, and in float32.
Blocks and a running list of the nearest take the place of the matrix of all distances: 10 GB for 50,000 samples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[int, int], None]
"""Told how many distances are computed, and how many there are to compute."""

GROUP = 16  # distances whose minimum is taken before any are ranked
HALF_LIMIT = 65504 / 2  # of squared norms: twice a product may overflow half precision beyond it
# Of the norms: what float32 products of points that are the same are off by. A point on a ball's surface is inside.
ROUNDING = 5e-7


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares between 0 and 1.

    Attributes:
        precision: The share of samples inside the ball of some reference image, by the ADM evaluator's distances in
            half precision; by float32 ones where half precision overflows.
        recall: The share of reference images inside the ball of some sample; likewise.
        precision_float32: By distances in float32.
        recall_float32: Likewise.
    """

    precision: float
    recall: float
    precision_float32: float
    recall_float32: float


def precision_recall(
    reference: np.ndarray,
    samples: np.ndarray,
    *,
    k: int = 3,
    block: int = 2048,
    device: str | torch.device = "cpu",
    progress: Progress = lambda done, total: None,
) -> PrecisionRecall:
    """Precision and recall of samples against reference images.

    The ball of a point reaches to its k-th nearest other point of its own set, and holds its surface.

    Args:
        reference: float32 features (R, D); the ADM evaluator's are pool_3 of 10,000 images.
        samples: float32 features (N, D).
        k: Which neighbour.
        block: Points whose distances are held at once, block x block of them. Another one moves products by their
            last bit, and so each share by an image now and then.
        device: Where the products are computed: cpu or cuda.
        progress: Told of every block.

    Raises:
        ValueError: If a set has no k-th neighbours, the widths differ, or a feature is not within half precision.
    """
    if reference.ndim != 2 or samples.ndim != 2 or reference.shape[1] != samples.shape[1]:
        raise ValueError(f"features are (R, D) and (N, D), not {reference.shape} and {samples.shape}")
    if not 1 <= k < min(len(reference), len(samples)):
        raise ValueError(f"{len(reference)} references and {len(samples)} samples have no neighbour number {k} each")
    centre = reference.mean(0, dtype=np.float64)
    real, drawn = (_Points(features, centre, torch.device(device), block) for features in (reference, samples))
    across = [(rows, columns) for rows in real.blocks for columns in drawn.blocks]
    done, total = 0, sum(_size(pair) for pair in (*real.pairs(), *drawn.pairs(), *across))
    for points in (real, drawn):
        nearest = _Nearest(points, k)
        for pair in points.pairs():
            nearest.add(*pair)
            progress(done := done + _size(pair), total)
        nearest.set_radii()
    precision, recall = _Covered(drawn, real), _Covered(real, drawn)
    for rows, columns in across:
        for kind, products in _products(real, rows, drawn, columns):
            recall.add(kind, rows, columns, products)
            precision.add(kind, columns, rows, products.T)
        progress(done := done + _size((rows, columns)), total)
    kinds = ("half" if real.half_fits and drawn.half_fits else "full", "full")
    return PrecisionRecall(*(covered.share(kind) for kind in kinds for covered in (precision, recall)))


class _Points:
    """A set of points, in half precision as they are and in float32 from a centre, which leaves fewer digits to lose.

    Attributes:
        norms: Squared norms by kind, `half` and `full`.
        half_fits: Whether half precision is wide enough for their distances.
        radii: Squared radii of their balls by kind, when found.
    """

    radii: dict[str, Tensor]

    def __init__(self, features: np.ndarray, centre: np.ndarray, device: torch.device, block: int) -> None:
        self.features, self.device = features, device
        self.centre = torch.from_numpy(centre).float()
        self.blocks = [slice(start, min(start + block, len(features))) for start in range(0, len(features), block)]
        norms: dict[str, list[Tensor]] = {"half": [], "full": []}
        largest = 0.0
        for rows in self.blocks:
            half = self._rows(rows).half()
            if not half.isfinite().all():
                raise ValueError("features beyond 65504, or that are not finite, cannot be rounded to half precision")
            squares = (half * half).float().sum(1)
            largest = max(largest, float(squares.max()))
            norms["half"].append(squares.half())
            norms["full"].append(self.take("full", rows).square().sum(1))
        self.norms = {kind: torch.cat(parts).to(device) for kind, parts in norms.items()}
        self.half_fits = largest <= HALF_LIMIT

    def _rows(self, rows: slice) -> Tensor:
        return torch.from_numpy(np.array(self.features[rows], np.float32))

    def take(self, kind: str, rows: slice) -> Tensor:
        """A block of points of a kind, as float32 on the device."""
        points = self._rows(rows)
        return (points.half().float() if kind == "half" else points - self.centre).to(self.device)

    def pairs(self) -> list[tuple[slice, slice]]:
        """Blocks of distances within the set, each pair of points once."""
        return [(rows, columns) for place, rows in enumerate(self.blocks) for columns in self.blocks[place:]]


def _size(pair: tuple[slice, slice]) -> int:
    rows, columns = pair
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def _products(a: _Points, rows: slice, b: _Points, columns: slice) -> Iterator[tuple[str, Tensor]]:
    """Products of points by kind: those of rounded points are summed in float32 and rounded once, as in ADM's."""
    yield "half", (a.take("half", rows) @ b.take("half", columns).T).half()
    yield "full", a.take("full", rows) @ b.take("full", columns).T


def _distances(near: Tensor, products: Tensor, far: Tensor) -> Tensor:
    """(|u|^2 - 2 uv) + |v|^2; in half precision every step is rounded, in this order, as in the ADM evaluator.

    There, what rounding takes below zero is set to zero; here the radii are, which comes to the same.
    """
    return torch.sub(near[:, None], products, alpha=2).add_(far)


def _smallest(distances: Tensor, count: int) -> Tensor:
    """The smallest of every row.

    They lie in the groups of columns with the smallest minima, and minima are found faster than ranks.
    """
    groups = distances.shape[1] // GROUP
    if groups < count or distances.shape[1] % GROUP:
        return distances.topk(min(count, distances.shape[1]), 1, largest=False).values
    grouped = distances.unflatten(1, (GROUP, groups))
    # Not amin, which is a hundred times slower on the transpose of a block.
    minima = functools.reduce(torch.minimum, grouped.unbind(1))
    chosen = minima.topk(count, 1, largest=False).indices
    members = grouped.gather(2, chosen[:, None].expand(-1, GROUP, -1)).flatten(1)
    return members.topk(count, 1, largest=False).values


class _Nearest:
    """The nearest neighbours of every point in its own set, itself among them, from blocks of distances."""

    def __init__(self, points: _Points, k: int) -> None:
        self.points, self.k = points, k
        shape = (len(points.features), k + 1)
        self._found = {kind: norms.new_full(shape, torch.inf) for kind, norms in points.norms.items()}

    def add(self, rows: slice, columns: slice) -> None:
        """Take in the distances between two blocks, in both directions."""
        for kind, products in _products(self.points, rows, self.points, columns):
            self._keep(kind, rows, columns, products)
            if rows != columns:  # the distances back differ in half precision, where it matters which norm comes first
                self._keep(kind, columns, rows, products.T)

    def _keep(self, kind: str, rows: slice, columns: slice, products: Tensor) -> None:
        norms, found = self.points.norms[kind], self._found[kind]
        near = torch.cat([found[rows], _smallest(_distances(norms[rows], products, norms[columns]), self.k + 1)], 1)
        found[rows] = near.topk(self.k + 1, 1, largest=False).values

    def set_radii(self) -> None:
        """The squared distances to the k-th neighbour."""
        self.points.radii = {kind: found[:, self.k].clamp(min=0) for kind, found in self._found.items()}


class _Covered:
    """Which points lie in a ball of another set."""

    def __init__(self, points: _Points, balls: _Points) -> None:
        self.points, self.balls = points, balls
        self._inside = {kind: norms.new_zeros(len(norms), dtype=torch.bool) for kind, norms in points.norms.items()}

    def add(self, kind: str, rows: slice, columns: slice, products: Tensor) -> None:
        """Take in products of points (rows) and balls (columns)."""
        scale = 1 - ROUNDING if kind == "full" else 1
        near, far = self.points.norms[kind][rows] * scale, self.balls.norms[kind][columns] * scale
        self._inside[kind][rows] |= (_distances(near, products, far) <= self.balls.radii[kind][columns]).any(1)

    def share(self, kind: str) -> float:
        """The share of points that are covered."""
        return float(self._inside[kind].double().mean())
