"""Are the states of a captioned data set sound? Some captions are encoded again and held against what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hastezoo.data.captioned import encoded
from hastezoo.data.inspection import errors
from hastezoo.data.order import permutation
from hastezoo.data.prepared import Prepared
from hastezoo.errors import UserError

if TYPE_CHECKING:
    from hastezoo.conditioning.text import TextEncoder

TOLERANCE = 0.02  # largest relative error; float16 and other kernels make 1e-3


@dataclass(frozen=True)
class CaptionTrip:
    """Some captions, encoded anew.

    Attributes:
        count: How many.
        error: The largest relative error of a caption's stored states.
        problem: What is wrong, in words; None for nothing.
    """

    count: int
    error: float
    problem: str | None


def caption_trip(samples: Prepared, encoder: TextEncoder, images: int) -> CaptionTrip:
    """Encode all captions of some images, the same ones each time and those of `round_trip`, and compare.

    Args:
        samples: The data set.
        encoder: The one that its manifest names.
        images: How many.

    Raises:
        UserError: If the encoder makes states of another shape, or those stored are damaged.
    """
    text, null = samples.manifest.text, samples.null
    assert text is not None and null is not None
    if (encoder.length, encoder.width) != (text.length, text.width):
        raise UserError(
            f"the text encoder {encoder.source} makes states {encoder.length} x {encoder.width}, the data set has "
            f"{text.length} x {text.width}"
        )
    problem, worst, count = None, 0.0, 0
    for index in permutation(0, 0, samples.manifest.samples)[:images].tolist():
        captions = samples.captions(index)
        stored = np.stack([samples.caption_states(index, place).numpy() for place in range(len(captions))])
        found, fresh = (part.astype(np.float32) for part in (stored, encoded(encoder, captions)))
        worst, count = max(worst, float(errors(found, fresh).max())), count + len(captions)
        problem = problem or _problem(found, fresh, index)
    empty, fresh = (part.astype(np.float32) for part in (null.numpy()[None], encoded(encoder, [""])))
    if problem is None and errors(empty, fresh)[0] > TOLERANCE:
        problem = "the states of the empty caption are not what the text encoder makes of it"
    return CaptionTrip(count, max(worst, float(errors(empty, fresh)[0])), problem)


def _problem(stored: np.ndarray, fresh: np.ndarray, index: int) -> str | None:
    """What is wrong with the states of an image's captions."""
    bad = np.flatnonzero(errors(stored, fresh) > TOLERANCE)
    if not len(bad):
        return None
    swapped = [(errors(stored[[one]].repeat(len(fresh), 0), fresh) <= TOLERANCE).any() for one in bad]
    if all(swapped):
        return f"the states of image {index} are those of its captions in another order"
    return (
        f"the stored states of {len(bad)} of the {len(fresh)} captions of image {index} are not what the text encoder "
        "makes of them: another text encoder, or other captions"
    )
