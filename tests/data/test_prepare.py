"""Images become a data set: rows, manifest, and what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hastezoo.data.folders import ClassFolders
from hastezoo.data.images import decode
from hastezoo.data.manifest import Manifest
from hastezoo.data.prepare import Machine, prepare
from hastezoo.data.source import Item
from hastezoo.errors import UserError
from tests.data.comparing import assert_near, assert_same, contents, moments, one_line, rows_of
from tests.data.making import (
    CLASSES,
    COUNT,
    PER_CLASS,
    SHARD,
    SIDE,
    Given,
    Posterior,
    adm_crop,
    make,
    settings_of,
    squares,
)


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
