"""Images become a data set: the same whatever is done to the command meanwhile, or one line says why not."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hastezoo.autoencoders import LatentAutoencoder
from hastezoo.data import prepare as preparation
from hastezoo.data import shards, workers
from hastezoo.data.folders import ClassFolders, read_image
from hastezoo.data.images import decode
from hastezoo.data.manifest import Manifest, Skipped
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.preparing import Preparer
from hastezoo.data.shards import ShardRecord
from hastezoo.data.source import Item
from hastezoo.errors import UserError
from tests.data.making import (
    CLASSES,
    COUNT,
    PER_CLASS,
    SHARD,
    SIDE,
    Given,
    Posterior,
    Watching,
    adm_crop,
    contents,
    make,
    rows_of,
    settings_of,
    write_photographs,
)  # fmt: skip
from tests.vae import save_vae

UNITS = -(-COUNT // SHARD)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(images: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared at one go, with mirrored moments."""
    dest = tmp_path_factory.mktemp("whole") / "below" / "dest"
    make(images, dest, tiny_vae, flip=True)
    return dest


@pytest.fixture(scope="module")
def posterior(tiny_vae: Path) -> Posterior:
    return Posterior(tiny_vae)


@pytest.fixture
def pictures(images: Path, tmp_path: Path) -> Path:
    """A copy of the images to spoil."""
    return Path(shutil.copytree(images, tmp_path / "pictures"))


def moments(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f2").reshape(2, 4, SIDE // 8, SIDE // 8).astype(np.float32)


def dated(manifest: bytes) -> dict[str, Any]:
    return {**json.loads(manifest), "date": ""}


def assert_same(found: Path, wanted: Path) -> None:
    """Byte for byte, but for the day."""
    one, other = contents(found), contents(wanted)
    assert dated(one.pop("manifest.json")) == dated(other.pop("manifest.json"))
    assert one == other


def assert_near(found: Path, wanted: Path) -> None:
    """The same samples but for the last bits of moments, which PyTorch rounds as its threads and batches are."""
    for row, expected in zip(rows_of(found), rows_of(wanted), strict=True):
        for name in ("moments", "mirrored"):
            assert np.allclose(moments(row.pop(name)), moments(expected.pop(name)), rtol=1e-3, atol=1e-4)
        assert row == expected


def facts(dest: Path) -> dict[str, tuple[int, int]]:
    """What tells a shard from one that was written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in dest.glob("shard-*.arrow")}


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.write_bytes(file.read_bytes()[:50] if name.endswith("png") else b"")


def test_rows_are_the_images_their_labels_and_the_posteriors_moments(
    images: Path, whole: Path, posterior: Posterior
) -> None:
    """float16 of what diffusers' own layers make of ADM's crop in [-1, 1], mean then deviation, unscaled."""
    rows, source = rows_of(whole), ClassFolders(images, SHARD)
    assert [row["id"] for row in rows] == [f"{name}/{file}" for name, file in _listing(images)]
    assert [row["label"] for row in rows] == [source.classes.index(name) for name, _ in _listing(images)]
    for row in rows:
        with Image.open(images / row["id"]) as image:
            square = adm_crop(image, SIDE)
        assert np.array_equal(decode(row["image"]["bytes"]), square)
        assert np.allclose(moments(row["moments"]), posterior(square), rtol=1e-3, atol=1e-4)
        assert np.allclose(moments(row["mirrored"]), posterior(square[:, ::-1].copy()), rtol=1e-3, atol=1e-4)


def _listing(images: Path) -> list[tuple[str, str]]:
    return [(folder.name, file.name) for folder in sorted(images.iterdir()) for file in sorted(folder.iterdir())]


def test_the_manifest_counts_and_measures(images: Path, whole: Path, tiny_vae: Path) -> None:
    manifest, rows = Manifest.read(whole), rows_of(whole)
    assert (manifest.name, manifest.resolution, manifest.samples) == ("folder", SIDE, COUNT)
    assert (manifest.classes, manifest.counts) == (list(CLASSES), [PER_CLASS] * 3)
    assert (manifest.crop, manifest.flip, manifest.image_format) == ("adm-centre", True, "png")
    assert (manifest.source, manifest.skipped) == (str(images), [])
    assert [shard.rows for shard in manifest.shards] == [5, 5, 5, 3]
    assert manifest.bytes == sum((whole / shard.file).stat().st_size for shard in manifest.shards)
    latents, every = manifest.latents, np.stack([moments(row["moments"]) for row in rows]).astype(np.float64)
    assert (latents.vae, latents.shape) == (str(tiny_vae), (4, SIDE // 8, SIDE // 8))
    assert latents.input_range == (-1, 1) and len(latents.vae_sha256) == 64
    mean, std = every[:, 0].swapaxes(0, 1).reshape(4, -1), every[:, 1].swapaxes(0, 1).reshape(4, -1)
    assert np.allclose(latents.mean, mean.mean(1), atol=1e-4)
    assert np.allclose(latents.std, mean.std(1), atol=1e-4)
    assert np.allclose(latents.posterior_std, std.mean(1), atol=1e-3)
    assert {path.name for path in whole.iterdir() if not path.name.startswith(".")} == {
        "manifest.json", "state.json", "dataset_info.json", *(shard.file for shard in manifest.shards),
    }  # fmt: skip


def test_datasets_opens_it(whole: Path) -> None:
    import datasets

    opened = datasets.load_from_disk(str(whole))
    assert opened.num_rows == COUNT and list(opened.features) == ["id", "label", "moments", "mirrored", "image"]
    assert opened.features["label"].names == list(CLASSES) and isinstance(opened.features["image"], datasets.Image)
    first, last = opened[0], opened[COUNT - 1]
    assert isinstance(first["image"], Image.Image) and first["image"].size == (SIDE, SIDE)
    assert first["moments"] == rows_of(whole)[0]["moments"] and last["label"] == 2


def test_threads_do_not_matter_and_batches_only_for_the_last_bits(
    images: Path, whole: Path, tiny_vae: Path, tmp_path: Path
) -> None:
    """PyTorch rounds differently for other batch sizes; float16 hides most of it, not all."""
    make(images, tmp_path / "threads", tiny_vae, flip=True, machine={"threads": 5})
    assert_same(tmp_path / "threads", whole)
    for size in (1, 100):
        dest = tmp_path / f"{size}"
        make(images, dest, tiny_vae, flip=True, machine={"batch_size": size})
        assert_near(dest, whole)


def test_jpeg_without_mirrors(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """The moments are those of the crop, not of what JPEG left of it."""
    manifest = make(images, tmp_path / "dest", tiny_vae, image_format="jpeg")
    assert manifest.image_format == "jpeg" and not manifest.flip
    for row, wanted in zip(rows_of(tmp_path / "dest"), rows_of(whole), strict=True):
        assert "mirrored" not in row and row["image"]["bytes"].startswith(b"\xff\xd8")
        assert row["moments"] == wanted["moments"]


def interrupt() -> None:
    raise KeyboardInterrupt


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


def test_the_resolution_must_suit_the_autoencoder(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the resolution 36 is not a multiple of 8, which the autoencoder .* reduces"):
        make(images, tmp_path / "dest", tiny_vae, resolution=36)
    assert not contents(tmp_path / "dest")


def test_an_autoencoder_that_is_none(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder .*empty is no autoencoder of diffusers: it has no config\.json"):
        make(images, tmp_path / "dest", tmp_path / "empty")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        make(images, tmp_path / "dest", tmp_path / "nowhere")
    shutil.copytree(tiny_vae, tmp_path / "cut")
    (tmp_path / "cut" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"the autoencoder .*cut cannot be loaded") as error:
        make(images, tmp_path / "dest", tmp_path / "cut")
    one_line(error)
    assert not contents(tmp_path / "dest")
    make(images, tmp_path / "dest", tiny_vae)


def test_latents_that_are_not_finite(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(str(tiny_vae))
    with torch.no_grad():
        vae.quant_conv.bias[0] = float("nan")
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"the autoencoder .*vae gave latents that are not finite"):
        make(images, tmp_path / "dest", tmp_path / "vae")


def squares(count: int = 12, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]
    return pixels, [rng.uniform(0.1, 1, (2, 4, 2, 2)).astype(np.float32) for _ in range(count)]


def test_moments_that_a_source_brings_are_kept(tmp_path: Path) -> None:
    """No autoencoder is loaded; images stay as they are."""
    pixels, given = squares()
    manifest = prepare(Given(pixels, given, 5), tmp_path / "dest", settings_of("mse", resolution=16))
    assert (manifest.crop, manifest.samples, manifest.latents.vae) == ("none", 12, "stabilityai/sd-vae-ft-mse")
    assert manifest.latents.vae_sha256 == "" and manifest.counts == [6, 6] and manifest.latents.shape == (4, 2, 2)
    for row, square, wanted in zip(rows_of(tmp_path / "dest"), pixels, given, strict=True):
        assert np.array_equal(decode(row["image"]["bytes"]), square)
        assert row["moments"] == wanted.astype(np.float16).tobytes()


def test_moments_of_no_use(tmp_path: Path) -> None:
    pixels, given = squares()
    source = Given(pixels, given, 5)
    with pytest.raises(UserError, match="a stub has no moments of mirrored images; leave out --flip"):
        prepare(source, tmp_path / "a", settings_of("mse", resolution=16, flip=True))
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match=r"such as 0 .*it is 16 x 16 pixels, not 32 x 32"):
        prepare(source, tmp_path / "b", settings_of("mse", resolution=32), Machine(max_bad=0))
    given[7] = given[7].copy()
    given[7][0, 0, 0, 0] = np.inf
    with pytest.raises(UserError, match="the moments of 7 in a stub are not finite"):
        prepare(Given(pixels, given, 5), tmp_path / "c", settings_of("mse", resolution=16))
    given[7] = np.ones((2, 4, 2, 3), np.float32)
    with pytest.raises(UserError, match="the moments of a stub have several shapes"):
        prepare(Given(pixels, given, 1), tmp_path / "d", settings_of("mse", resolution=16))
    with pytest.raises(UserError, match=r"the moments of 7 are of the shape \(4, 2, 3\), those before it \(4, 2, 2\)"):
        prepare(Given(pixels, given, 5), tmp_path / "e", settings_of("mse", resolution=16))


def test_moments_that_the_user_can_mend_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not skipped one by one like images that cannot be read: --moments is wrong, and so are all."""

    def moments() -> np.ndarray:
        raise UserError("these are log-variances")

    source = Given(*squares(), 5)
    spoilt = [Item(one.id, one.label, one.load, moments) for one in source.items(0)]
    monkeypatch.setattr(source, "items", lambda unit: iter(spoilt))
    with pytest.raises(UserError, match=r"^these are log-variances$"):
        prepare(source, tmp_path / "dest", settings_of("mse", resolution=16))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, no partial file, and the same command goes on with the shards that are done."""
    source, settings, dest = Given(*squares(), 5), settings_of("mse", resolution=16), tmp_path / "dest"
    prepare(source, tmp_path / "whole", settings)
    write, written = shards.write_shard, []

    def fill(path: Path, *arguments: Any) -> Any:
        if written:
            (dest / f".{path.name}.1.partial").unlink(missing_ok=True)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        return write(path, *arguments)

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(shards, "write_shard", fill)
        prepare(source, dest, settings)
    assert one_line(error) == (
        f"{dest} cannot be written: No space left on device. 1 of 3 shards are done and stay; when that is mended, the "
        "same command goes on"
    )
    before = facts(dest)
    prepare(source, dest, settings)
    assert before.items() <= facts(dest).items()
    assert_same(dest, tmp_path / "whole")


@pytest.mark.parametrize("limit", [100, 3000, 9000])
def test_the_system_refuses_to_write(tmp_path: Path, limit: int) -> None:
    """A limit of the system on the size of a file, met at the first write, within a shard or when its buffer goes."""
    source, settings, dest = Given(*squares(), 12), settings_of("mse", resolution=16), tmp_path / "dest"
    dest.mkdir()
    (dest / ".lock").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(UserError) as error:
            prepare(source, dest, settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one_line(error) == (
        f"{dest} cannot be written: File too large. 0 of 1 shards are done and stay; when that is mended, the same "
        "command goes on"
    )
    assert {path.name for path in dest.iterdir()} <= {".lock", "prepare.json"}
    prepare(source, dest, settings)
    prepare(source, tmp_path / "whole", settings)
    assert_same(dest, tmp_path / "whole")


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_a_destination_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"{place} cannot be written: .*/file.* (Not a directory|File exists)\. 0 of"):
        prepare(Given(*squares(), 5), tmp_path / place, settings_of("mse", resolution=16))


def test_the_number_of_processes(monkeypatch: pytest.MonkeyPatch, images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """One for each GPU where nobody says how many; none more than there is work for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    asked: list[tuple[str, int]] = []

    def work(source: Any, dest: Path, settings: Any, device: str, processes: int, *rest: Any) -> None:
        asked.append((device, processes))
        raise UserError("enough")

    monkeypatch.setattr(preparation, "work_in_processes", work)
    for device, processes in (("auto", None), ("cuda", 2), ("cuda:1", 2), ("cpu", 9)):
        with pytest.raises(UserError, match="enough"):
            make(images, tmp_path / "dest", tiny_vae, machine={"device": device, "processes": processes})
    assert asked == [("auto", 3), ("cuda", 2), ("cuda:1", 2), ("cpu", UNITS)]
    assert [preparation._gpus(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [3, 3, 1, 1]


class Deadly(ClassFolders):
    """Images of which one kills the process that reads it: once, and when another shard is done."""

    victim = "rocket/2.png"

    def __init__(self, path: Path, shard_size: int, dest: Path) -> None:
        super().__init__(path, shard_size)
        self.dest = dest

    def items(self, unit: int) -> Iterator[Item]:
        for item in super().items(unit):
            yield Item(item.id, item.label, partial(self.read, item.id))

    def read(self, name: str) -> Image.Image:
        while name == self.victim:
            if list(self.dest.glob("shard-*.json")):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.05)
        return read_image(self.path / name)


def test_a_process_that_is_killed(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    """One line; what the processes made is what one process makes, and it goes on from there."""
    dest, watch = tmp_path / "dest", Watching()
    source, settings = Deadly(images, SHARD, dest), settings_of(tiny_vae, flip=True)
    with pytest.raises(UserError) as error:
        prepare(source, dest, settings, Machine("cpu", processes=2, threads=1), watch)
    assert one_line(error) == (
        f"a process of the preparation was killed (out of memory?); finished shards stay in {dest}, and the same "
        "command goes on, perhaps with fewer --processes"
    )
    before = facts(dest)
    records = {path.stem: json.loads(path.read_text())["shard"]["rows"] for path in dest.glob("shard-*.json")}
    assert 1 <= len(records) < UNITS and watch.done >= sum(records.values())
    make(images, dest, tiny_vae, flip=True)
    assert {name: fact for name, fact in facts(dest).items() if name.removesuffix(".arrow") in records}.items() <= (
        before.items()
    )
    assert_near(dest, whole)


@pytest.fixture
def threads_for_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spawning takes seconds; what the parent does is the same with threads."""

    def start(*arguments: Any) -> None:
        source, dest, settings, device, _, options, counts, stop, _, _ = arguments
        autoencoder = LatentAutoencoder.from_pretrained(settings.vae, device=device)
        workers._mine.update(
            preparer=Preparer(source, dest, settings, autoencoder, **options), counts=counts, stop=stop
        )

    def pool(count: int, context: Any, start: Any, arguments: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(count, initializer=start, initargs=arguments)

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", pool)


@pytest.mark.usefixtures("threads_for_processes")
def test_every_image_of_other_processes_is_counted(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    watch = Watching()
    make(images, tmp_path / "dest", tiny_vae, flip=True, watch=watch, machine={"processes": 2})
    assert watch.began == (0, COUNT, 0, UNITS) and watch.done == COUNT
    assert_same(tmp_path / "dest", whole)


@pytest.mark.usefixtures("threads_for_processes")
@pytest.mark.parametrize(("error", "after"), [(RuntimeError, 1), (KeyboardInterrupt, COUNT)])
def test_what_a_watch_raises_ends_other_processes(
    images: Path, tiny_vae: Path, tmp_path: Path, error: type[BaseException], after: int
) -> None:
    """As it ends a single one, to the last image. Nobody would empty the pipe they count into: they would wait."""

    def fail() -> None:
        raise error("no more")

    with pytest.raises(error, match="no more"):
        make(
            images, tmp_path / "dest", tiny_vae, watch=Watching(after, fail), machine={"processes": 2, "batch_size": 1}
        )
    assert not (tmp_path / "dest" / "manifest.json").exists()


def test_other_processes_end_with_the_preparation(
    images: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while somebody holds the error, and with it the frames it came through."""
    ended = []

    def work(*arguments: Any) -> Iterator[ShardRecord]:
        try:
            yield ShardRecord(shard=None, skipped=[Skipped(id="x", reason="y")] * 2)
        finally:
            ended.append(True)

    monkeypatch.setattr(preparation, "work_in_processes", work)
    with pytest.raises(UserError, match=r"more than 1 images cannot be read, such as x \(y\)") as held:
        make(images, tmp_path / "dest", tiny_vae, machine={"processes": 2, "max_bad": 1})
    assert ended and held


def test_a_command_that_is_killed_goes_on(images: Path, whole: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    arguments = ["prepare", "folder", images, dest, "--resolution", SIDE, "--vae", tiny_vae, "--flip"]
    options = ["--shard-size", SHARD, "--device", "cpu", "--batch-size", 1, "--threads", 1, "--quiet"]
    # Slowed, so that the signal meets it at work.
    code = (
        "import time\nfrom hastezoo.cli.main import main\nfrom hastezoo.data.preparing import Preparer\n"
        "read = Preparer._read\n"
        "Preparer._read = lambda self, item: (time.sleep(0.1), read(self, item))[1]\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, [*arguments, *options])])
    try:
        limit = time.monotonic() + 60
        while not list(dest.glob("shard-*1.json")):
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    before = {name: fact for name, fact in facts(dest).items() if (dest / name).with_suffix(".json").exists()}
    assert len(before) >= 2 and not (dest / "manifest.json").exists()
    make(images, dest, tiny_vae, flip=True)
    assert before.items() <= facts(dest).items() and len(facts(dest)) == UNITS
    assert not list(dest.glob(".*.partial"))
    assert [row["id"] for row in rows_of(dest)] == [row["id"] for row in rows_of(whole)]
