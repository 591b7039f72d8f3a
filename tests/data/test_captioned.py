"""What training and evaluations read of captioned images, and which caption a sample's number means."""

from __future__ import annotations

import pickle
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hastezoo.data.captioned import VARIANTS, caption_of
from hastezoo.data.coco import frozen_pairs, image_id_of
from hastezoo.data.images import decode
from hastezoo.data.order import StepOrder
from hastezoo.data.prepared import Prepared
from hastezoo.evaluation.images.prepared import PreparedImages
from tests.data.coco_making import COUNT, SHAPE, SIDE, captions_of, make_coco, number_of, states_of
from tests.data.comparing import rows_of

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def rows(captioned: Path) -> list[dict[str, Any]]:
    return rows_of(captioned)


def test_datasets_opens_it(captioned: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    opened = datasets.load_from_disk(str(captioned))
    assert opened.num_rows == COUNT and opened[7]["captions"] == captions_of(7)
    assert opened[7]["states"] == rows[7]["states"] and opened[7]["image"].size == (SIDE, SIDE)


def test_a_number_says_which_image_and_which_caption(captioned: Path, rows: list[dict[str, Any]]) -> None:
    """u counts in steps of 1 / n of the variants; below len it is the first caption."""
    samples = Prepared(captioned, scale=1.0)
    assert len(samples) == COUNT and samples.variants == VARIANTS
    plain = samples.__getitems__([3, 0, 11])
    assert plain.condition.dtype == torch.float16 and plain.condition.shape == (3, *SHAPE)
    assert np.array_equal(plain.condition, [states_of(rows[index])[0] for index in (3, 0, 11)])
    for index in (3, 2, 0):  # of 7, 6 and 5 captions
        every, count = states_of(rows[index]), len(rows[index]["captions"])
        edges = [-(-place * VARIANTS // count) for place in range(count + 1)]
        turns = [*edges[:-1], *(edge - 1 for edge in edges[1:])]
        batch = samples.__getitems__([index + COUNT * turn for turn in turns])
        assert np.array_equal(batch.condition, every[[*range(count), *range(count)]])
        mean, std = np.frombuffer(rows[index]["moments"], "<f2").reshape(2, *samples.shape)
        assert batch.std is not None and batch.images is not None
        assert all(np.array_equal(one, mean) for one in batch.data) and all(
            np.array_equal(one, std) for one in batch.std
        )
        assert all(torch.equal(one, batch.images[0]) for one in batch.images)
        assert np.array_equal(batch.images[0].permute(1, 2, 0), decode(rows[index]["image"]["bytes"]))
    for number in (-1, COUNT * VARIANTS):
        with pytest.raises(IndexError, match=f"there is no sample {number}; there are 12"):
            samples.__getitems__([0, number])


def test_captions_and_their_states_by_place(captioned: Path, rows: list[dict[str, Any]]) -> None:
    samples = Prepared(captioned)
    assert [samples.captions(index) for index in range(COUNT)] == [captions_of(index) for index in range(COUNT)]
    for index, place in ((0, 0), (3, 6), (10, 5)):
        found = samples.caption_states(index, place)
        assert found.dtype == torch.float16 and np.array_equal(found, states_of(rows[index])[place])
    with pytest.raises(IndexError, match="image 0 has no caption 5; it has 5"):
        samples.caption_states(0, 5)
    with pytest.raises(IndexError, match="image 0 has no caption -1"):
        samples.caption_states(0, -1)


def test_frozen_pairs_come_from_a_prepared_data_set_too(captioned: Path) -> None:
    samples = Prepared(captioned)
    numbers = [image_id_of(name) for name in samples.ids()]
    counts = {number: len(samples.captions(index)) for index, number in enumerate(numbers) if number is not None}
    wanted = {number_of(index): len(captions_of(index)) for index in range(COUNT)}
    assert counts == wanted and frozen_pairs(counts, 5) == frozen_pairs(wanted, 5)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7])
def test_captions_are_drawn_alike(count: int) -> None:
    """The share of the turns that each has differs by one of 2^20 at most."""
    drawn = np.bincount(np.arange(VARIANTS) * count // VARIANTS)
    assert len(drawn) == count and drawn.max() - drawn.min() <= 1
    assert [caption_of(turn, count) for turn in (0, VARIANTS - 1)] == [0, count - 1]


def test_a_run_draws_captions_uniformly(captioned: Path) -> None:
    """Chi-square over 12 images and 600 epochs; the quantile 0.999 of 57 degrees of freedom is 95.8."""
    counts = [len(captions_of(index)) for index in range(COUNT)]
    drawn = [np.zeros(count) for count in counts]
    epochs = 600
    for number in chain(*StepOrder(COUNT, COUNT, 0, 0, epochs, variants=VARIANTS)):
        turn, index = divmod(number, COUNT)
        drawn[index][caption_of(turn, counts[index])] += 1
    assert all(own.sum() == epochs for own in drawn)
    statistic = sum(float(((own - epochs / len(own)) ** 2 / (epochs / len(own))).sum()) for own in drawn)
    assert sum(counts) - COUNT == 57 and 30 < statistic < 95.8


def test_mirrors_have_the_captions_of_their_images(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    make_coco(*coco, tmp_path / "set", tiny_vae, tiny_clip, flip=True, limit=4)
    samples, rows = Prepared(tmp_path / "set", scale=1.0, flip=True), rows_of(tmp_path / "set")
    assert len(samples) == 8
    turn = VARIANTS // 2
    batch = samples.__getitems__([4 + 1, 4 + 1 + 8 * turn, 1 + 8 * turn])
    every = states_of(rows[1])
    half = len(every) // 2
    assert np.array_equal(batch.condition, every[[0, half, half]])
    for column, data in zip(("mirrored", "mirrored", "moments"), batch.data, strict=True):
        assert np.array_equal(data, np.frombuffer(rows[1][column], "<f2").reshape(2, *samples.shape)[0])


def test_copies_and_other_processes_read_the_same(captioned: Path) -> None:
    samples = Prepared(captioned)
    order = list(StepOrder(COUNT, 6, 1, 0, 4, variants=samples.variants))
    direct = [samples.__getitems__(part) for part in order]
    data = pickle.dumps(samples)
    assert len(data) < 30_000  # the manifest and the empty caption, not the samples
    bare = pickle.loads(data).without_images()
    assert torch.equal(bare.__getitems__(order[0]).condition, direct[0].condition)
    loader: DataLoader[Any] = DataLoader(
        samples, batch_sampler=order, num_workers=2, collate_fn=lambda batch: batch, multiprocessing_context="fork",
    )  # type: ignore[arg-type]  # fmt: skip
    for batch, wanted in zip(loader, direct, strict=True):
        assert torch.equal(batch.condition, wanted.condition) and torch.equal(batch.data, wanted.data)


def test_an_evaluation_sees_images_without_labels(captioned: Path, rows: list[dict[str, Any]]) -> None:
    images = PreparedImages(captioned)
    assert (images.count, images.labels, images.shape) == (COUNT, None, (SIDE, SIDE, 3))
    assert np.array_equal(images.read(4, 6)[1], decode(rows[5]["image"]["bytes"]))
