"""What a recipe says of alignment, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

HeadPairing = Literal["index", "mean"]
ProjectorKind = Literal["mlp", "conv"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TeacherConfig(_Strict):
    """Which network teaches.

    Attributes:
        name: A full timm name with its tag, or `local-dir:FOLDER`.
        weights: A local file of its weights, instead of a download.
        dtype: What it computes in.
    """

    name: str = "vit_base_patch14_dinov2.lvd142m"
    weights: Path | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class TerminationConfig(_Strict):
    """When alignment ends. It ends once, and does not come back.

    Attributes:
        kind: `never`, at a fixed `step`, or when the `gradient` of alignment turns against that of denoising.
        step: tau, the number of steps with alignment, of kind `step`.
        start, every: Of kind `gradient`, the first step it is looked at, and how often from there.
        threshold: It ends when the mean cosine over `times` falls below this.
        times, images: At which t, and over how many images, the gradients are taken.
        block: 0-based block whose parameters' gradients are compared (HASTE takes the fifth).
    """

    kind: Literal["never", "step", "gradient"] = "never"
    step: int | None = Field(None, ge=1)
    start: int = Field(50_000, ge=1)
    every: int = Field(10_000, ge=1)
    threshold: float = Field(-0.05, gt=-1, lt=1)
    times: tuple[float, ...] = Field((0.02, 0.1, 0.5, 0.8), min_length=1)
    images: int = Field(2048, ge=1)
    block: int = Field(4, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.kind == "step") != (self.step is not None):
            raise ValueError("kind 'step' and a step go together")
        if not all(0 <= t <= 1 for t in self.times):
            raise ValueError(f"times are in 0..1, not {self.times}")
        return self


class LowPass(_Strict):
    """The teacher sees the image without its high frequencies where low <= t <= high.

    Attributes:
        cutoff: Kept frequencies, as a share of the highest the grid of pixels holds (Nyquist's).
        interval: (low, high) in t.
    """

    cutoff: float = Field(0.5, gt=0, le=1)
    interval: tuple[float, float] = (0.0, 1.0)


class AlignmentConfig(_Strict):
    """Holistic alignment. The defaults are HASTE's for SiT-L and XL; REPA is `attention_weight` 0.

    Attributes:
        feature_weight, attention_weight: Of the two losses; 0 leaves one out.
        feature_layer: Tokens after that many blocks are projected (8 = after the 8th).
        attention_pairs: (student block, teacher block), both 0-based.
        heads: How heads are paired: by `index` up to the smaller number, or their `mean`.
        projector: `mlp` (REPA) or `conv` (iREPA).
        projector_width: Of the MLP's hidden layers.
        low_pass: An experiment; None for HASTE.
    """

    teacher: TeacherConfig = TeacherConfig()
    feature_weight: float = Field(0.5, ge=0)
    attention_weight: float = Field(0.5, ge=0)
    feature_layer: int = Field(8, ge=1)
    attention_pairs: tuple[tuple[int, int], ...] = ((4, 8), (5, 9), (6, 10), (7, 11))
    heads: HeadPairing = "index"
    projector: ProjectorKind = "mlp"
    projector_width: int = Field(2048, ge=1)
    low_pass: LowPass | None = None
    termination: TerminationConfig = TerminationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.feature_weight and not self.attention_weight:
            raise ValueError("feature_weight and attention_weight are both 0; leave alignment out instead")
        if self.attention_weight and not self.attention_pairs:
            raise ValueError("attention_weight needs attention_pairs")
        if self.termination.kind == "gradient" and self.termination.block >= self.reach:
            raise ValueError(
                f"termination.block {self.termination.block} gets no gradient of alignment, which ends before block "
                f"{self.reach}"
            )
        return self

    @property
    def student_blocks(self) -> tuple[int, ...]:
        """Blocks whose attention is aligned."""
        return tuple(student for student, _ in self.attention_pairs) if self.attention_weight else ()

    @property
    def teacher_blocks(self) -> tuple[int, ...]:
        """Blocks of the teacher whose attention is wanted, each once."""
        wanted = [teacher for _, teacher in self.attention_pairs] if self.attention_weight else []
        return tuple(sorted(set(wanted)))

    @property
    def reach(self) -> int:
        """Number of blocks, from the first, that get a gradient of alignment."""
        feature = self.feature_layer if self.feature_weight else 0
        return max([feature, *(block + 1 for block in self.student_blocks)])
