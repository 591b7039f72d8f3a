"""COCO's annotations: which images there are, with which captions; and the rules that choose among them."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hastezoo.data.coco import CocoSource, frozen_pairs, image_id_of, read_annotations
from hastezoo.errors import UserError
from tests.data.coco_making import COUNT, annotations, captions_of, name_of, number_of
from tests.data.comparing import one_line


def written(tmp_path: Path, **changes: Any) -> Path:
    """Annotations of two images with something else in them."""
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(annotations(2) | changes))
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_annotations(path)
    line = one_line(error)
    assert line.startswith((f"{path} ", f"{path}:", f"there is no file {path}"))
    return line


def test_images_come_by_number_with_their_captions_in_order(coco: tuple[Path, Path]) -> None:
    images, path = coco
    source = CocoSource(images, path, 5)
    assert (source.classes, source.total, source.units, source.has_moments) == ([], COUNT, 3, False)
    assert source.captions == sum(len(captions_of(index)) for index in range(COUNT)) == 69
    units = [list(source.items(unit)) for unit in range(3)]
    assert [len(items) for items in units] == [5, 5, 2]
    for index, item in enumerate(item for items in units for item in items):
        assert (item.id, item.captions, item.moments) == (name_of(index), tuple(captions_of(index)), None)
        with Image.open(images / name_of(index)) as image:
            assert np.array_equal(np.asarray(item.load()), np.asarray(image))
    assert source.description == f"{images.resolve()} with {path.resolve()}"


def test_images_without_captions_are_left_out_and_counted(coco: tuple[Path, Path], tmp_path: Path) -> None:
    whole = annotations(COUNT)
    bare = {number_of(3), number_of(7)}
    kept = [entry for entry in whole["annotations"] if entry["image_id"] not in bare]
    blank = {"id": 7, "image_id": number_of(7), "caption": " \n "}
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(whole | {"annotations": [*kept, blank]}))
    source = CocoSource(coco[0], path, 100)
    assert source.without_captions == 2 and source.total == COUNT - 2
    assert [item.id for item in source.items(0)] == [name_of(index) for index in range(COUNT) if index not in (3, 7)]


def test_captions_are_cleaned(tmp_path: Path) -> None:
    entries = [{"id": number, "image_id": number_of(number), "caption": "a  cup\n of coffee "} for number in range(2)]
    images, _ = read_annotations(written(tmp_path, annotations=entries))
    assert [one.captions for one in images] == [("a cup of coffee",)] * 2
    entries[1]["caption"] = "a cup \x07 of coffee"
    assert refused(written(tmp_path, annotations=entries)).startswith(f"{tmp_path / 'captions.json'}: annotation 1: ")


def test_a_copy_and_a_second_reading_give_the_same(coco: tuple[Path, Path]) -> None:
    first = CocoSource(*coco, 5, limit=7)
    for other in (pickle.loads(pickle.dumps(first)), CocoSource(*coco, 5, limit=7)):
        assert (other.fingerprint, other.units, other.total) == (first.fingerprint, 2, 7)
        assert [(item.id, item.captions) for item in other.items(1)] == [
            (item.id, item.captions) for item in first.items(1)
        ]
    assert pickle.loads(pickle.dumps(next(first.items(0)))).load().mode == "RGB"


def test_the_fingerprint_follows_numbers_names_and_captions(coco: tuple[Path, Path], tmp_path: Path) -> None:
    """And nothing else: neither the order in the file nor the size of shards."""

    def fingerprint(change: Any) -> str:
        whole = annotations(COUNT)
        change(whole)
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(whole))
        return CocoSource(coco[0], path, 4).fingerprint

    def renumber(whole: Any) -> None:
        for entry in (*whole["images"], *whole["annotations"]):
            key = "id" if "file_name" in entry else "image_id"
            entry[key] = 1 if entry[key] == number_of(0) else entry[key]

    same = fingerprint(lambda whole: (whole["images"].reverse(), whole["annotations"].reverse()))
    assert same == fingerprint(lambda whole: None) == CocoSource(*coco, 5).fingerprint
    others = [
        fingerprint(lambda whole: whole["annotations"][4].update(caption="other")),
        fingerprint(lambda whole: whole["annotations"].pop()),
        fingerprint(lambda whole: whole["images"][4].update(file_name="other.jpg")),
        fingerprint(renumber),
        CocoSource(*coco, 5, limit=11).fingerprint,
    ]
    assert len({same, *others}) == 6


@pytest.mark.parametrize("limit", [1, 5, 12])
def test_a_subset_is_chosen_by_digest(coco: tuple[Path, Path], tmp_path: Path, limit: int) -> None:
    """Smaller ones lie within larger ones, and the order of the file does not matter."""

    def digest(index: int) -> str:
        return hashlib.sha256(f"hastezoo coco subset {number_of(index)}".encode()).hexdigest()

    chosen = sorted(sorted(range(COUNT), key=digest)[:limit])
    whole = annotations(COUNT)
    whole["images"].reverse()
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(whole))
    source = CocoSource(coco[0], path, 100, limit)
    assert [item.id for item in source.items(0)] == [name_of(index) for index in chosen]
    assert source.description.endswith(f"captions.json, {limit} of 12 images") and source.total == limit


def test_a_subset_stays_what_it_is() -> None:
    """Of COCO's first hundred numbers, say."""
    ranked = sorted(range(100), key=lambda number: hashlib.sha256(f"hastezoo coco subset {number}".encode()).digest())
    assert ranked[:6] == [56, 48, 35, 17, 94, 54]


def test_frozen_pairs_stay_what_they_are() -> None:
    """An evaluation that drew other pairs could not be held against earlier ones."""
    assert frozen_pairs({number: 5 + number % 3 for number in range(100)}, 8) == [
        (42, 1), (41, 1), (56, 0), (90, 2), (2, 4), (81, 2), (36, 3), (92, 5),
    ]  # fmt: skip


def test_frozen_pairs_follow_their_rule() -> None:
    counts = {int(number): int(own) for number, own in zip(range(0, 3000, 3), range(1000), strict=True)}
    counts = {number: 5 + own % 3 for number, own in counts.items()}
    pairs = frozen_pairs(counts, 600)
    hashes = {number: hashlib.sha256(f"hastezoo coco {number}".encode()).hexdigest() for number in counts}
    assert [number for number, _ in pairs] == sorted(counts, key=hashes.__getitem__)[:600]
    assert all(place == int(hashes[number][32:48], 16) % counts[number] for number, place in pairs)
    assert frozen_pairs(dict(sorted(counts.items(), reverse=True)), 600) == pairs == frozen_pairs(counts, 1000)[:600]
    fives = [place for number, place in frozen_pairs(counts, 1000) if counts[number] == 5]
    assert min(np.bincount(fives)) > 40  # of 334, each of five places


def test_frozen_pairs_that_cannot_be() -> None:
    assert frozen_pairs({3: 1}, 1) == [(3, 0)]
    with pytest.raises(ValueError, match="3 pairs are wanted of 2 images"):
        frozen_pairs({1: 5, 2: 5}, 3)
    with pytest.raises(ValueError, match="the image 2 has no caption"):
        frozen_pairs({1: 5, 2: 0}, 1)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("COCO_val2014_000000000042.jpg", 42),
        ("000000581929.jpg", 581929),
        ("val2017/000000000139.jpg", 139),
        ("7", 7),
        ("2014/cat.jpg", None),
        ("42_cat.png", None),
        ("", None),
    ],
)
def test_the_number_in_a_name(name: str, number: int | None) -> None:
    assert image_id_of(name) == number


def test_no_such_file_and_no_such_folder(coco: tuple[Path, Path], tmp_path: Path) -> None:
    assert refused(tmp_path / "none.json") == (
        f"there is no file {tmp_path / 'none.json'}; it would hold captions in COCO's format"
    )
    assert refused(tmp_path).startswith(f"{tmp_path} cannot be read: ")
    with pytest.raises(UserError, match=r"there is no folder .*nowhere$"):
        CocoSource(tmp_path / "nowhere", coco[1], 5)


@pytest.mark.parametrize("text", ["", "{", '{"images": [', "\xff", "[" * 100_000])
def test_what_is_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text, encoding="latin-1")
    assert refused(path).startswith(f"{path} is not JSON: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "is not in COCO's format: it has no list 'images'"),
        ({"annotations": {}}, "is not in COCO's format: it has no list 'annotations'"),
        ({"annotations": []}, "has no captions; give COCO's captions_*.json, not its instances or keypoints"),
        ({"images": [3]}, "is not in COCO's format: one of its images has no 'id' that is a number: 3"),
        ({"images": [{"id": True, "file_name": "x"}]}, "has no 'id' that is a number: {"),
        ({"images": [{"id": 1}]}, "one of its images has no 'file_name' that is text: {"),
        (
            {"images": [{"id": 1, "file_name": "../x.jpg"}]},
            "has an image of the file name '../x.jpg', which is none in",
        ),
        ({"images": [{"id": 1, "file_name": "/x.jpg"}]}, "has an image of the file name '/x.jpg', which is none in"),
        ({"images": [{"id": 1, "file_name": "a\nb"}]}, r"has an image of the file name 'a\nb', which is none in"),
        ({"images": [{"id": 1, "file_name": ""}]}, "has an image of the file name '', which is none in"),
        ({"images": [{"id": 1, "file_name": "x"}] * 2}, "has two images of the id 1"),
        (
            {"images": [{"id": 1, "file_name": "x"}, {"id": 2, "file_name": "x"}]},
            "has two images of the file name 'x'",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 77, "caption": "x"}]},
            "has a caption of the image 77, which it does not list (annotation 5)",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 9, "caption": "x"}] * 2},
            "has two annotations of the id 5",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 9, "category_id": 3}]},
            "one of its annotations has no 'caption' that is text: {",
        ),
        ({"annotations": [{"id": 5, "caption": "x"}]}, "one of its annotations has no 'image_id' that is a number: {"),
    ],
)
def test_what_is_not_in_the_format(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refused(written(tmp_path, **changes))


def test_a_folder_of_other_images(coco: tuple[Path, Path], tmp_path: Path) -> None:
    images, path = coco
    with pytest.raises(UserError) as error:
        CocoSource(tmp_path, path, 5)
    assert one_line(error) == (
        f"{tmp_path} has none of the first 10 images of {path}, such as {name_of(0)}; give the folder that they lie in"
    )
    (tmp_path / name_of(9)).symlink_to(images / name_of(9))
    assert CocoSource(tmp_path, path, 5).total == COUNT


def test_a_limit_beyond_the_images(coco: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"has 12 images with captions, fewer than --limit 13$"):
        CocoSource(*coco, 5, limit=13)
