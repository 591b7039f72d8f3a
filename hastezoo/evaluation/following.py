"""An evaluation that somebody follows: from a plan to a result and its files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.evaluation.references import load_reference
from hastezoo.evaluation.run import Kept, Plan, check, evaluate
from hastezoo.files import alone_in

if TYPE_CHECKING:
    from hastezoo.data.ranks import Missing
    from hastezoo.evaluation.asking import EvaluationAsk
    from hastezoo.evaluation.references import Reference
    from hastezoo.evaluation.results.result import EvaluationResult
    from hastezoo.zoo.card import Card


class Follower:
    """Is told how an evaluation goes on; this one passes over all but warnings.

    Any method may raise `solvers.Cancelled` to stop. What is done stays: features in whole chunks, no half a file.
    """

    def say(self, text: str) -> None:
        """A line about what is not to be seen in the result."""

    def warn(self, text: str) -> None:
        """What to know before the numbers are believed."""
        warnings.warn(text, stacklevel=3)

    def reference(self, done: int, total: int) -> None:
        """So many of the reference's images were seen."""

    def images(self, done: int) -> None:
        """So many samples have their features."""

    def stage(self, text: str) -> None:
        """What is being computed of them."""

    def waits(self, missing: Missing) -> None:
        """Of several processes this one has been waiting for the others for long."""


def run(
    plan: Plan,
    settings: dict[str, Any],
    ask: EvaluationAsk,
    card: Card | None,
    *,
    reference: Reference | None = None,
    watcher: Follower | None = None,
) -> tuple[EvaluationResult, list[Path]]:
    """The whole evaluation: what is missing of the features, every number, the files. For the process that writes.

    Running a plan again goes on where it was stopped, and finds what it would have found.

    Args:
        plan, settings: As `plan_drawn` or `plan_existing` made them.
        ask: Settled.
        card: Of the checkpoint that draws; None where existing images are measured.
        reference: Loaded already for what is asked; else it is loaded here.
        watcher: Told how it goes on.

    Returns:
        The result, and the files to look at.

    Raises:
        UserError: If it cannot be compared, an image cannot be read, or another process works in the same folder.
        Cancelled: If the watcher, or the callback of the images, raised it.
    """
    follower = Follower() if watcher is None else watcher
    if reference is None:
        size, say, told = plan.batch_size, follower.say, follower.reference
        reference = load_reference(ask.reference, plan.extractor, batch_size=size, say=say, progress=told)
    for line in check(plan, reference):
        follower.warn(line)
    plan.out.mkdir(parents=True, exist_ok=True)
    with alone_in(plan.out, "evaluating into"):
        return _measured(plan, settings, card, reference, follower)


def _measured(
    plan: Plan, settings: dict[str, Any], card: Card | None, reference: Reference, follower: Follower
) -> tuple[EvaluationResult, list[Path]]:
    from hastezoo.evaluation.results.report import conclude

    place = str(settings["device"]).partition(" ")[0]
    near = place if place.startswith("cuda") else "cpu"  # where there is neither half nor double precision
    outcome = evaluate(
        plan, reference, device=near, progress=follower.images, stage=follower.stage, waits=follower.waits
    )
    kept = [watcher for watcher in plan.watchers if isinstance(watcher, Kept)]
    for one in kept:
        one.store.finish()
    result, files = conclude(plan.out, outcome, settings, card)
    prompts = getattr(plan.images, "prompts", None)
    if prompts is not None:
        files = [*files, prompts.write(plan.out, plan.count)]
    return result, [*files, *(one.folder for one in kept)]
