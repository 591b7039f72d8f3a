"""From what an evaluation is asked for to a plan with everything loaded but the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.evaluation.asking import EvaluationAsk, count_of, protocol_of, settled
from hastezoo.evaluation.following import Follower, run
from hastezoo.evaluation.loading import (
    Progress,
    Say,
    check_fits,
    find_processes,
    load_extractor,
    load_pipeline,
    load_prompts,
)
from hastezoo.evaluation.run import Kept, Plan, default_folder

if TYPE_CHECKING:
    from hastezoo.evaluation.extractors import Extractor
    from hastezoo.evaluation.generated import Generated
    from hastezoo.evaluation.images import Images
    from hastezoo.pipeline import Pipeline
    from hastezoo.processes import Processes
    from hastezoo.sampling.solvers import Callback
    from hastezoo.zoo.card import Card

__all__ = ["EvaluationAsk", "Follower", "plan_drawn", "plan_existing", "run", "settled"]

READ_AT_ONCE = 64  # images of a batch where they are read and not drawn


def plan_drawn(
    ask: EvaluationAsk,
    card: Card,
    *,
    pipeline: Pipeline | None = None,
    extractor: Extractor | None = None,
    processes: Processes | None = None,
    callback: Callback | None = None,
    command: str | None = None,
    say: Say = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> tuple[Plan, dict[str, Any]]:
    """To measure what a checkpoint draws. Nothing is written yet, but for what is fetched.

    Args:
        ask: Settled.
        card: Of the checkpoint.
        pipeline, extractor: Loaded already, as it is asked; else they are loaded here.
        processes: Which process this is; by default as torchrun says, on the device that is asked for.
        callback: Called after every solver step of every batch; raise `solvers.Cancelled` to stop.
        command: What would do the same again, for the record.
        say, progress: Told of downloads and conversions.

    Returns:
        What to do, and the settings that say how the images come about.

    Raises:
        UserError: If there are too few prompts, or something is not to be had.
        ValueError: If the pipeline is not as it is asked.
    """
    from hastezoo.evaluation.generated import Generated, settings_of

    count = count_of(ask)
    prompts = load_prompts(ask)
    if pipeline is not None:
        check_fits(pipeline, ask, card)
    processes = processes or find_processes(ask, pipeline)
    extractor = extractor if extractor is not None else load_extractor(ask, processes.device, progress)
    if pipeline is None:
        pipeline = load_pipeline(ask, card, processes.device, prompts, say=say, progress=progress)
    images = Generated(pipeline, protocol_of(ask), count=count, seed=ask.seed, prompts=prompts, callback=callback)
    size = pipeline.batch_size(ask.batch_size)
    plan = _plan(ask, images, extractor, count, size, processes, _kept(ask, images, extractor))
    return plan, settings_of(images, ask.protocol, weights=ask.weights) | _circumstances(processes, command)


def plan_existing(
    ask: EvaluationAsk,
    *,
    extractor: Extractor | None = None,
    processes: Processes | None = None,
    command: str | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[Plan, dict[str, Any]]:
    """To measure images that exist: those of `ask.samples`.

    Args:
        ask: Settled.
        extractor, processes, command, progress: As for `plan_drawn`.

    Raises:
        UserError: If there are no such images, or fewer than are asked for.
    """
    from hastezoo.evaluation.images import open_images

    processes = processes or find_processes(ask)
    extractor = extractor if extractor is not None else load_extractor(ask, processes.device, progress)
    size = ask.batch_size
    if size != "auto" and not (str(size).isdecimal() and int(size) > 0):
        raise UserError(f"batch size {size!r} is neither a number of at least 1 nor auto")
    images = open_images(str(ask.samples))
    count = images.count if ask.num is None else ask.num
    if not 1 <= count <= images.count:
        raise UserError(f"--num {count}: {images.description} has {images.count} images")
    plan = _plan(ask, images, extractor, count, READ_AT_ONCE if size == "auto" else int(size), processes)
    return plan, {"samples": images.description} | _circumstances(processes, command)


def _plan(
    ask: EvaluationAsk,
    images: Images,
    extractor: Extractor,
    count: int,
    batch_size: int,
    processes: Processes,
    watchers: Sequence[Kept] = (),
) -> Plan:
    from hastezoo.evaluation.measure import metrics_for

    return Plan(
        images=images,
        extractor=extractor,
        count=count,
        out=_folder(ask, images, extractor),
        batch_size=batch_size,
        metrics=ask.metrics if ask.metrics is not None else metrics_for(extractor, images.shape),
        allow_few=ask.allow_few,
        curve=ask.curve,
        watchers=watchers,
        rank=processes.rank,
        ranks=processes.count,
    )


def _folder(ask: EvaluationAsk, images: Images, extractor: Extractor) -> Path:
    return ask.out if ask.out is not None else default_folder(images, extractor)


def _kept(ask: EvaluationAsk, images: Generated, extractor: Extractor) -> list[Kept]:
    """Where the images go, if they are to be kept: a folder for each number of them, for an npz has one length."""
    from hastezoo.stores import ArrayFile, ImageFiles

    if ask.save_samples is None:
        return []
    folder = _folder(ask, images, extractor) / f"samples-{images.count}"
    if ask.save_samples == "npz":
        labels = list(range(images.count)) if images.labels is None else images.labels.tolist()
        return [Kept(ArrayFile(folder, labels), folder)]
    return [Kept(ImageFiles(folder, images.marks, images.seeds, "png"), folder)]


def _circumstances(processes: Processes, command: str | None) -> dict[str, Any]:
    import torch

    name = torch.cuda.get_device_name(processes.device) if processes.device.type == "cuda" else ""
    return {
        "device": f"{processes.device} ({name})" if name else str(processes.device),
        "threads": torch.get_num_threads(),
        "command": command,
    }
