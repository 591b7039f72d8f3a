"""`hastezoo prepare`, as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hastezoo.cli import prepare as module
from hastezoo.cli.main import main
from hastezoo.data.folders import ClassFolders
from hastezoo.data.prepared import Prepared
from hastezoo.data.preparing import Preparer
from tests.data.making import COUNT, digit, write_photographs

OPTIONS = ("--resolution", 32, "--shard-size", 5, "--device", "cpu", "--processes", 1, "--threads", 1)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def bad(*arguments: Any) -> str:
    """A failure: one line, no traceback, exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert result.stdout == "" and result.stderr.startswith("error: ")
    return result.stderr.removeprefix("error: ").rstrip()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of an image each."""
    folder = tmp_path_factory.mktemp("ten")
    for number in range(10):
        (folder / f"{number}").mkdir()
        digit(number).save(folder / f"{number}" / "0.png")
    return folder


def test_a_folder_becomes_a_data_set(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    result = run("folder", images, dest, *OPTIONS, "--vae", tiny_vae, "--flip", "--image-format", "jpeg", "--quiet")
    assert result.exit_code == 0 and result.stderr == ""
    size = sum(path.stat().st_size for path in dest.glob("*.arrow")) / 1e6
    assert result.stdout.splitlines() == [
        f"{COUNT} images of 3 classes in {dest}: {size:.2f} MB in 4 shards",
        f"look at it: hastezoo inspect {dest}",
    ]
    manifest = Prepared(dest).manifest
    assert (manifest.name, manifest.resolution, manifest.flip, manifest.image_format) == ("folder", 32, True, "jpeg")
    again = run("folder", images, dest, *OPTIONS, "--vae", tiny_vae, "--flip", "--image-format", "jpeg")
    assert (again.exit_code, again.stdout) == (0, result.stdout)
    line = bad("folder", images, dest, *OPTIONS, "--vae", tiny_vae, "--flip")
    assert line == f"{dest} holds a data set with image_format jpeg, not png; give another DEST"


def test_skipped_images_are_listed(images: Path, tiny_vae: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(images, tmp_path / "images")
    for number in (0, 2):
        (folder / "coffee" / f"{number}.png").write_bytes(b"")
    arguments = ("folder", folder, tmp_path / "dest", *OPTIONS, "--vae", tiny_vae, "--quiet", "--max-bad")
    line = bad(*arguments, 1)
    assert re.fullmatch(
        r"more than 1 images cannot be read, such as coffee/2\.png \(.+\); mend the source, or .*", line
    )
    result = run(*arguments, 2)
    assert result.exit_code == 0
    assert re.fullmatch(r"(skipped: coffee/[02]\.png: UnidentifiedImageError: .+\n){2}", result.stderr)
    assert f"{COUNT - 2} images of 3 classes in " in result.stdout
    assert ", 2 skipped (listed in manifest.json): " in result.stdout
    listed = json.loads((tmp_path / "dest" / "manifest.json").read_text())["skipped"]
    assert [one["id"] for one in listed] == ["coffee/0.png", "coffee/2.png"]


def test_interrupted_and_typed_again(
    images: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, dest = Preparer._read, tmp_path / "dest"

    def interrupted(self: Preparer, item: Any) -> Any:
        if item.id == "rocket/3.png":
            raise KeyboardInterrupt
        return read(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(Preparer, "_read", interrupted)
        result = run("folder", images, dest, *OPTIONS, "--vae", tiny_vae, "--batch-size", 1)
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr == f"interrupted at 15 images; finished shards are in {dest}, the same command goes on\n"
    result = run("folder", images, dest, *OPTIONS, "--vae", tiny_vae)
    assert result.exit_code == 0 and result.stderr == "going on: 3 of 4 shards (15 images) are done\n"


@pytest.mark.parametrize("kind", ["imagenet256", "imagenet512"])
def test_ten_classes_are_no_imagenet(ten: Path, tmp_path: Path, kind: str) -> None:
    assert bad(kind, ten, tmp_path / "dest") == (
        "ImageNet has 1000 classes, and this has 10; for other images take "
        f"`hastezoo prepare folder --resolution {kind.removeprefix('imagenet')}`"
    )
    assert not (tmp_path / "dest").exists()


def test_imagenet_with_other_images_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody's ImageNet lacks a few; a subset of 100 images a class is still worth preparing."""
    module._check_imagenet("imagenet256", 256, ["x"] * 1000, 1_281_167)
    module._check_imagenet("imagenet256", 256, ["x"] * 1000, None)
    assert capsys.readouterr().err == ""
    module._check_imagenet("imagenet256", 256, ["x"] * 1000, 100_000)
    assert capsys.readouterr().err == ("warning: ImageNet's training set has 1,281,167 images, and this has 100,000\n")


def test_imagenet_has_its_resolution(
    ten: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMAGENET", (10, 10))
    result = run("imagenet256", ten, tmp_path / "dest", "--vae", tiny_vae, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    manifest = Prepared(tmp_path / "dest").manifest
    assert (manifest.name, manifest.resolution, manifest.latents.shape) == ("imagenet256", 256, (4, 32, 32))


def test_what_cannot_be_is_one_line(ten: Path, tiny_vae: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    assert bad("folder", ten, dest) == "`prepare folder` needs --resolution, such as --resolution 256"
    assert bad("imagenet256", ten, dest, "--resolution", 512) == (
        "imagenet256 has images of 256 px; for 512 take `prepare folder --resolution 512`"
    )
    assert bad("folder", tmp_path / "nowhere", dest, *OPTIONS) == f"there is no folder {tmp_path / 'nowhere'}"
    assert bad("folder", ten / "0", dest, *OPTIONS).endswith("0 has no folders; a class is a folder of images in it")
    assert bad("folder", ten, dest, *OPTIONS, "--vae", tiny_vae, "--resolution", 36).startswith(
        "the resolution 36 is not a multiple of 8, which the autoencoder"
    )
    assert bad("folder", ten, dest, *OPTIONS, "--vae", ten).endswith(
        "ten0 is no autoencoder of diffusers: it has no config.json"
    )
    assert bad("folder", ten, dest, *OPTIONS, "--vae", tiny_vae, "--device", "cudo").startswith("unknown device 'cudo'")
    (tmp_path / "file").write_text("no folder")
    assert "cannot be written" in bad("folder", ten, tmp_path / "file" / "dest", *OPTIONS, "--vae", tiny_vae)
    assert "where it would be taken for a class" in bad("folder", ten, ten / "dest", *OPTIONS, "--vae", tiny_vae)
    assert bad("folder", ten, tiny_vae, *OPTIONS).endswith("(it holds config.json); give another DEST")


@pytest.mark.parametrize(
    ("option", "value"), [("--resolution", 7), ("--shard-size", 0), ("--max-bad", -1), ("--moments", "variances")]
)
def test_options_out_of_range(ten: Path, tmp_path: Path, option: str, value: object) -> None:
    result = run("folder", ten, tmp_path / "dest", option, value)
    assert result.exit_code == 2 and f"Invalid value for '{option}'" in result.stderr


def test_options_reach_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ten: Path) -> None:
    seen: dict[str, Any] = {}

    def opened(name: str, **options: Any) -> ClassFolders:
        seen.update(options, name=name)
        return ClassFolders(ten, options["shard_size"])

    monkeypatch.setattr("hastezoo.data.source.open_source", opened)
    columns = ("--image-column", "picture", "--label-column", "kind", "--moments", "mean-logvar", "--shard-size", 7)
    bad("imagenet512", "hf:owner/repo", tmp_path / "dest", *columns)
    assert seen == {
        "name": "hf:owner/repo", "shard_size": 7, "moments": "mean-logvar", "image_column": "picture",
        "label_column": "kind",
    }  # fmt: skip


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    bar = module.PrepareBar(quiet=False, seconds=0.0)
    bar.begin(1000, 5000, 1, 5)
    bar.advance(500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "going on: 1 of 5 shards (1,000 images) are done"
    assert re.fullmatch(r"1,500/5,000 images, [\d.]+ images/s, 0\.\d min left", lines[1])
    bar = module.PrepareBar(quiet=False, seconds=1000.0)
    bar.begin(0, None, 0, 5)
    bar.advance(500)
    assert capsys.readouterr().err == ""
