"""What a preparation writes of captioned images, and how it goes on or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hastezoo.conditioning.text import create_text_encoder
from hastezoo.data import preparing
from hastezoo.data.coco import CocoSource
from hastezoo.data.images import decode
from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.prepared import Prepared
from hastezoo.data.source import Item
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from tests.data.coco_making import (
    COUNT,
    SHAPE,
    SHARD,
    SIDE,
    TOTAL,
    WIDTH,
    captions_of,
    coco_settings,
    make_coco,
    name_of,
    states_of,
    write_coco,
)  # fmt: skip
from tests.data.comparing import assert_same, contents, facts, one_line, rows_of
from tests.data.making import Given, Posterior, Watching, interrupt, kill_when_begun, make, settings_of, squares

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def encoder(tiny_clip: Path) -> Any:
    return create_text_encoder("clip", source=tiny_clip)


def near(found: Any, wanted: Any) -> bool:
    """But for the last bits, which PyTorch rounds as its batches and threads are."""
    return np.allclose(np.asarray(found, np.float32), np.asarray(wanted, np.float32), rtol=2e-3, atol=2e-3)


def test_rows_are_images_captions_and_the_encoders_states(
    coco: tuple[Path, Path], captioned: Path, encoder: Any, tiny_vae: Path
) -> None:
    """Of each caption by itself, in the captions' order; and the moments are those of any data set."""
    rows, posterior = rows_of(captioned), Posterior(tiny_vae)
    assert [row["id"] for row in rows] == [name_of(index) for index in range(COUNT)]
    for index, row in enumerate(rows):
        assert list(row) == ["id", "captions", "states", "moments", "image"]
        assert row["captions"] == captions_of(index)
        for caption, found in zip(row["captions"], states_of(row), strict=True):
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
    coco: tuple[Path, Path], captioned: Path, tiny_vae: Path, tiny_clip: Path, tmp_path: Path, images: Path
) -> None:
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
        assert row["captions"] == captions_of(index) and near(states_of(row), states_of(whole[index]))


def test_states_that_are_not_finite(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hastezoo.data import networks

    load = networks.load_encoder

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

    monkeypatch.setattr(networks, "load_encoder", spoilt)
    with pytest.raises(UserError, match=rf"^the text encoder {tiny_clip} gave states that are not finite$"):
        make_coco(*coco, tmp_path / "dest", tiny_vae, tiny_clip)
    assert sorted(facts(tmp_path / "dest")) == ["shard-00000.arrow"]


class Deadly(CocoSource):
    """Images of which one kills the process that reads it, when another shard is done."""

    def __init__(self, images: Path, path: Path, dest: Path) -> None:
        super().__init__(images, path, SHARD)
        self.dest = dest

    def items(self, unit: int) -> Iterator[Item]:
        for item in super().items(unit):
            yield replace(item, load=partial(kill_when_begun, self.dest)) if item.id == name_of(11) else item


@pytest.mark.slow
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
        assert near(states_of(row), states_of(wanted))
