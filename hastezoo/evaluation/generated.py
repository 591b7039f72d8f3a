"""Images that are drawn while they are measured: a function of (checkpoint, protocol, seed, number) and, of a model of
text, the list of prompts; of nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hastezoo.conditioning.conditions import Labels as LabelConditions
from hastezoo.conditioning.labels import label_of_seed
from hastezoo.conditioning.prompts import slug
from hastezoo.conditioning.words import refuse_unread
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.evaluation.prompts import PromptList
    from hastezoo.pipeline import Pipeline
    from hastezoo.sampling.protocol import Protocol
    from hastezoo.sampling.solvers import Callback

Labels = Literal["random", "balanced"]
LARGEST_SEED = 2**63 - 1


class Generated:
    """Image i is drawn with seed `seed + i`; its label is a function of (seed, i) too, so any process can draw it. A
    model of text draws it from the i-th prompt.

    Args:
        pipeline: Loaded.
        protocol: How to draw; its `labels` says how labels are.
        count: How many images.
        seed: Of the first.
        prompts: Of a model of text.
        callback: Called after every solver step of every batch; raise `solvers.Cancelled` to stop. No image depends
            on it, and so neither does the identity.

    Raises:
        UserError: If the seeds or the prompts run out, there are prompts for a model of classes, or a model of words
            knows no word of one.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        protocol: Protocol,
        *,
        count: int,
        seed: int = 0,
        prompts: PromptList | None = None,
        callback: Callback | None = None,
    ) -> None:
        if not 0 <= seed <= LARGEST_SEED - count:
            raise UserError(f"seed {seed} is not in 0..2**63 - 1 - {count}, so that every image has one of its own")
        self.pipeline, self.protocol, self.count = pipeline, protocol, count
        self.seeds = range(seed, seed + count)
        self.prompts, self.callback = prompts, callback
        self.labels: np.ndarray | None = None
        if isinstance(pipeline.conditions, LabelConditions):
            self.labels = evaluation_labels(protocol.labels, seed, count, len(pipeline.conditions.names))
        self.asked: list[Any] = _asked(self.labels, prompts, count, pipeline.card.name)
        if not isinstance(pipeline.conditions, LabelConditions):
            refuse_unread(pipeline.conditions.encoder, self.asked)
        height, width = (side * pipeline.card.autoencoder.downsampling for side in pipeline.config.size)
        channels = pipeline.config.in_channels if pipeline.card.autoencoder.kind == "identity" else 3
        self.shape = (height, width, channels)
        self.lossy: bool | None = False
        self.description = f"drawn by {pipeline.card.name}"
        self.identity = {
            "model": pipeline.card.name,
            "weights_sha256": pipeline.weights_sha256,
            "vae_sha256": pipeline.autoencoder.sha256,
            # The count is no setting of an image: more of them can be drawn later.
            "protocol": json.dumps(protocol.model_dump(exclude={"count"}), sort_keys=True),
            **({"vae_tiling": "yes"} if pipeline.vae_tiling else {}),
            "seed": str(seed),
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            **_identity(pipeline, prompts),
        }

    @property
    def marks(self) -> list[str]:
        """What each image is of, in a word fit for a file's name."""
        return [f"class{one}" if isinstance(one, int) else slug(one) or "prompt" for one in self.asked]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Draw images start..stop - 1 as one batch.

        Raises:
            Cancelled: If the callback raised it.
        """
        part = slice(start, stop)
        return self.pipeline.draw(self.asked[part], self.seeds[part], self.protocol, self.callback).pixels


def _asked(labels: np.ndarray | None, prompts: PromptList | None, count: int, model: str) -> list[Any]:
    """The label or the prompt of each image."""
    if labels is not None:
        if prompts is not None:
            raise UserError(f"{model} draws classes, not text: leave out --prompts")
        return labels.tolist()
    if prompts is None:
        raise UserError(f"{model} draws from text, and there are no prompts")
    prompts.check(count)
    return prompts.texts[:count]


def _identity(pipeline: Pipeline, prompts: PromptList | None) -> dict[str, str]:
    if isinstance(pipeline.conditions, LabelConditions) or prompts is None:
        return {}
    return {"prompts_sha256": prompts.sha256, "text_encoder_sha256": pipeline.conditions.encoder.sha256}


def evaluation_labels(kind: Labels, seed: int, count: int, classes: int) -> np.ndarray:
    """The labels of an evaluation, int64 (count,).

    Args:
        kind: `random`: uniform, the label that `hastezoo sample --seed` would draw. `balanced`: each run of `classes`
            images has every class once, in an order of its own, so that every split of the Inception Score is mixed.
        seed: Of the first image.
        count: How many.
        classes: How many there are.
    """
    if kind == "random":
        return np.array([label_of_seed(seed + index, classes) for index in range(count)], np.int64)
    blocks = [_shuffled(seed, block, classes) for block in range(-(-count // classes))]
    return np.concatenate(blocks)[:count]


def _shuffled(seed: int, block: int, classes: int) -> np.ndarray:
    """All classes in an order that stays the same with every version of every library."""
    keys = [hashlib.sha256(f"hastezoo balanced {seed} {block} {label}".encode()).digest() for label in range(classes)]
    return np.array(sorted(range(classes), key=keys.__getitem__), np.int64)


def settings_of(images: Generated, protocol: str, *, weights: str | None = None) -> dict[str, Any]:
    """How the images come about, as a result records it.

    Args:
        images: Drawn with `protocol`.
        protocol: Its name; what was changed of it shows against that name's own settings.
        weights: What was named instead of the card's.
    """
    pipeline = images.pipeline
    return {
        "model": pipeline.card.name,
        "weights": weights,
        "weights_sha256": pipeline.weights_sha256,
        "step": pipeline.card.steps if weights is None else None,
        "samples": None,
        "protocol": protocol,
        "sampling": images.protocol.model_dump(mode="json"),
        "labels": images.protocol.labels,
        "seed": images.seeds.start,
        "rounding": images.protocol.rounding,
        "dtype": images.identity["dtype"],
        "compile": pipeline.compiled,
        "vae": pipeline.autoencoder.source or None,
        "vae_sha256": pipeline.autoencoder.sha256 or None,
        "vae_tiling": pipeline.vae_tiling,
        **_text_settings(images),
    }


def _text_settings(images: Generated) -> dict[str, Any]:
    """Of a model of text: nothing about labels, but what the prompts were and what encoded them."""
    conditions, prompts = images.pipeline.conditions, images.prompts
    if isinstance(conditions, LabelConditions) or prompts is None:
        return {}
    return {
        "labels": None,
        "prompts": {"source": prompts.description, "rule": prompts.rule, "sha256": prompts.sha256},
        "text_encoder": conditions.encoder.source or None,
        "text_encoder_sha256": conditions.encoder.sha256 or None,
    }
