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
from tests.data.coco_making import annotations, name_of, number_of, write_coco
from tests.data.making import COUNT, digit, write_photographs
from tests.test_imports import loaded_by

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


@pytest.mark.parametrize(
    ("kind", "hint"),
    [
        ("imagnet256", "did you mean imagenet256?"),
        ("coco", "did you mean coco256?"),
        ("zzz", "there are imagenet256, imagenet512, folder, coco256, captions"),
    ],
)
def test_an_unknown_kind_is_told_the_nearest(kind: str, hint: str, tmp_path: Path) -> None:
    assert bad(kind, tmp_path, tmp_path / "dest") == f"no kind of data set is called {kind!r}; {hint}"


@pytest.mark.parametrize("kind", ["imagenet256", "folder", "coco256", "captions"])
def test_help_of_a_kind_loads_nothing_heavy(kind: str) -> None:
    assert loaded_by("prepare", kind, "--help") == set()


def test_options_of_a_kind() -> None:
    """Mirrored moments and brought latents are not for captions; a resolution that is fixed is not offered."""
    texts = {kind: run(kind, "--help").stdout for kind in ("imagenet256", "folder", "coco256", "captions")}
    has = {
        option: {kind for kind in texts if option in texts[kind]} for option in ("--flip", "--limit", "--resolution")
    }
    assert has == {
        "--flip": {"imagenet256", "folder"},
        "--limit": {"coco256", "captions"},
        "--resolution": {"folder", "captions"},
    }
    assert all(option in text for text in texts.values() for option in ("--vae", "--processes", "--max-bad", "--quiet"))
    assert "[default:openai/clip-vit-large-patch14]" in "".join(texts["coco256"].split())


CAPTIONS = ("--resolution", 32, "--shard-size", 5, "--device", "cpu", "--processes", 1, "--threads", 1)


def test_captioned_images_become_a_data_set(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    places = ("--vae", tiny_vae, "--text-encoder", tiny_clip)
    result = run("captions", *coco, dest, *CAPTIONS, *places)
    assert result.exit_code == 0, result.output
    size = sum(path.stat().st_size for path in dest.glob("*.arrow")) / 1e6
    assert result.stdout.splitlines() == [
        f"12 images with 69 captions in {dest}: {size:.2f} MB in 3 shards",
        f"look at it: hastezoo inspect {dest}",
    ]
    states = 69 * 2 * 77 * 32 / 1e6
    assert re.fullmatch(
        rf"states of 69 captions, 77 x 32 float16 each, take {states:.2f} MB; [\d.]+ [GM]B are free in {dest}\n",
        result.stderr,
    )
    samples = Prepared(dest)
    assert (samples.manifest.name, samples.manifest.resolution) == ("captions", 32)
    again = run("captions", *coco, dest, *CAPTIONS, *places)
    assert (again.exit_code, again.stdout, again.stderr) == (0, result.stdout, "")
    line = bad("captions", *coco, dest, *CAPTIONS, *places, "--limit", 3)
    assert line.startswith(f"{dest} holds a data set of other images (") and line.endswith("; give another DEST")


def test_coco_has_its_resolution_and_a_part_of_it_can_be_taken(tiny_vae: Path, tiny_clip: Path, tmp_path: Path) -> None:
    images, path = write_coco(tmp_path / "coco")
    whole = annotations(12)
    kept = [entry for entry in whole["annotations"] if entry["image_id"] != number_of(4)]
    path.write_text(json.dumps(whole | {"annotations": kept}))
    options = ("--vae", tiny_vae, "--text-encoder", tiny_clip, "--device", "cpu", "--quiet", "--limit", 3)
    result = run("coco256", images, path, tmp_path / "dest", *options)
    assert result.exit_code == 0 and result.stderr == "left out: 1 images without a caption\n", result.output
    assert result.stdout.startswith("3 images with ")
    manifest = Prepared(tmp_path / "dest").manifest
    assert (manifest.name, manifest.resolution, manifest.latents.shape) == ("coco256", 256, (4, 32, 32))
    assert manifest.source.endswith("captions_train2014.json, 3 of 11 images")


def test_the_documented_command_runs(
    root: Path, tiny_vae: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/data.md has it, but for the networks."""
    write_coco(tmp_path / "coco", 2)
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / "data.md").read_text()
    (line,) = re.findall(r"^hastezoo prepare (coco256 .+)$", text, re.MULTILINE)
    result = run(*line.split(), "--vae", tiny_vae, "--text-encoder", tiny_clip, "--device", "cpu")
    assert result.exit_code == 0 and result.stdout.startswith("2 images with 10 captions in data/coco256: ")


def test_captioned_images_interrupted_and_typed_again(
    coco: tuple[Path, Path], tiny_vae: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, dest = Preparer._read, tmp_path / "dest"
    places = ("--vae", tiny_vae, "--text-encoder", tiny_clip)

    def interrupted(self: Preparer, item: Any) -> Any:
        if item.id == name_of(10):
            raise KeyboardInterrupt
        return read(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(Preparer, "_read", interrupted)
        result = run("captions", *coco, dest, *CAPTIONS, *places, "--batch-size", 1)
    assert result.exit_code == 130 and result.stdout == ""
    assert result.stderr.endswith(
        f"interrupted at 10 images; finished shards are in {dest}, the same command goes on\n"
    )
    result = run("captions", *coco, dest, *CAPTIONS, *places)
    assert result.exit_code == 0 and result.stderr.endswith("going on: 2 of 3 shards (10 images) are done\n")


def test_what_cannot_be_with_captions_is_one_line(
    coco: tuple[Path, Path], ten: Path, tiny_vae: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    (images, path), dest = coco, tmp_path / "dest"
    assert bad("coco256", tmp_path / "nowhere", path, dest) == f"there is no folder {tmp_path / 'nowhere'}"
    assert bad("coco256", images, tmp_path / "x.json", dest) == (
        f"there is no file {tmp_path / 'x.json'}; it would hold captions in COCO's format"
    )
    assert bad("coco256", ten, path, dest).endswith(f"such as {name_of(0)}; give the folder that they lie in")
    assert bad("coco256", images, path, images / "dest") == (
        f"{images / 'dest'} lies in {images}, among the images; give another DEST"
    )
    assert bad("coco256", images, path, dest, "--limit", 99).endswith("fewer than --limit 99")
    assert str(ten) in bad("coco256", images, path, dest, "--vae", tiny_vae, "--text-encoder", ten, "--device", "cpu")
    result = run("captions", images, path, dest)
    assert result.exit_code == 2 and "Missing option '--resolution'" in result.stderr
    assert not list(tmp_path.glob("dest/*.arrow"))
