"""Captioned images: what a preparation writes of them, and which caption a sample's number means."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hastezoo.conditioning.text import create_text_encoder
from hastezoo.data import preparing
from hastezoo.data.captioned import VARIANTS, caption_of, finite
from hastezoo.data.coco import CocoSource, frozen_pairs, image_id_of
from hastezoo.data.folders import read_image
from hastezoo.data.images import decode
from hastezoo.data.manifest import Manifest
from hastezoo.data.order import StepOrder
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.prepared import Prepared
from hastezoo.data.source import Item
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.evaluation.images.prepared import PreparedImages
from tests.data.coco_making import (
    SHARD,
    SIDE,
    captions_of,
    coco_settings,
    make_coco,
    name_of,
    number_of,
    one_thread,
    write_coco,
)  # fmt: skip
from tests.data.making import (
    Given,
    Posterior,
    Watching,
    assert_same,
    contents,
    facts,
    make,
    one_line,
    rows_of,
    settings_of,
    squares,
)  # fmt: skip
from tests.data.test_prepared import damage, refused

COUNT, TOTAL, WIDTH = 12, 69, 32
SHAPE = (77, WIDTH)


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_coco(tmp_path_factory.mktemp("coco"), COUNT)


@pytest.fixture(scope="module")
def rows(captioned: Path) -> list[dict[str, Any]]:
    return rows_of(captioned)


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> Any:
    return create_text_encoder("clip", source=tiny_clip)


@pytest.fixture
def copy(captioned: Path, tmp_path: Path) -> Path:
    """To damage."""
    return Path(shutil.copytree(captioned, tmp_path / "copy"))


def states(row: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(row["states"], "<f2").reshape(-1, *SHAPE)


def near(found: Any, wanted: Any) -> bool:
    """But for the last bits, which PyTorch rounds as its batches and threads are."""
    return np.allclose(np.asarray(found, np.float32), np.asarray(wanted, np.float32), rtol=2e-3, atol=2e-3)


def test_rows_are_images_captions_and_the_encoders_states(
    coco: tuple[Path, Path], rows: list[dict[str, Any]], encoder: Any, tiny_vae: Path
) -> None:
    """Of each caption by itself, in the captions' order; and the moments are those of any data set."""
    posterior = Posterior(tiny_vae)
    assert [row["id"] for row in rows] == [name_of(index) for index in range(COUNT)]
    for index, row in enumerate(rows):
        assert list(row) == ["id", "captions", "states", "moments", "image"]
        assert row["captions"] == captions_of(index)
        for caption, found in zip(row["captions"], states(row), strict=True):
            assert near(found, encoder.states([caption])[0])
        moments = np.frombuffer(row["moments"], "<f2").reshape(2, 4, SIDE // 8, SIDE // 8)
        assert np.allclose(moments, posterior(decode(row["image"]["bytes"])), rtol=2e-3, atol=2e-4)


def test_the_manifest_says_what_the_states_are(captioned: Path, tiny_clip: Path, encoder: Any) -> None:
    manifest = Manifest.read(captioned)
    assert (manifest.name, manifest.resolution, manifest.samples, manifest.classes, manifest.counts) == (
        "coco256", SIDE, COUNT, [], [],
    )  # fmt: skip
    text = manifest.text
    assert text is not None and (text.encoder, text.encoder_sha256) == (str(tiny_clip), encoder.sha256)
    assert (text.length, text.width, text.dtype, text.captions) == (77, WIDTH, "float16", TOTAL)
    assert text.empty.sha256 == sha256_of(captioned / text.empty.file)
    shards = {f"shard-0000{number}.arrow" for number in range(3)}
    assert set(contents(captioned)) == shards | {"manifest.json", "state.json", "dataset_info.json", text.empty.file}
    assert Manifest.model_validate(json.loads((captioned / "manifest.json").read_text())) == manifest
    null = Prepared(captioned).null
    assert null is not None and null.dtype == torch.float16 and near(null, encoder.states([""])[0])


def test_a_data_set_of_classes_says_nothing_of_text(tmp_path: Path) -> None:
    """Its manifest is what it was before there were captions, and is read as it was."""
    prepare(Given(*squares()), tmp_path, settings_of("mse", resolution=16))
    assert "text" not in json.loads((tmp_path / "manifest.json").read_text())
    samples = Prepared(tmp_path)
    assert (samples.manifest.text, samples.variants, samples.null, samples.captions(0)) == (None, 1, None, [])


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
    assert np.array_equal(plain.condition, [states(rows[index])[0] for index in (3, 0, 11)])
    for index in (3, 2, 0):  # of 7, 6 and 5 captions
        every, count = states(rows[index]), len(rows[index]["captions"])
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
        assert found.dtype == torch.float16 and np.array_equal(found, states(rows[index])[place])
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
    every = states(rows[1])
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


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_preparation_goes_on(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    again = partial(make_coco, *coco, vae=tiny_vae, clip=tiny_clip)
    again(dest=tmp_path / "whole")
    dest = tmp_path / "dest"
    with pytest.raises(KeyboardInterrupt):
        again(dest=dest, watch=Watching(SHARD + 1, interrupt))
    before = facts(dest)
    assert len(before) == 1 and not (dest / "manifest.json").exists()
    for changes, message in (
        ({"limit": 5}, "was begun with limit None, not 5; go on so, or give another DEST"),
        ({"clip": tmp_path}, "was begun with text_encoder .*, not "),
    ):
        with pytest.raises(UserError, match=message) as error:
            again(dest=dest, **changes)
        one_line(error)
    again(dest=dest)
    assert before.items() <= facts(dest).items()
    assert_same(dest, tmp_path / "whole")


def test_going_on_with_another_encoder_is_refused(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    clip, dest = Path(shutil.copytree(tiny_clip, tmp_path / "clip")), tmp_path / "dest"
    with pytest.raises(KeyboardInterrupt):
        make_coco(*coco, dest, tiny_vae, clip, watch=Watching(SHARD + 1, interrupt))
    claim = json.loads((dest / "prepare.json").read_text())
    (dest / "prepare.json").write_text(json.dumps(claim | {"text_encoder_sha256": "0" * 64}))
    with pytest.raises(
        UserError, match=r"^the text encoder has other weights than when .*dest was begun; give another"
    ):
        make_coco(*coco, dest, tiny_vae, clip)


def test_what_is_finished_is_not_taken_for_something_else(
    captioned: Path, tiny_vae: Path, tiny_clip: Path, tmp_path: Path, images: Path
) -> None:
    coco = captioned.parent / "train2014", captioned.parent / "captions_train2014.json"
    before = contents(captioned)
    assert make_coco(*coco, captioned, tiny_vae, tiny_clip) == Manifest.read(captioned)
    for changes, message in (
        ({"clip": tmp_path}, rf"holds a data set with text_encoder {tiny_clip}, not {tmp_path}; give another DEST"),
        ({"clip": "openai/x"}, r"holds a data set with text_encoder .*, not openai/x"),
        ({"limit": 5}, r"holds a data set of other images \(.*\); give another DEST"),
    ):
        with pytest.raises(UserError, match=message):
            make_coco(*coco, captioned, **{"vae": tiny_vae, "clip": tiny_clip, **changes})
    with pytest.raises(UserError, match=r"holds a data set with name coco256, not folder"):
        make(images, captioned, tiny_vae)
    assert contents(captioned) == before


def test_a_text_encoder_is_for_captions(coco: tuple[Path, Path], images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the images of .* have captions, for which a text encoder is needed$"):
        make_coco(*coco, tmp_path / "a", tiny_vae, tmp_path, text_encoder=None)
    with pytest.raises(UserError, match=r"the images of .* have classes, which no text encoder is for$"):
        make(images, tmp_path / "a", tiny_vae, text_encoder="x")
    assert not (tmp_path / "a").exists()


def test_a_text_encoder_that_is_none(coco: tuple[Path, Path], tiny_vae: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    with pytest.raises(UserError) as error:
        make_coco(*coco, tmp_path / "dest", tiny_vae, tmp_path / "clip")
    assert str(tmp_path / "clip") in one_line(error) and not contents(tmp_path / "dest")


def test_batches_and_threads_do_not_change_states(
    coco: tuple[Path, Path],
    captioned: Path,
    tiny_vae: Path,
    tiny_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Captions are encoded in groups of their own, whatever the batch of images; groups do not change them either."""
    wanted = [(row["captions"], row["states"]) for row in rows_of(captioned)]
    for groups, batch_size in ((preparing.TEXTS, 3), (2, 4), (1, 1)):
        monkeypatch.setattr(preparing, "TEXTS", groups)
        dest = tmp_path / f"{groups}"
        make_coco(*coco, dest, tiny_vae, tiny_clip, machine={"batch_size": batch_size, "threads": 1})
        assert [(row["captions"], row["states"]) for row in rows_of(dest)] == wanted


def test_unreadable_images_are_skipped(tiny_vae: Path, tiny_clip: Path, captioned: Path, tmp_path: Path) -> None:
    """With their captions; those of the others stay with them."""
    coco = write_coco(tmp_path / "coco", COUNT)
    (coco[0] / name_of(1)).write_bytes(b"no image")
    (coco[0] / name_of(6)).unlink()
    manifest = make_coco(*coco, tmp_path / "dest", tiny_vae, tiny_clip)
    assert [one.id for one in manifest.skipped] == [name_of(1), name_of(6)]
    assert manifest.skipped[1].reason.startswith("FileNotFoundError: ")
    assert manifest.text is not None and manifest.text.captions == TOTAL - len(captions_of(1)) - len(captions_of(6))
    rest = [index for index in range(COUNT) if index not in (1, 6)]
    whole = rows_of(captioned)
    for index, row in zip(rest, rows_of(tmp_path / "dest"), strict=True):
        assert row["captions"] == captions_of(index) and near(states(row), states(whole[index]))


def test_states_that_are_not_finite(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hastezoo.data import prepare as preparation

    load = preparation.load_encoder

    def spoilt(*arguments: Any) -> Any:
        encoder = load(*arguments)
        own = encoder.states

        def nan_in_one(prompts: list[str]) -> torch.Tensor:
            found = own(prompts)
            if captions_of(7)[3] in prompts:
                found[prompts.index(captions_of(7)[3]), 5, 3] = float("nan")
            return found

        monkeypatch.setattr(encoder, "states", nan_in_one)
        return encoder

    monkeypatch.setattr(preparation, "load_encoder", spoilt)
    with pytest.raises(UserError, match=rf"^the text encoder {tiny_clip} gave states that are not finite$"):
        make_coco(*coco, tmp_path / "dest", tiny_vae, tiny_clip)
    assert sorted(facts(tmp_path / "dest")) == ["shard-00000.arrow"]


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_what_is_finite(value: float) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    good = every[np.isfinite(every)]
    assert len(good) == (1 << 16) - (1 << 11) and finite(good) and finite(good[:1])
    assert not finite(np.append(good, np.float16(value))) and not finite(np.full(3, value, np.float16))
    assert not any(finite(one) for one in np.split(every[~np.isfinite(every)], 1 << 11))


class Deadly(CocoSource):
    """Images of which one kills the process that reads it: once, and when another shard is done."""

    def __init__(self, images: Path, path: Path, dest: Path) -> None:
        super().__init__(images, path, SHARD)
        self.dest = dest

    def items(self, unit: int) -> Iterator[Item]:
        for item in super().items(unit):
            yield replace(item, load=partial(self.read, item.id))

    def read(self, name: str) -> Image.Image:
        while name == name_of(11):
            if list(self.dest.glob("shard-*.json")):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
        return read_image(self.path / name)


def test_two_processes_and_a_kill(
    coco: tuple[Path, Path], captioned: Path, tiny_vae: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """What they made before one was killed is what one process makes, and it goes on from there."""
    dest, watch = tmp_path / "dest", Watching()
    machine = Machine("cpu", processes=2, threads=1)
    with pytest.raises(UserError, match=r"^a process of the preparation was killed"):
        prepare(Deadly(*coco, dest), dest, coco_settings(tiny_vae, tiny_clip), machine, watch)
    assert watch.states == SHAPE and not (dest / "manifest.json").exists()
    done, before = {path.stem for path in dest.glob("shard-*.json")}, facts(dest)
    assert done and "shard-00002" not in done
    make_coco(*coco, dest, tiny_vae, tiny_clip)
    after = facts(dest)
    assert all(after[f"{name}.arrow"] == before[f"{name}.arrow"] for name in done)
    for row, wanted in zip(rows_of(dest), rows_of(captioned), strict=True):
        assert (row["id"], row["captions"]) == (wanted["id"], wanted["captions"])
        assert near(states(row), states(wanted))


@pytest.mark.parametrize("change", [-2, 2, -2 * 77 * WIDTH, 2 * 77 * WIDTH])
def test_states_of_another_size(copy: Path, change: int) -> None:
    """Also by a whole caption: its neighbours would answer for it."""
    path = damage(
        copy, lambda row: {**row, "states": row["states"][:change] if change < 0 else row["states"] + bytes(change)}, 7
    )
    samples, size = Prepared(copy), 2 * 77 * WIDTH
    samples.__getitems__([0, 6])
    reason = rf"is damaged \(sample {name_of(7)}: its states are {7 * size + change:,} bytes, not 7 x {size:,}\)"
    refused(path, reason, lambda: samples.__getitems__([0, 7]))
    refused(path, reason, lambda: samples.caption_states(7, 1))


def test_states_that_are_missing(copy: Path) -> None:
    path = damage(copy, lambda row: {**row, "states": None}, 3)
    reason = rf"is damaged \(sample {name_of(3)}: its states are no bytes, not 7 x {2 * 77 * WIDTH:,}\)"
    refused(path, reason, lambda: Prepared(copy).__getitems__([3]))


def test_states_that_are_not_finite_in_the_file(copy: Path) -> None:
    """Of the caption that is drawn; of another nothing is known."""

    def spoil(row: dict[str, Any]) -> dict[str, Any]:
        every = states(row).copy()
        every[2, 76, 31] = np.inf
        return {**row, "states": every.tobytes()}

    path = damage(copy, spoil, 4)
    samples = Prepared(copy)
    samples.__getitems__([4, 4 + COUNT * (VARIANTS // 5)])
    turn = VARIANTS // 2
    reason = rf"is damaged \(sample {name_of(4)}: states that are not finite\)"
    refused(path, reason, lambda: samples.__getitems__([1, 4 + COUNT * turn]))
    refused(path, reason, lambda: samples.caption_states(4, 2))


@pytest.mark.parametrize("captions", [None, [], ["one"]])
def test_captions_that_are_missing(copy: Path, captions: Any) -> None:
    damage(copy, lambda row: {**row, "captions": captions}, 8)
    left = TOTAL - 5 + len(captions or [])
    with pytest.raises(UserError) as error:
        Prepared(copy)
    assert one_line(error) == (
        f"{copy} is damaged (it has {left} captions of 12 images, and its manifest says 69): copy it again, or prepare "
        "it anew"
    )


def test_a_caption_that_is_missing(copy: Path) -> None:
    path = damage(copy, lambda row: {**row, "captions": [*row["captions"][:4], None]}, 9)
    samples = Prepared(copy)
    assert samples.captions(8) == captions_of(8)
    refused(path, rf"is damaged \(sample {name_of(9)}: a caption is missing\)", lambda: samples.captions(9))


def broken_empty(path: Path, state: str) -> None:
    from safetensors.torch import save_file

    if state == "missing":
        path.unlink()
    elif state == "changed":
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        save_file({"states": torch.zeros(77, 16, dtype=torch.float16)}, str(path))
        record = json.loads((path.parent / "manifest.json").read_text())
        record["text"]["empty"]["sha256"] = sha256_of(path)
        (path.parent / "manifest.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("missing", "with the empty caption's states is missing"),
        ("changed", r"with the empty caption's states is damaged \(its sha256 is another\)"),
        ("another shape", r"does not hold the states \(77, 32\) of a caption"),
    ],
)
def test_the_empty_captions_file(copy: Path, state: str, message: str) -> None:
    path = copy / "empty.safetensors"
    broken_empty(path, state)
    with pytest.raises(UserError) as error:
        Prepared(copy)
    pattern = rf"the file {re.escape(str(path))} {message}: copy it again, or prepare the data set anew"
    assert re.fullmatch(pattern, one_line(error))


def test_shards_of_captions_in_a_data_set_of_classes(copy: Path) -> None:
    record = json.loads((copy / "manifest.json").read_text())
    del record["text"]
    (copy / "manifest.json").write_text(json.dumps(record | {"classes": ["a"], "counts": [12]}))
    with pytest.raises(UserError, match=r"is damaged \(its columns or classes are others\)"):
        Prepared(copy)


def test_the_page_holds_what_was_measured(root: Path) -> None:
    rates = json.loads((root / "benchmarks" / "results" / "caption_reading.json").read_text())["samples_per_second"]
    text = (root / "docs" / "data.md").read_text()
    for rate in rates.values():
        over = rates["prepared"]["median"] / rate["median"]
        assert f"| {rate['median']:,} ({rate['least']:,}..{rate['most']:,}) | {over:.1f} |" in text
    assert all(rates["prepared"]["median"] > 2 * rate["median"] for name, rate in rates.items() if name != "prepared")


def test_the_page_holds_what_was_computed(root: Path) -> None:
    """And the rules by which captions are chosen, in the words of the code."""
    text = (root / "docs" / "data.md").read_text()
    one = 2 * 77 * 768
    assert f"{one / 1e3:.0f} kB" in text and f"(a few have six or seven) | {82_783 * 5 * one / 1e9:.0f} GB |" in text
    assert f"| moments, 2 x 2 x 4 x 32 x 32 bytes an image | {82_783 * 2 * 2 * 4 * 32 * 32 / 1e9:.1f} GB |" in text
    assert f"| `--limit 20000`, states | {20_000 * 5 * one / 1e9:.0f} GB |" in text
    assert "`hastezoo coco subset ID`" in text and "`hastezoo coco ID`" in text
