"""What an evaluation needs, loaded as it is asked: prompts, processes, the extractor, the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hastezoo.evaluation.asking import EvaluationAsk, count_of
from hastezoo.zoo.download import Progress

if TYPE_CHECKING:
    import torch

    from hastezoo.evaluation.extractors import Extractor
    from hastezoo.evaluation.prompts import PromptList
    from hastezoo.pipeline import Pipeline
    from hastezoo.processes import Processes
    from hastezoo.zoo.card import Card

Say = Callable[[str], None]


def load_prompts(ask: EvaluationAsk) -> PromptList | None:
    """The prompts, of a model of text. To be looked at before gigabytes are fetched.

    Raises:
        UserError: If there are none there, or fewer than images.
    """
    from hastezoo.evaluation.prompts import open_prompts

    if ask.prompts is None:
        return None
    prompts = open_prompts(ask.prompts)
    prompts.check(count_of(ask))
    return prompts


def find_processes(ask: EvaluationAsk, pipeline: Pipeline | None = None) -> Processes:
    """Which process this is, by what torchrun says, and where it computes: where the pipeline is, or as it is asked.

    Raises:
        UserError: If there is no such device.
    """
    from hastezoo.devices import find_device
    from hastezoo.processes import share_of_processes

    return share_of_processes(find_device(ask.device) if pipeline is None else pipeline.device)


def load_extractor(ask: EvaluationAsk, device: torch.device, progress: Progress) -> Extractor:
    """What sees the images.

    Raises:
        UserError: If its weights are not to be had, or a file is given for another one.
    """
    from hastezoo.evaluation.extractors import create_extractor, own_weights

    weights = own_weights(ask.features, {"inception": ask.inception, "dinov2": ask.dinov2})
    return create_extractor(ask.features, weights=weights, device=str(device), progress=progress)


def load_pipeline(
    ask: EvaluationAsk, card: Card, device: torch.device, prompts: PromptList | None, *, say: Say, progress: Progress
) -> Pipeline:
    """What draws the images; with the states of its prompts where these are known.

    Raises:
        UserError: If something is not to be had.
    """
    from hastezoo.conditioning.conditions import Prompts
    from hastezoo.pipeline import Pipeline

    # A data set keeps the states of its captions, which another encoder would make otherwise, and words have none.
    takes_states = card.text is not None and card.text.kind == "clip" and ask.text_encoder is None
    known = prompts.encoder if prompts is not None and takes_states else None
    return Pipeline.from_pretrained(
        card.name,
        device=str(device),
        dtype=ask.dtype,
        weights=ask.weights,
        compile=ask.compile,
        vae=ask.vae,
        vae_tiling=ask.vae_tiling,
        text_encoder=ask.text_encoder,
        conditions=Prompts(known) if known is not None else None,
        say=say,
        progress=progress,
    )


def check_fits(pipeline: Pipeline, ask: EvaluationAsk, card: Card) -> None:
    """Refuse a pipeline that is not as it is asked: the record would say one thing, and the images would be another.

    Raises:
        ValueError: If it is not.
    """
    wanted = {"model": card.name, "dtype": ask.dtype, "compile": ask.compile, "vae_tiling": ask.vae_tiling}
    found = {
        "model": pipeline.card.name,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "compile": pipeline.compiled,
        "vae_tiling": pipeline.vae_tiling,
    }
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(f"the pipeline's {key} is {found[key]}, and {value} is asked for")
