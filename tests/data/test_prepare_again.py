"""A preparation that goes on, or is finished: the same data set, or one line says why not."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hastezoo.data import prepare as preparation
from hastezoo.data.manifest import Manifest
from hastezoo.errors import UserError
from tests.data.comparing import assert_same, contents, facts, one_line, rows_of
from tests.data.making import COUNT, PER_CLASS, SHARD, UNITS, Watching, interrupt, make, spoil
from tests.vae import save_vae


def test_an_interrupted_preparation_goes_on(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    with pytest.raises(KeyboardInterrupt):
        make(images, dest, tiny_vae, flip=True, watch=Watching(2 * SHARD + 2, interrupt))
    before = facts(dest)
    assert sorted(before) == ["shard-00000.arrow", "shard-00001.arrow"] and not list(dest.glob(".*.partial"))
    with pytest.raises(UserError, match="is not finished: type its `hastezoo prepare` command again"):
        Manifest.read(dest)
    (dest / ".shard-00002.arrow.1.partial").write_bytes(b"of a process that was killed")
    watch = Watching()
    make(images, dest, tiny_vae, flip=True, watch=watch)
    assert watch.began == (2 * SHARD, COUNT, 2, UNITS) and watch.done == COUNT - 2 * SHARD
    assert before.items() <= facts(dest).items() and not list(dest.glob(".*.partial"))
    assert_same(dest, whole)


@pytest.mark.parametrize("step", ["write_index", "manifest", "tidy"])
def test_stopped_at_the_very_end(
    images: Path, whole: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    dest = tmp_path / "dest"

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*{
            "write_index": (preparation.shards, "write_index", stop),
            "manifest": (Manifest, "write", stop),
            "tidy": (preparation, "_tidy", stop),
        }[step])  # fmt: skip
        make(images, dest, tiny_vae, flip=True)
    before = facts(dest)
    assert len(before) == UNITS and (dest / "prepare.json").exists()
    make(images, dest, tiny_vae, flip=True)
    assert facts(dest) == before
    assert_same(dest, whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": False}, "was begun with flip True, not False; go on so, or give another DEST"),
        ({"resolution": 64}, "was begun with resolution 32, not 64"),
        ({"image_format": "jpeg"}, "was begun with image_format png, not jpeg"),
        ({"shard_size": 6}, "was begun with shard_size 5, not 6"),
        ({"name": "imagenet256"}, "was begun with name folder, not imagenet256"),
        ({"moments": "mean-logvar"}, "was begun with moments mean-std, not mean-logvar"),
        ({"vae": "ema"}, "was begun with vae .*, not ema"),
    ],
)
def test_going_on_otherwise_is_refused(
    begun: Path, images: Path, tiny_vae: Path, changes: dict[str, Any], message: str
) -> None:
    before = contents(begun)
    with pytest.raises(UserError, match=message) as error:
        make(images, begun, **{"vae": tiny_vae, "flip": True, **changes})
    one_line(error)
    assert contents(begun) == before


@pytest.fixture(scope="module")
def begun(images: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preparation that was interrupted."""
    dest = tmp_path_factory.mktemp("begun")
    with pytest.raises(KeyboardInterrupt):
        make(images, dest, tiny_vae, flip=True, watch=Watching(SHARD + 1, interrupt))
    return dest


def test_going_on_with_other_images_or_weights_is_refused(
    begun: Path, pictures: Path, images: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    (pictures / "coffee" / "0.png").rename(pictures / "coffee" / "00.png")
    with pytest.raises(UserError, match=r"the images of .*pictures are not those .* was begun with; give another"):
        make(pictures, begun, tiny_vae, flip=True)
    vae, dest = Path(shutil.copytree(tiny_vae, tmp_path / "vae")), tmp_path / "dest"
    with pytest.raises(KeyboardInterrupt):
        make(images, dest, vae, watch=Watching(SHARD + 1, interrupt))
    save_vae(vae, (8, 8, 8, 8), norm_num_groups=4, sample_size=32, act_fn="relu")
    changed = (vae / "diffusion_pytorch_model.safetensors").read_bytes()
    (vae / "diffusion_pytorch_model.safetensors").write_bytes(changed.replace(changed[-4:], bytes(4)))
    with pytest.raises(UserError, match=r"the autoencoder has other weights than when .*dest was begun"):
        make(images, dest, vae)


def test_a_folder_that_is_not_empty_is_refused(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"is not empty \(it holds thesis\.tex\); give another DEST"):
        make(images, tmp_path, tiny_vae)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.tex"]


def test_what_is_finished_stays(images: Path, whole: Path, tiny_vae: Path) -> None:
    before, files = facts(whole), contents(whole)
    watch = Watching()
    assert make(images, whole, tiny_vae, flip=True, watch=watch) == Manifest.read(whole)
    assert watch.began is None and facts(whole) == before and contents(whole) == files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": False}, "holds a data set with flip True, not False; give another DEST"),
        ({"resolution": 64}, "holds a data set with resolution 32, not 64"),
        ({"image_format": "jpeg"}, "holds a data set with image_format png, not jpeg"),
        ({"name": "imagenet256"}, "holds a data set with name folder, not imagenet256"),
        ({"vae": "ema"}, "holds a data set with vae .*, not stabilityai/sd-vae-ft-ema"),
    ],
)
def test_what_is_finished_is_not_taken_for_something_else(
    images: Path, whole: Path, tiny_vae: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(images, whole, **{"vae": tiny_vae, "flip": True, **changes})


def test_what_is_finished_is_of_its_images(pictures: Path, whole: Path, tiny_vae: Path) -> None:
    (pictures / "coffee" / "0.png").unlink()
    with pytest.raises(UserError, match=r"holds a data set of other images \(.*\); give another DEST"):
        make(pictures, whole, tiny_vae, flip=True)


def test_unreadable_images_are_skipped_and_listed(pictures: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    bad = ["astronaut/0.png", "coffee/1.jpg", "rocket/5.png"]
    spoil(pictures, *bad)
    watch = Watching()
    manifest = make(pictures, tmp_path / "dest", tiny_vae, flip=True, watch=watch, machine={"max_bad": 3})
    assert [one.id for one in manifest.skipped] == bad and watch.done == COUNT
    assert all(one.reason.startswith("UnidentifiedImageError: ") for one in manifest.skipped[1:2])
    assert all("\n" not in one.reason and len(one.reason) > 10 for one in manifest.skipped)
    assert manifest.counts == [PER_CLASS - 1] * 3 and manifest.samples == COUNT - 3
    assert {row["id"] for row in rows_of(tmp_path / "dest")} == {row["id"] for row in rows_of(whole)} - set(bad)


@pytest.mark.parametrize(("limit", "bad"), [(0, 1), (1, 2), (2, 3)])
def test_too_many_unreadable_images(
    pictures: Path, whole: Path, tiny_vae: Path, tmp_path: Path, limit: int, bad: int
) -> None:
    """The limit is of all shards together, also when the last of them breaks it and the command is typed again."""
    names = ["astronaut/0.png", "coffee/0.png", "rocket/5.png"][-bad:]
    good = {name: (pictures / name).read_bytes() for name in names}
    spoil(pictures, *names)
    dest = tmp_path / "dest"
    again = partial(make, pictures, dest, tiny_vae, flip=True)
    for _ in range(2):
        with pytest.raises(
            UserError, match=rf"^more than {limit} images? cannot be read, such as rocket/5\.png \("
        ) as e:
            again(machine={"max_bad": limit})
        assert one_line(e).endswith("mend the source, or allow more with --max-bad")
        assert not (dest / "manifest.json").exists()
    for name, data in good.items():
        (pictures / name).write_bytes(data)
    again(machine={"max_bad": limit})
    one, other = contents(dest, "*.arrow"), contents(whole, "*.arrow")
    assert one == other


def test_more_may_be_allowed_later(pictures: Path, tiny_vae: Path, tmp_path: Path) -> None:
    spoil(pictures, "astronaut/0.png", "rocket/5.png")
    with pytest.raises(UserError, match="more than 1 image"):
        make(pictures, tmp_path / "dest", tiny_vae, machine={"max_bad": 1})
    before = facts(tmp_path / "dest")
    watch = Watching()
    assert len(make(pictures, tmp_path / "dest", tiny_vae, watch=watch, machine={"max_bad": 2}).skipped) == 2
    assert watch.began == (COUNT, COUNT, UNITS, UNITS)
    assert len(before) == UNITS and facts(tmp_path / "dest") == before


def test_nothing_can_be_read(tmp_path: Path, tiny_vae: Path, images: Path) -> None:
    """A whole unit without an image is no shard; no shard at all is no data set, until the images are mended."""
    folder = tmp_path / "pictures"
    shutil.copytree(images / "coffee", folder / "coffee")
    good = {path: path.read_bytes() for path in (folder / "coffee").iterdir()}
    spoil(folder, *(f"coffee/{path.name}" for path in good))
    with pytest.raises(UserError, match=r"none of the images of .*pictures can be read"):
        make(folder, tmp_path / "dest", tiny_vae)
    (folder / "coffee" / "5.png").write_bytes(good[folder / "coffee" / "5.png"])
    manifest = make(folder, tmp_path / "dest", tiny_vae)
    assert [(shard.file, shard.rows) for shard in manifest.shards] == [("shard-00001.arrow", 1)]
    assert manifest.samples == 1 and len(manifest.skipped) == 5 and np.isfinite(manifest.latents.std).all()
