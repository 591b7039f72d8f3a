"""A folder a class: which images there are, in which order, with which label."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from hastezoo.data.folders import ClassFolders
from hastezoo.data.source import open_source
from hastezoo.errors import UserError
from tests.data.making import digit


def put(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        digit(number).save(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes whose order by name is not the order they were made in, nor that of the case-blind."""
    root = tmp_path / "images"
    put(root, "b/2.png", "b/10.jpg", "b/deep/er/1.webp", "a/x.JPEG", "a/.hidden.png", "B/one.bmp", "b/.dir/no.png")
    put(root, "B/two.gif", "B/three.ppm", "B/four.tiff", ".thumbnails/x.png")
    for name in ("notes.txt", "a/x.JPEG.md5", "b/clip.mp4"):
        (root / name).write_text("not an image")
    return root


def ids(source: ClassFolders) -> list[str]:
    return [item.id for unit in range(source.units) for item in source.items(unit)]


def test_labels_follow_the_alphabet_and_foreign_files_are_passed_over(folder: Path) -> None:
    source = ClassFolders(folder, shard_size=3)
    assert source.classes == ["B", "a", "b"]
    assert ids(source) == [
        "B/four.tiff", "B/one.bmp", "B/three.ppm", "B/two.gif", "a/x.JPEG", "b/10.jpg", "b/2.png", "b/deep/er/1.webp",
    ]  # fmt: skip
    assert (source.total, source.units, source.has_moments) == (8, 3, False)
    assert [[item.label for item in source.items(unit)] for unit in range(3)] == [[0, 0, 0], [0, 1, 2], [2, 2]]
    assert source.description == str(folder.resolve())


def test_items_are_their_files(folder: Path) -> None:
    item = list(ClassFolders(folder, 100).items(0))[6]
    assert item.id == "b/2.png" and item.moments is None
    assert np.array_equal(np.asarray(item.load()), np.asarray(digit(0))) and item.load().mode == "RGB"
    (folder / "b" / "2.png").write_bytes(b"damaged")
    with pytest.raises(OSError):
        item.load()


def test_a_name_means_folders(folder: Path) -> None:
    assert isinstance(open_source(str(folder), shard_size=3), ClassFolders)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere$"):
        open_source(str(folder / "nowhere"), shard_size=3)
    with pytest.raises(UserError, match=r"there is no folder an/owner; on the Hub it would be hf:an/owner$"):
        open_source("an/owner", shard_size=3)
    with pytest.raises(UserError, match="there is no folder"):
        open_source(str(folder / "notes.txt"), shard_size=3)


def test_a_link_to_a_class_is_a_class(folder: Path) -> None:
    """Subsets of ImageNet are often folders of links."""
    subset = folder.parent / "subset"
    subset.mkdir()
    for name in ("a", "b"):
        (subset / name).symlink_to(folder / name)
    assert ids(ClassFolders(subset, 9)) == ["a/x.JPEG", "b/10.jpg", "b/2.png", "b/deep/er/1.webp"]


def test_a_class_without_images(folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "readme.txt").write_text("later")
    with pytest.raises(
        UserError, match=r"the class .*images/c has no images \(\.jpg, \.jpeg, \.png, \.\.\.\); put"
    ) as e:
        ClassFolders(folder, 3)
    assert "more" not in str(e.value)
    (folder / "d").mkdir()
    (folder / "e").mkdir()
    with pytest.raises(UserError, match=r"images/c has no images .*, nor have 2 more; put some in, or take the folder"):
        ClassFolders(folder, 3)


def test_one_folder_of_folders(folder: Path) -> None:
    """ImageNet's train/ typed without train/ would be a data set of one class."""
    with pytest.raises(UserError, match=r"has one folder, of folders; did you mean .*/images\?$"):
        ClassFolders(folder.parent, 3)


def test_one_class_may_hold_folders_beside_its_images(tmp_path: Path) -> None:
    put(tmp_path, "cats/1.png", "cats/2.png", "cats/deep/3.png", "cats/.cache/4.png")
    assert ids(ClassFolders(tmp_path, 3)) == ["cats/1.png", "cats/2.png", "cats/deep/3.png"]


def test_no_folders(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    (tmp_path / ".git").mkdir()
    with pytest.raises(UserError, match="has no folders; a class is a folder of images in it"):
        ClassFolders(tmp_path, 3)


def test_the_fingerprint_follows_the_list_of_images(folder: Path) -> None:
    first = ClassFolders(folder, 3).fingerprint
    assert ClassFolders(folder, 2).fingerprint == first
    put(folder, "a/.another.png")
    assert ClassFolders(folder, 3).fingerprint == first
    put(folder, "a/another.png")
    second = ClassFolders(folder, 3).fingerprint
    (folder / "a" / "another.png").rename(folder / "a" / "other.png")
    third = ClassFolders(folder, 3).fingerprint
    (folder / "b").rename(folder / "c")
    assert len({first, second, third, ClassFolders(folder, 3).fingerprint}) == 4


def test_a_copy_for_another_process_is_the_same(folder: Path) -> None:
    source = ClassFolders(folder, 3)
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.fingerprint, copy.units, copy.classes, ids(copy)) == (
        source.fingerprint, source.units, source.classes, ids(source),
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(next(source.items(2)))).load().size == (8, 8)
