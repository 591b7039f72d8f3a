"""A quick FID now and then, so that a run can be watched by more than its loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn

    from hastezoo.evaluation.prompts import PromptList
    from hastezoo.pipeline import Pipeline
    from hastezoo.training.loop import Hook
    from hastezoo.training.run import Run


class EvaluationConfig(BaseModel):
    """A rough FID of the average while it trains; `hastezoo eval-fid` measures what can be published.

    Attributes:
        every: In steps; 0 for never.
        images: How many are drawn; at least as many as the features have dimensions (Inception: 2048).
        reference: As `hastezoo eval-fid --reference`.
        features: What sees the images: inception, dinov2, pixels.
        prompts: Of a model of text: as `hastezoo eval-fid --prompts`, a prepared data set; empty for the run's own.
        weights: The file of the network that sees them, instead of the one that belongs there.
        steps: Of the solver. There is no guidance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(0, ge=0)
    images: int = Field(5000, ge=2)
    reference: str = ""
    prompts: str = ""
    features: Literal["inception", "dinov2", "pixels"] = "inception"
    weights: Path | None = None
    steps: int = Field(50, ge=1)


def quick_fid(
    config: EvaluationConfig,
    pipeline_of: Callable[[nn.Module], Pipeline],
    protocol: str,
    device: str,
    prompts: PromptList | None = None,
) -> list[Hook]:
    """The hook, if it is asked for; what it needs is loaded now, so that what is missing is said before training.

    Args:
        config: With a reference.
        pipeline_of: Makes a pipeline of the average's network; called once.
        protocol: Name of the sampling protocol, whose guidance is left out.
        device: Where the features are computed.
        prompts: Of a model of text.

    Raises:
        UserError: If the reference or the features' weights are not to be had, or the images are too few.
    """
    if not config.every:
        return []
    from hastezoo.evaluation.extractors import create_extractor
    from hastezoo.evaluation.quick import QuickFid
    from hastezoo.evaluation.references import load_reference
    from hastezoo.training.loop import Hook
    from hastezoo.zoo.registry import make_protocol

    extractor = create_extractor(config.features, weights=config.weights, device=device)
    measure = QuickFid(load_reference(config.reference, extractor), extractor, count=config.images, prompts=prompts)
    drawn = make_protocol(protocol, {"steps": config.steps, "cfg": 1.0})
    name = "fid" if config.features == "inception" else f"fd_{config.features}"  # only Inception's is called FID
    made: list[Pipeline] = []

    def call(run: Run) -> None:
        if not made:
            assert run.average is not None
            made.append(pipeline_of(run.average))
        run.evaluated(**{name: measure(made[0], drawn), "images": config.images})

    return [Hook(config.every, call, doing="measuring a quick FID")]
