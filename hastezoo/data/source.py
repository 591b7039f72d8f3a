"""Where images come from when a data set is prepared: what every kind of source offers, and which kind a name means."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from hastezoo.errors import UserError

HUB = "hf:"
Moments = Literal["mean-std", "mean-logvar"]
"""What lies beside the mean of a latent's posterior."""


@dataclass(frozen=True)
class Item:
    """One image of a source, not read yet.

    Attributes:
        id: Unique in its source and the same each time, such as `n01440764/n01440764_18.JPEG`.
        label: Of its class; 0 where there are none.
        load: Reads and decodes it as RGB; any exception means that it is unreadable.
        moments: Reads the moments of its latent where the source has them: float32 (2, C, h, w), the mean and the
            standard deviation of the posterior, unscaled. None where they are still to be computed.
        captions: What is said of it, where the source has no classes.
    """

    id: str
    label: int
    load: Callable[[], Image.Image]
    moments: Callable[[], np.ndarray] | None = None
    captions: tuple[str, ...] = ()


class Source(Protocol):
    """Images with labels or captions, in units that can each be read alone, in the same order each time.

    It can be pickled.

    Attributes:
        description: Where it is, for the manifest.
        fingerprint: Changes when its list of images does.
        classes: Names by label; none where the images have captions.
        units: How many units; each becomes a shard.
        total: Images in all; None where the source does not say.
        has_moments: Whether its items come with moments, and with images that are cropped already.
    """

    description: str
    fingerprint: str
    classes: list[str]
    units: int
    total: int | None
    has_moments: bool

    def items(self, unit: int) -> Iterator[Item]: ...


def open_source(
    name: str,
    *,
    shard_size: int,
    moments: Moments = "mean-std",
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """The source that a name means: `hf:owner/repo`, folders as REPA's preprocessing leaves them, or a folder a class.

    Args:
        name: What the user typed.
        shard_size: Images a unit, where the source is free to choose.
        moments: What REPA's folders hold beside the mean: `mean-std` or `mean-logvar`.
        image_column, label_column: Of a data set of the Hub; None to find them.

    Raises:
        UserError: If there is no such source, or nothing in it that can be used.
    """
    if name.startswith(HUB):
        from hastezoo.data.hub_images import HubImages

        return HubImages(name.removeprefix(HUB), image_column, label_column)
    path = Path(name)
    if not path.is_dir():
        hint = f"; on the Hub it would be {HUB}{name}" if name.count("/") == 1 and not name.startswith(".") else ""
        raise UserError(f"there is no folder {name}{hint}")
    from hastezoo.data import repa

    if repa.looks_like(path):
        return repa.RepaFolders(path, shard_size, moments)
    from hastezoo.data.folders import ClassFolders

    return ClassFolders(path, shard_size)
