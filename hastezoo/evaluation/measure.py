"""Features of samples, and a reference: every number that was asked for, or why it is not to be had."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from hastezoo.errors import UserError
from hastezoo.evaluation import metrics as formulas
from hastezoo.evaluation.extractors import POOL, SPATIAL, Extractor
from hastezoo.evaluation.features import FeatureStore
from hastezoo.evaluation.references import Reference
from hastezoo.evaluation.results.result import Curve, Value
from hastezoo.evaluation.statistics import Moments, RunningMoments

METRICS = ("fid", "sfid", "is", "pr", "kid")
SPLIT = 5000  # images a split of the Inception Score, as in the ADM evaluator
KID_SUBSETS, KID_SIZE = 100, 1000  # as in torch-fidelity
CURVE_PARTS = (16, 8, 4, 2, 1)  # FID is also taken of the first 1/16, 1/8, ... of the samples
SORTED = 0.98  # an Inception Score below this share of the shuffled one is that of an order, not of images
SHUFFLE_SEED = 0
NEIGHBOURS = 3
BALLS = ("precision", "recall", "precision_float32", "recall_float32")

Stage = Callable[[str], None]
"""Told what is being computed."""


@dataclass
class Measured:
    """What was found.

    Attributes:
        metrics: By the keys of result.json.
        curve: FID against the number of samples.
        order: Of the samples, for the Inception Score: `as given` or `permuted`.
        notes: What a reader should know.
    """

    metrics: dict[str, Value] = field(default_factory=dict)
    curve: Curve | None = None
    order: str = "as given"
    notes: list[str] = field(default_factory=list)


def check_metrics(names: tuple[str, ...]) -> None:
    """Refuse what is no metric.

    Raises:
        UserError: If one is not known, or there is none.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise UserError(f"unknown metric {(*unknown, '')[0]!r}: --metrics takes {','.join(METRICS)}, or some of them")


def metrics_for(extractor: Extractor, shape: tuple[int, int, int]) -> tuple[str, ...]:
    """The metrics that an extractor's features have, of images (H, W, C)."""
    lacking = {"sfid": SPATIAL not in extractor.widths(shape), "is": extractor.classifier is None}
    return tuple(name for name in METRICS if not lacking.get(name, False))


def check_counts(count: int, reference: Reference, widths: dict[str, int], names: tuple[str, ...]) -> None:
    """Refuse covariances of fewer samples than there are dimensions: they are singular, and the distance is biased.

    Raises:
        UserError: If there are too few on either side.
    """
    for name, feature in (("fid", POOL), ("sfid", SPATIAL)):
        if name not in names or feature not in widths:
            continue
        width = widths[feature]
        for what, there in (("samples", count), (f"images in the reference {reference.name}", reference.count)):
            if there is not None and there < width:
                raise UserError(
                    f"{there} {what} are fewer than the {width} dimensions of the {feature} features: the distance "
                    "would say more of the count than of the images; take more, or --allow-few"
                )


def measure(
    store: FeatureStore,
    count: int,
    reference: Reference,
    extractor: Extractor,
    names: tuple[str, ...] = METRICS,
    *,
    curve: bool = True,
    device: str = "cpu",
    stage: Stage = lambda text: None,
) -> Measured:
    """All numbers of the first `count` samples.

    Args:
        store: Their features.
        count: How many.
        reference: What they are held against.
        extractor: What the features were made with.
        names: Which of METRICS.
        curve: Whether FID is also taken of fewer samples.
        device: Where neighbours are searched for.
        stage: Told what is being computed.
    """
    found = Measured()
    if "fid" in names:
        stage("FID")
        found.metrics["fid"], found.curve = _frechet(store, POOL, count, reference, curve)
    if "sfid" in names:
        stage("sFID")
        found.metrics["sfid"] = _spatial(store, count, reference, extractor)
    if "is" in names:
        stage("Inception Score")
        found.metrics["is"] = _inception_score(store, count, extractor, found)
    if "pr" in names or "kid" in names:
        _neighbours(store, count, reference, names, found, device, stage)
    return found


def _frechet(
    store: FeatureStore, feature: str, count: int, reference: Reference, curve: bool = False
) -> tuple[Value, Curve | None]:
    """The distance with its error, and the distances of the first so many samples."""
    if feature not in reference.moments:
        return Value(reason=reference.missing.get(feature, f"the reference has no {feature} statistics")), None
    real = reference.moments[feature]
    if count < 2:
        return Value(reason="a covariance takes two samples at least"), None
    width = len(real.mean)
    points = sorted({count // part for part in CURVE_PARTS if curve and count // part > width} | {count})
    values = []
    for moments in _moments_at(store.chunks(feature, count), points):
        values.append(formulas.frechet_distance(moments, real))
    error = formulas.frechet_error(moments, real, store.chunks(feature, count))
    limit = formulas.extrapolate(points, values)[0] if len(points) > 2 else None
    drawn = Curve(count=points, fid=values, limit=limit) if len(points) > 1 else None
    return Value(value=values[-1], error=error), drawn


def _moments_at(chunks: Iterator[np.ndarray], points: list[int]) -> Iterator[Moments]:
    """The moments of the first so many features, for ascending numbers of them, from one pass."""
    running, due = RunningMoments(), list(points)
    for chunk in chunks:
        while due and running.count + len(chunk) >= due[0]:
            part = due.pop(0) - running.count
            if part:
                running.add(chunk[:part])
            chunk = chunk[part:]
            yield running.moments()
        if len(chunk):
            running.add(chunk)


def _spatial(store: FeatureStore, count: int, reference: Reference, extractor: Extractor) -> Value:
    if SPATIAL not in store.names():
        return Value(reason=f"{extractor.name} features have no places, which sFID is about")
    return _frechet(store, SPATIAL, count, reference)[0]


def _inception_score(store: FeatureStore, count: int, extractor: Extractor, found: Measured) -> Value:
    """The score in the order given; where that order is by class, which ruins it, in a shuffled one, and said so."""
    if extractor.classifier is None:
        return Value(reason=f"{extractor.name} features have no classifier, which the Inception Score takes")
    every = np.empty((count, len(extractor.classifier)), np.float32)
    first = 0
    for chunk in store.chunks(POOL, count):
        every[first : first + len(chunk)] = formulas.probabilities(chunk, extractor.classifier)
        first += len(chunk)
    given = formulas.inception_score(_pieces(every, np.arange(count)), SPLIT)
    mixed = formulas.inception_score(_pieces(every, np.random.default_rng(SHUFFLE_SEED).permutation(count)), SPLIT)
    if given.value >= SORTED * mixed.value:
        return Value(value=given.value, error=given.error)
    found.order = "permuted"
    found.notes.append(
        f"the samples come in an order, such as by class, that lowers the Inception Score to {given.value:.2f} in "
        f"splits of {SPLIT}; {mixed.value:.2f} is that of the same images shuffled"
    )
    return Value(value=mixed.value, error=mixed.error)


def _pieces(rows: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in an order, a few at a time."""
    return (rows[order[start : start + SPLIT]] for start in range(0, len(order), SPLIT))


def _neighbours(
    store: FeatureStore,
    count: int,
    reference: Reference,
    names: tuple[str, ...],
    found: Measured,
    device: str,
    stage: Stage,
) -> None:
    """Precision, recall and KID, which take features of the reference's images and not only their moments."""
    if reference.features is None:
        keys = [*BALLS * ("pr" in names), *["kid"] * ("kid" in names)]
        reason = reference.missing.get("features", "the reference has no images")
        found.metrics |= {key: Value(reason=reason) for key in keys}
        return
    samples = store.matrix(POOL, count)
    if "pr" in names:
        stage("precision and recall")
        found.metrics |= _balls(samples, reference.features, device)
    if "kid" in names:
        stage("KID")
        found.metrics["kid"] = _kernel(samples, reference.features)


def _balls(samples: np.ndarray, real: np.ndarray, device: str) -> dict[str, Value]:
    """Precision and recall; their errors are those of a share of independent images, the balls being as they are."""
    from hastezoo.evaluation.neighbours import precision_recall

    fewest = min(len(samples), len(real))
    if fewest <= NEIGHBOURS:
        return {key: Value(reason=f"{fewest} images have no {NEIGHBOURS} neighbours") for key in BALLS}
    balls = precision_recall(real, samples, k=NEIGHBOURS, device=device)
    found = {}
    for key in BALLS:
        share, images = getattr(balls, key), len(samples) if key.startswith("precision") else len(real)
        found[key] = Value(value=share, error=float(np.sqrt(share * (1 - share) / images)))
    return found


def _kernel(samples: np.ndarray, real: np.ndarray) -> Value:
    fewest = min(len(samples), len(real))
    if fewest < KID_SIZE:
        return Value(reason=f"KID is a mean over subsets of {KID_SIZE} images, and one side has {fewest}")
    score = formulas.kernel_distance(samples, real, subsets=KID_SUBSETS, size=KID_SIZE)
    return Value(value=score.value, error=score.error)
