"""A small data set of captioned images in COCO's format: pieces of photographs, with captions made up for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hastezoo.data.coco import CocoSource
from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.preparing import PrepareSettings
from tests.data.making import crop_of

THINGS = {"astronaut": "a woman in an orange suit", "coffee": "a cup of coffee", "rocket": "a rocket on its pad"}
VIEWS = ("A photograph of {}", "{} seen from the front.", "Part of {}", "{}, cropped", "This is {}!", "{}", "Here: {}")
SIDE = 64
SHARD = 5
COUNT, TOTAL = 12, 69  # images and captions where nobody says how many
WIDTH = 32  # of the states of `tiny_clip`
SHAPE = (77, WIDTH)


@contextmanager
def one_thread() -> Iterator[None]:
    """Of PyTorch: networks this small gain nothing by more, and lose much where others use the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def number_of(index: int) -> int:
    """COCO's number of an image: ascending, with gaps."""
    return 9 + 16 * index + index % 3


def name_of(index: int) -> str:
    return f"COCO_train2014_{number_of(index):012d}.jpg"


def captions_of(index: int) -> list[str]:
    """Five, or six or seven of every fourth; no two images or places have the same."""
    thing = list(THINGS.values())[index % 3]
    views = VIEWS[: 5 + (index % 4 == 2) + 2 * (index % 4 == 3)]
    return [f"{view.format(thing)} number {index}" for view in views]


def annotations(count: int) -> dict[str, Any]:
    """What the JSON file holds: images and captions in no order, and what else COCO writes."""
    images = [
        {"license": 1, "file_name": name_of(index), "height": 1, "width": 1, "id": number_of(index)}
        for index in range(count)
    ]
    captions = [
        {"image_id": number_of(index), "id": 1000 + 10 * place + 100 * index, "caption": caption}
        for index in range(count)
        for place, caption in enumerate(captions_of(index))
    ]
    rng = np.random.default_rng(0)
    rng.shuffle(images)  # type: ignore[arg-type]
    rng.shuffle(captions)  # type: ignore[arg-type]
    return {"info": {"year": 2014}, "images": images, "licenses": [], "annotations": captions}


def states_of(row: dict[str, Any]) -> np.ndarray:
    """A row's states: float16 (captions, 77, width)."""
    return np.frombuffer(row["states"], "<f2").reshape(-1, *SHAPE)


def write_coco(folder: Path, count: int = COUNT) -> tuple[Path, Path]:
    """The folder of images and the file of annotations."""
    images = folder / "train2014"
    images.mkdir(parents=True)
    for index in range(count):
        crop_of(list(THINGS)[index % 3], index, (72 + index, 90)).save(images / name_of(index))
    path = folder / "captions_train2014.json"
    path.write_text(json.dumps(annotations(count)))
    return images, path


def coco_settings(vae: Path, clip: Path, **changes: Any) -> PrepareSettings:
    values = {"name": "coco256", "resolution": SIDE, "vae": str(vae), "text_encoder": str(clip), "shard_size": SHARD}
    return PrepareSettings(**{**values, **changes})


def make_coco(
    images: Path,
    path: Path,
    dest: Path,
    vae: Path,
    clip: Path,
    *,
    machine: dict[str, Any] | None = None,
    watch: Any = None,
    **changes: Any,
) -> Manifest:
    """Prepare it by this process, on the CPU."""
    settings = coco_settings(vae, clip, **changes)
    source = CocoSource(images, path, settings.shard_size, settings.limit)
    chosen = Machine(**{"device": "cpu", "processes": 1, "threads": 2, **(machine or {})})
    return prepare(source, dest, settings, chosen, watch)
