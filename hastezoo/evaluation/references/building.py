"""A reference from images, as a file to keep and to pass on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import POOL, Extractor
from hastezoo.evaluation.images import open_images
from hastezoo.evaluation.npz import Archive
from hastezoo.evaluation.references import OWN, STATED, find_file, load_reference, reference_of
from hastezoo.evaluation.references.arrays import has_statistics, write_npz
from hastezoo.evaluation.references.file import write_reference
from hastezoo.evaluation.references.reference import Progress, Reference, Say, silent, still

ADM = ".npz"


def build_reference(
    source: str,
    out: Path,
    extractor: Extractor,
    *,
    size: int | None = None,
    batch_size: int = 64,
    force: bool = False,
    say: Say = silent,
    progress: Progress = still,
) -> Reference:
    """Compute a reference and write it, whole or not at all.

    Args:
        source: Images, or statistics with images, by what `load_reference` takes.
        out: FILE.safetensors, or FILE.npz as the ADM evaluator reads it, which holds images instead of their features.
        extractor: What sees the images.
        size: Crop each image of a folder to this side.
        batch_size: Images shown to it at a time.
        force: Write over a file that is there.
        say, progress: As of `load_reference`.

    Raises:
        UserError: If there is no such source, or the file cannot be written there.
    """
    _check_out(out, extractor, force)
    path = find_file(source)
    if path is not None and path.suffix == OWN:
        raise UserError(f"{path} is a reference already; copy it")
    if out.suffix == ADM:
        if path is not None and _has_statistics(path):
            raise UserError(f"{path} is a reference of that kind already; copy it, or write FILE{OWN}")
        images = open_images(source, size=size)
        reference = reference_of(images, extractor, name=source, batch_size=batch_size, say=say, progress=progress)
        _warn_of_few(reference)
        write_npz(out, reference, images, extractor.channels)
        return reference
    reference = load_reference(source, extractor, size=size, batch_size=batch_size, say=say, progress=progress)
    _warn_of_few(reference)
    write_reference(out, reference, extractor)
    return reference


def _check_out(out: Path, extractor: Extractor, force: bool) -> None:
    """What would end the work after hours ends it now."""
    if out.suffix not in (OWN, ADM):
        raise UserError(f"{out} must end in {OWN}, or in {ADM} for the ADM evaluator")
    if out.suffix == ADM and extractor.name != STATED:
        raise UserError(f"statistics in an npz are of {STATED} features; write those of {extractor.name} to FILE{OWN}")
    if out.is_dir() or (out.exists() and not force):
        raise UserError(f"{out} is there already; give another --out" + ("" if out.is_dir() else ", or --force"))
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"cannot write {out}: {out.parent} is no folder that can be written; give another --out")


def _has_statistics(path: Path) -> bool:
    with Archive(path) as archive:
        return has_statistics(archive)


def _warn_of_few(reference: Reference) -> None:
    """Once, in words; whether such a reference is fit for use is the evaluation's to decide."""
    width = len(reference.moments[POOL].mean)
    if reference.count is not None and reference.count <= width:
        warnings.warn(
            f"{reference.count:,} images are too few for {width:,} dimensions: the covariance is singular, and "
            "distances say more of the count than of the images",
            stacklevel=3,
        )
