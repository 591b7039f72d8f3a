"""Precision and recall by nearest neighbours (Kynkäänniemi et al., NeurIPS 2019), with the ADM evaluator's numbers.

The ADM evaluator rounds features to half precision, multiplies them, and rounds products, norms and sums once more. Its
distances and those of the features as they are both come out of one float32 product a block, that of rounded features:
rounding moved each point by a length that is known, so the distance of two rounded points tells that of the points
themselves to within the sum of two such lengths. Only what this leaves open is computed from the features as they are,
in float64; so precision_float32 and recall_float32 do not depend on the blocks at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[int, int], None]
"""Told how many distances are computed, and how many there are to compute."""

SPARE = 8  # neighbours kept beyond the k-th: rounding rarely leaves more in question
FEW_ROWS, ALL_ROWS = 64, 512  # points at a time whose exact distances to a few others, or to all, are computed
GROUP = 16  # distances whose minimum is taken before any are ranked
HALF_LIMIT = 65504 / 2  # of squared norms: twice a product may overflow half precision beyond it


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares between 0 and 1.

    Attributes:
        precision: The share of samples inside the ball of some reference image, by the ADM evaluator's distances in
            half precision; by those of the features as they are where half precision overflows, as there.
        recall: The share of reference images inside the ball of some sample; likewise.
        precision_float32: By the distances of the float32 features as they are.
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
        block: Points whose distances are held at once, block x block of them.
        device: Where the products are computed: cpu or cuda.
        progress: Told of every block.

    Raises:
        ValueError: If a set has no k-th neighbours, the widths differ, or a feature is not within half precision.
    """
    if reference.ndim != 2 or samples.ndim != 2 or reference.shape[1] != samples.shape[1]:
        raise ValueError(f"features are (R, D) and (N, D), not {reference.shape} and {samples.shape}")
    if not 1 <= k < min(len(reference), len(samples)):
        raise ValueError(f"{len(reference)} references and {len(samples)} samples have no neighbour number {k} each")
    real, drawn = (_Points(features, torch.device(device), block) for features in (reference, samples))
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
        products = _products(real, rows, drawn, columns)
        rounded = _distances(real.norms_half[rows], products.half(), drawn.norms_half[columns])
        squared = _distances(real.norms[rows], products, drawn.norms[columns])
        recall.add(rows, columns, rounded, squared)
        precision.add(columns, rows, rounded.T, squared.T)
        progress(done := done + products.numel(), total)
    exact = precision.share(), recall.share()
    half = (precision.share_half(), recall.share_half()) if real.half_fits and drawn.half_fits else exact
    return PrecisionRecall(*half, *exact)


class _Points:
    """A set of points, rounded to half precision on the device.

    Attributes:
        features: The points as they are, (N, D).
        half: Rounded.
        norms_half: Their squared norms in half precision, as the ADM evaluator has them.
        norms: Their squared norms in float32.
        lengths, moved: float64 (N,): their norms, and how far rounding moved them.
        half_fits: Whether half precision is wide enough for their distances.
        radii_half: Squared radii of their balls in half precision, when found.
        radii: float64 (N,): squared radii by the points as they are, when found.
    """

    radii_half: Tensor
    radii: np.ndarray

    def __init__(self, features: np.ndarray, device: torch.device, block: int) -> None:
        self.features = features
        self.blocks = [slice(start, min(start + block, len(features))) for start in range(0, len(features), block)]
        self.half = torch.empty(features.shape, dtype=torch.half, device=device)
        self.norms_half = torch.empty(len(features), dtype=torch.half, device=device)
        self.lengths, self.moved = np.empty(len(features)), np.empty(len(features))
        for start in range(0, len(features), ALL_ROWS):
            rows = slice(start, start + ALL_ROWS)
            points = torch.from_numpy(features[rows].astype(np.float64))
            half = points.float().half()
            if not half.isfinite().all():
                raise ValueError("features beyond 65504, or that are not finite, cannot be rounded to half precision")
            self.half[rows] = half.to(device)
            self.norms_half[rows] = (half * half).float().sum(1).half().to(device)
            self.lengths[rows] = half.double().norm(dim=1).numpy()
            self.moved[rows] = (points - half.double()).norm(dim=1).numpy()
        self.norms = torch.from_numpy(np.square(self.lengths)).float().to(device)
        self.half_fits = bool(np.square(self.lengths).max() <= HALF_LIMIT)

    def pairs(self) -> list[tuple[slice, slice]]:
        """Blocks of distances within the set, each pair of points once."""
        return [(rows, columns) for place, rows in enumerate(self.blocks) for columns in self.blocks[place:]]

    def slack(self, other: _Points) -> tuple[np.ndarray, np.ndarray]:
        """(N,) bounds of what the float32 distance of rounded points is off by, from each point to those of the other.

        Of the distance, by rounding the points; and of its square, by summing D products in float32 in any order
        (Higham, Accuracy and Stability of Numerical Algorithms, sec. 3.1), twice over for devices that cut off instead
        of rounding.
        """
        unit = (self.features.shape[1] / 2 + 8) * 2.0**-23
        return self.moved + other.moved.max(), unit * np.square(self.lengths + other.lengths.max())


def _size(pair: tuple[slice, slice]) -> int:
    rows, columns = pair
    return (rows.stop - rows.start) * (columns.stop - columns.start)


def _products(a: _Points, rows: slice, b: _Points, columns: slice) -> Tensor:
    """Products of rounded points, (rows, columns), summed in float32, in which a product of two halves is exact."""
    return a.half[rows].float() @ b.half[columns].float().T


def _distances(near: Tensor, products: Tensor, far: Tensor) -> Tensor:
    """(|u|^2 - 2 uv) + |v|^2; in half precision every step is rounded, in this order, as in the ADM evaluator.

    There, what rounding takes below zero is set to zero; here the radii are, which comes to the same.
    """
    return torch.sub(near[:, None], products, alpha=2).add_(far)


def _smallest(distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest of every row, ascending, and their columns.

    They lie in the groups of columns with the smallest minima, and minima are found faster than ranks.
    """
    groups = distances.shape[1] // GROUP
    if groups < count or distances.shape[1] % GROUP:
        values, places = distances.topk(min(count, distances.shape[1]), 1, largest=False)
        return values, places
    grouped = distances.unflatten(1, (GROUP, groups))
    # Not amin, which is a hundred times slower on the transpose of a block.
    minima = functools.reduce(torch.minimum, grouped.unbind(1))
    chosen = minima.topk(count, 1, largest=False).indices
    members = grouped.gather(2, chosen[:, None].expand(-1, GROUP, -1)).flatten(1)
    values, places = members.topk(count, 1, largest=False)
    return values, places // count * groups + chosen.gather(1, places % count)


class _Nearest:
    """The nearest neighbours of every point in its own set, itself among them, from blocks of distances."""

    def __init__(self, points: _Points, k: int) -> None:
        self.points, self.k = points, k
        count, device = len(points.features), points.half.device
        kept = min(k + 1 + SPARE, count)
        self._half = torch.full((count, k + 1), torch.inf, dtype=torch.half, device=device)
        self._squared = torch.full((count, kept), torch.inf, device=device)
        self._index = torch.zeros((count, kept), dtype=torch.int64, device=device)

    def add(self, rows: slice, columns: slice) -> None:
        """Take in the distances between two blocks, in both directions."""
        points = self.points
        products = _products(points, rows, points, columns)
        rounded, squared = products.half(), _distances(points.norms[rows], products, points.norms[columns])
        self._keep(rows, columns, rounded, squared)
        if rows != columns:
            self._keep(columns, rows, rounded.T, squared.T)

    def _keep(self, rows: slice, columns: slice, products: Tensor, squared: Tensor) -> None:
        # The distances back differ in half precision, where it matters which norm comes first.
        rounded = _distances(self.points.norms_half[rows], products, self.points.norms_half[columns])
        near = torch.cat([self._half[rows], _smallest(rounded, self.k + 1)[0]], 1)
        self._half[rows] = near.topk(self.k + 1, 1, largest=False).values
        near, index = _smallest(squared, self._squared.shape[1])
        near = torch.cat([self._squared[rows], near], 1)
        index = torch.cat([self._index[rows], index + columns.start], 1)
        self._squared[rows], places = near.topk(self._squared.shape[1], 1, largest=False)
        self._index[rows] = index.gather(1, places)

    def set_radii(self) -> None:
        """The squared distances to the k-th neighbour."""
        self.points.radii_half = self._half[:, self.k].clamp(min=0)
        self.points.radii = self._exact_radii()

    def _exact_radii(self) -> np.ndarray:
        """By the points as they are: of those kept, or of all where one that was not kept might be nearer."""
        points, k = self.points, self.k
        squared, index = self._squared.cpu().double().numpy(), self._index.cpu().numpy()
        moved, error = (bound[:, None] for bound in points.slack(points))
        least = np.clip(np.sqrt(np.clip(squared - error, 0, None)) - moved, 0, None)
        most = np.sqrt(squared + error) + moved
        possible = least <= most[:, k : k + 1]
        radii = np.empty(len(squared))
        for start in range(0, len(squared), FEW_ROWS):
            rows = slice(start, start + FEW_ROWS)
            width = possible[rows].sum(1).max()  # they ascend, so the possible ones come first
            radii[rows] = np.partition(_exact(points, rows, index[rows, :width]), k, 1)[:, k]
        if squared.shape[1] < len(squared):
            for some in _parts(np.flatnonzero(least[:, -1] < np.sqrt(radii))):
                radii[some] = np.partition(_exact_to_all(points, some, points), k, 1)[:, k]
        return radii


class _Covered:
    """Which points lie in a ball of another set."""

    def __init__(self, points: _Points, balls: _Points) -> None:
        self.points, self.balls = points, balls
        reach, (moved, error) = np.sqrt(balls.radii), balls.slack(points)
        inner = np.where(reach > moved, np.square(reach - moved) * (1 - 1e-6) - error, -np.inf)
        outer = np.square(reach + moved) * (1 + 1e-6) + error
        device = points.half.device
        self._inner, self._outer = (torch.from_numpy(bound).float().to(device) for bound in (inner, outer))
        self._half, self._surely, self._maybe = torch.zeros((3, len(points.features)), dtype=torch.bool, device=device)

    def add(self, rows: slice, columns: slice, rounded: Tensor, squared: Tensor) -> None:
        """Take in distances from points (rows) to balls (columns)."""
        self._half[rows] |= (rounded <= self.balls.radii_half[columns]).any(1)
        self._surely[rows] |= (squared <= self._inner[columns]).any(1)
        self._maybe[rows] |= (squared <= self._outer[columns]).any(1)

    def share_half(self) -> float:
        """The share by the ADM evaluator's distances."""
        return float(self._half.cpu().double().mean())

    def share(self) -> float:
        """The share by the points as they are."""
        inside = self._surely.cpu().numpy()
        for some in _parts(np.flatnonzero(self._maybe.cpu().numpy() & ~inside)):
            inside[some] = (_exact_to_all(self.points, some, self.balls) <= self.balls.radii).any(1)
        return float(inside.mean())


def _parts(index: np.ndarray) -> list[np.ndarray]:
    return [index[start : start + ALL_ROWS] for start in range(0, len(index), ALL_ROWS)]


def _exact(points: _Points, rows: slice, others: np.ndarray) -> np.ndarray:
    """float64 squared distances from some points to a few others each, (rows, few)."""
    apart = points.features[others].astype(np.float64) - points.features[rows, None]
    return np.einsum("nmd,nmd->nm", apart, apart)


def _exact_to_all(a: _Points, some: np.ndarray, b: _Points) -> np.ndarray:
    """float64 squared distances from some points to all of another set, (some, all)."""
    near = a.features[some].astype(np.float64)
    found = np.empty((len(near), len(b.features)))
    for columns in b.blocks:
        far = b.features[columns].astype(np.float64)
        scale = np.square(near).sum(1)[:, None] + np.square(far).sum(1)
        squared = scale - 2 * near @ far.T
        # Points that are the same are at a distance of 0, whatever the rounding of sums.
        found[:, columns] = np.where(squared < near.shape[1] * 2.0**-51 * scale, 0, squared)
    return found
