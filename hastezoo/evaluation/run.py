"""An evaluation from end to end: features in chunks, every number, and a record of all that moved them."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hastezoo import __version__, pictures
from hastezoo.data.ranks import Tell
from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import Extractor, digest
from hastezoo.evaluation.extractors.inception import SHA256 as INCEPTION_SHA256
from hastezoo.evaluation.features import FeatureStore, Watcher, extract, wait
from hastezoo.evaluation.images import Images, as_bytes
from hastezoo.evaluation.measure import METRICS, Measured, check_counts, check_metrics, measure
from hastezoo.evaluation.references import Reference
from hastezoo.files import atomic_write

if TYPE_CHECKING:
    from hastezoo.stores import Store

FEATURES = "features"  # the folder of chunks in an evaluation's own
GRID, GRID_IMAGES = "grid.png", 64


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        images: Drawn or read.
        extractor: With what.
        count: How many of them.
        out: The evaluation's folder.
        batch_size: Images at a time.
        metrics: Which of METRICS.
        allow_few: Measure also where a covariance is singular.
        curve: Take FID also of fewer samples.
        watchers: Who else wants the images.
        rank, ranks: Which process this is, of how many.
    """

    images: Images
    extractor: Extractor
    count: int
    out: Path
    batch_size: int = 64
    metrics: tuple[str, ...] = METRICS
    allow_few: bool = False
    curve: bool = True
    watchers: Sequence[Watcher] = ()
    rank: int = 0
    ranks: int = 1

    @property
    def identity(self) -> dict[str, str]:
        """All that the features depend on."""
        return {**self.images.identity, **{f"extractor {key}": one for key, one in self.extractor.identity.items()}}


@dataclass
class Outcome:
    """What a process that writes found.

    Attributes:
        measured: The numbers.
        settings: Of the evaluation itself; what drew the images is the caller's to add.
    """

    measured: Measured
    settings: dict[str, Any] = field(default_factory=dict)


def default_folder(images: Images, extractor: Extractor) -> Path:
    """The same images seen the same way go to the same folder, so that repeating a command goes on where it stopped.

    The number of images, the reference and the metrics do not count: features serve them all.
    """
    name = images.identity.get("model") or "samples"
    plan = Plan(images, extractor, images.count, Path())
    return Path("outputs") / f"eval-{name}-{digest(plan.identity)[:8]}"


def check(plan: Plan, reference: Reference) -> list[str]:
    """Refuse what cannot be compared, before anything is drawn; and what to warn of.

    Raises:
        UserError: If a metric is unknown, there are too few images, or the sizes differ.
    """
    check_metrics(plan.metrics)
    if not 1 <= plan.count <= plan.images.count:
        raise UserError(f"{plan.count} images cannot be had: {plan.images.description} has {plan.images.count}")
    shape = plan.images.shape
    if reference.shape is not None and reference.shape[:2] != shape[:2]:
        theirs, ours = (f"{width} x {height}" for height, width in (reference.shape[:2], shape[:2]))
        raise UserError(
            f"the samples are {ours} pixels, the reference {reference.name} is of {theirs}: resizing would change "
            "every number; take a reference of the same size"
        )
    widths = plan.extractor.widths(shape)
    for feature, moments in reference.moments.items():
        if feature in widths and len(moments.mean) != widths[feature]:
            raise UserError(
                f"the reference {reference.name} has {feature} statistics of {len(moments.mean)} dimensions, the "
                f"samples' have {widths[feature]}: other features, or images of another size"
            )
    if not plan.allow_few:
        check_counts(plan.count, reference, widths, plan.metrics)
    warned = []
    if reference.stated and plan.extractor.identity.get("weights_sha256") != INCEPTION_SHA256:
        warned.append(
            f"the statistics in {reference.name} are of the Inception weights of 2015-12-05, and the samples' features "
            "of another file: their distance says nothing about the images"
        )
    if plan.images.lossy is not None and reference.lossy is not None and plan.images.lossy != reference.lossy:
        which = (
            ("the samples are", "the reference is") if plan.images.lossy else ("the reference is", "the samples are")
        )
        warned.append(f"{which[0]} JPEG and {which[1]} not: compression alone moves FID; store samples as PNG or npz")
    return warned


def evaluate(
    plan: Plan,
    reference: Reference,
    *,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda images: None,
    stage: Callable[[str], None] = lambda text: None,
    waits: Tell = lambda missing: None,
) -> Outcome:
    """Make what is missing of the features, wait for the other processes, and measure. For the process that writes.

    Args:
        plan, reference: What is held against what.
        device: Where it is measured.
        progress: Told how many images have their features.
        stage: Told what is being computed of them.
        waits: Told what is missing of the other processes' share, where nothing comes for long.

    Raises:
        UserError: If an image cannot be read, or the folder holds features of something else.
    """
    began = time.perf_counter()
    store = prepare_features(plan, progress)
    wait(store, plan.count, plan.watchers, progress, ranks=plan.ranks, tell=waits)
    drawn = time.perf_counter()
    measured = measure(
        store, plan.count, reference, plan.extractor, plan.metrics, curve=plan.curve, device=device, stage=stage
    )
    seconds = {"features": round(drawn - began, 1), "metrics": round(time.perf_counter() - drawn, 1)}
    return Outcome(measured, _settings(plan, reference, measured) | {"seconds": seconds})


def prepare_features(plan: Plan, progress: Callable[[int], None] = lambda images: None) -> FeatureStore:
    """This process' share of the features."""
    store = FeatureStore(plan.out / FEATURES, plan.identity)
    extract(
        plan.images,
        plan.extractor,
        store,
        count=plan.count,
        batch_size=plan.batch_size,
        rank=plan.rank,
        ranks=plan.ranks,
        watchers=[Grid(plan.out / GRID), *plan.watchers],
        progress=progress,
    )
    return store


def _settings(plan: Plan, reference: Reference, measured: Measured) -> dict[str, Any]:
    return {
        "samples_identity": plan.images.identity,
        "lossy": plan.images.lossy,
        "count": plan.count,
        "resolution": plan.images.shape[0],
        "features": plan.extractor.name,
        "extractor": plan.extractor.identity,
        "reference": {
            "name": reference.name,
            "description": reference.description,
            "identity": reference.identity,
            "count": reference.count,
            "features_count": None if reference.features is None else len(reference.features),
            "verified": reference.verified,
        },
        "order": measured.order,
        "batch_size": plan.batch_size,
        "processes": plan.ranks,
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"hastezoo": __version__, "python": platform.python_version()}
    for package in ("torch", "torch-fidelity", "timm", "diffusers", "numpy", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


class Grid:
    """A sheet of the first images, to look at while the rest is drawn."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wants(self, indices: range) -> bool:
        return indices.start == 0 and not self.path.exists()

    def see(self, indices: range, images: np.ndarray) -> None:
        atomic_write(self.path, pictures.encode(pictures.grid(as_bytes(images[:GRID_IMAGES])), "png"))


class Kept:
    """The images themselves, in a store of samples; `folder` is where it is, made when the first of them come."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder

    def wants(self, indices: range) -> bool:
        return not self.store.has(indices)

    def see(self, indices: range, images: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.store.write(indices, images)
