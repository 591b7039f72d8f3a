"""A rough Fréchet distance of a few images, for watching a training run: comparable with itself, with nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hastezoo.evaluation.extractors import POOL, Extractor
from hastezoo.evaluation.generated import Generated
from hastezoo.evaluation.images import suited
from hastezoo.evaluation.measure import check_counts
from hastezoo.evaluation.metrics import frechet_distance
from hastezoo.evaluation.references import Reference
from hastezoo.evaluation.statistics import RunningMoments

if TYPE_CHECKING:
    from hastezoo.evaluation.prompts import PromptList
    from hastezoo.pipeline import Pipeline
    from hastezoo.sampling.protocol import Protocol


class QuickFid:
    """The distance of `count` images, always of the same seeds and classes, so that it moves by the weights alone.

    Fewer images than an evaluation's make it larger, by an amount that stays about the same: watch how it changes.

    Args:
        reference: Held against.
        extractor: With what.
        count: How many images.
        seed: Of the first.
        prompts: Of a model of text; at least as many.

    Raises:
        UserError: If there are fewer images than the features have dimensions, or the reference has no statistics.
    """

    def __init__(
        self,
        reference: Reference,
        extractor: Extractor,
        *,
        count: int,
        seed: int = 0,
        prompts: PromptList | None = None,
    ) -> None:
        self.reference, self.extractor, self.count, self.seed = reference, extractor, count, seed
        self.prompts = prompts
        self.real = reference.moments[POOL]
        check_counts(count, reference, {POOL: len(self.real.mean)}, ("fid",))

    def __call__(self, pipeline: Pipeline, protocol: Protocol) -> float:
        """The distance of what the pipeline draws now."""
        images = Generated(pipeline, protocol, count=self.count, seed=self.seed, prompts=self.prompts)
        running = RunningMoments()
        size = pipeline.batch_size("auto")
        for start in range(0, self.count, size):
            batch = images.read(start, min(start + size, self.count))
            running.add(self.extractor(suited(batch, self.extractor.channels))[POOL])
        return frechet_distance(running.moments(), self.real)
