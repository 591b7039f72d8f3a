"""All that the numbers of an evaluation depend on, and what merely describes the work."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hastezoo.evaluation.results.figures import Open

# Settings that say how, where and when it was computed: no number depends on them, but for rounding.
CIRCUMSTANCES = ("device", "threads", "processes", "batch_size", "versions", "date", "seconds", "command")


class ReferenceFacts(Open):
    """What samples were held against.

    Attributes:
        name: A named reference, or what the user gave.
        description: In words.
        count: Images behind its statistics, where that is known.
        identity: What decides that it is this one: digests.
        features_count: Images behind precision, recall and KID.
        verified: Whether the file is known to be the one that has this name; None where nobody looked.
    """

    name: str = ""
    description: str = ""
    count: int | None = None
    identity: dict[str, Any] | str | None = None
    features_count: int | None = None
    verified: bool | None = None


class Settings(Open):
    """All that the numbers depend on, then what merely describes the work. What is not known is None.

    Attributes:
        model: Name of the checkpoint that drew the samples.
        weights: The file given instead of the checkpoint's own.
        weights_sha256, step: Of the weights: digest, training steps.
        samples: Existing samples in words; None where they were drawn for this evaluation.
        samples_identity: What decides which images they are.
        lossy: Whether they went through a format such as JPEG.
        protocol: Name of the protocol; `sampling` has all its settings as they were used.
        labels: How labels were drawn; None of a model of text.
        prompts: Of a model of text: where they are from, by which rule, their digest.
        text_encoder, text_encoder_sha256: What made states of them.
        count: Samples.
        seed: Of the first.
        rounding, dtype, compile: Pixels to bytes; precision of the network; whether it was compiled.
        vae, vae_sha256, vae_tiling: What decoded latents, and whether in tiles.
        resolution: Side of the samples in pixels.
        features: Name of the extractor; `extractor` is its identity.
        reference: What the samples were held against.
        order: Of the samples for the Inception Score, `as given` or `permuted`.
        device, threads, processes, batch_size, versions, date, seconds, command: Of the work.
    """

    model: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    step: int | None = None
    samples: str | None = None
    samples_identity: dict[str, Any] | str | None = None
    lossy: bool | None = None
    protocol: str | None = None
    sampling: dict[str, Any] | None = None
    labels: Literal["random", "balanced"] | None = None
    prompts: dict[str, Any] | None = None
    text_encoder: str | None = None
    text_encoder_sha256: str | None = None
    count: int | None = None
    seed: int | None = None
    rounding: str | None = None
    dtype: str | None = None
    compile: bool | None = None
    vae: str | None = None
    vae_sha256: str | None = None
    vae_tiling: bool | None = None
    resolution: int | None = None
    features: str = "inception"
    extractor: dict[str, Any] | None = None
    reference: ReferenceFacts | None = None
    order: str | None = None
    device: str | None = None
    threads: int | None = None
    processes: int | None = None
    batch_size: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    date: str | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    command: str | None = None

    @property
    def drawn(self) -> bool:
        """Whether it is known how the samples were drawn: for this evaluation, or with a record of it."""
        return self.sampling is not None and self.model is not None
