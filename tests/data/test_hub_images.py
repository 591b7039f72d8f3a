"""The real `datasets` library against a Hub on this machine: what is read, and what goes wrong in one line."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hastezoo.data.hub_images import HubImages
from hastezoo.data.source import Item, open_source
from hastezoo.errors import UserError
from hastezoo.hub import Unreachable
from tests import local_hub
from tests.local_hub import COMMIT, LocalHub

REPO = "someone/digits"
KEY = f"datasets/{REPO}"
DIGITS = load_digits()
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def pixels(index: int) -> np.ndarray:
    return (DIGITS.images[index] * 15).astype(np.uint8)


def png(index: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(index)).save(stream, "PNG")
    return stream.getvalue()


def parquet(columns: dict[str, list[Any]], kinds: dict[str, Any] | None = None) -> bytes:
    """A file as `push_to_hub` writes it, with the columns' kinds in its schema."""
    import datasets
    import pyarrow.parquet

    kinds = kinds or {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds)).data.table
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def rows(indices: range, **changed: list[Any]) -> dict[str, list[Any]]:
    images = [{"bytes": png(index), "path": None} for index in indices]
    return {"image": images, "label": DIGITS.target[indices].tolist(), **changed}


@pytest.fixture
def hub(local_datasets: LocalHub) -> LocalHub:
    """Seven digits in two files: four and three."""
    local_datasets.files[KEY, "data/train-00000-of-00002.parquet"] = parquet(rows(range(4)))
    local_datasets.files[KEY, "data/train-00001-of-00002.parquet"] = parquet(rows(range(4, 7)))
    return local_datasets


def only(hub: LocalHub, columns: dict[str, list[Any]], kinds: dict[str, Any] | None = None) -> None:
    """Put a single file in place of the two."""
    from huggingface_hub import HfFileSystem

    HfFileSystem.clear_instance_cache()  # it takes it that the files of a commit stay as they are
    hub.files.clear()
    hub.files[KEY, "data/train-00000-of-00001.parquet"] = parquet(columns, kinds)


def everything(source: HubImages) -> list[Item]:
    return [item for unit in range(source.units) for item in source.items(unit)]


def refusal(place: str = REPO, **options: Any) -> UserError:
    """The error of opening and reading, in one line that begins with the place."""
    with pytest.raises(UserError) as caught:
        everything(HubImages(place, **options))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"hf:{place}")
    return caught.value


def test_each_file_is_a_unit(hub: LocalHub) -> None:
    source = HubImages(REPO)
    assert (source.units, source.total, source.has_moments, source.classes) == (2, None, False, NAMES)
    assert source.description == f"hf:{REPO}@{COMMIT}:train"
    items = [list(source.items(unit)) for unit in range(2)]
    assert [item.id for item in items[0]] == [f"00000/{row:08d}" for row in range(4)]
    assert [item.id for item in items[1]] == [f"00001/{row:08d}" for row in range(3)]
    for index, item in enumerate(items[0] + items[1]):
        image = item.load()
        assert item.label == DIGITS.target[index] and image.mode == "RGB" and item.moments is None
        assert np.array_equal(np.asarray(image)[..., 2], pixels(index))


def test_a_copy_reads_the_same_and_only_the_file_it_needs(hub: LocalHub) -> None:
    source = HubImages(REPO)
    expected = [(item.id, item.label) for item in source.items(1)]
    packed = pickle.dumps(source)
    copy = pickle.loads(packed)
    assert len(packed) < 1000, "the open stream went with it"
    for other in (copy, HubImages(REPO)):
        assert (other.fingerprint, other.classes, other.units) == (source.fingerprint, NAMES, 2)
        assert [(item.id, item.label) for item in other.items(1)] == expected
    before = len(hub.requests)
    assert [(item.id, item.label) for item in copy.items(1)] == expected
    assert all("train-00001" in request or "/cdn/" in request for request in hub.requests[before:])
    assert hub.requests[before:], "nothing was asked, so nothing was tested"
    assert pickle.loads(pickle.dumps(next(source.items(0)))).load().size == (8, 8)


def test_everything_is_read_from_the_commit_that_was_found(hub: LocalHub) -> None:
    everything(HubImages(f"{REPO}@main"))
    files = [request for request in hub.requests if "/resolve/" in request or "/tree/" in request]
    assert files and all(COMMIT in request for request in files)


def test_fingerprints_differ_with_what_is_read(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files[KEY, "data/test-00000-of-00001.parquet"] = parquet(rows(range(7, 9)))
    train, test = HubImages(REPO), HubImages(f"{REPO}:test")
    assert [item.label for item in everything(test)] == DIGITS.target[7:9].tolist()
    monkeypatch.setattr(local_hub, "COMMIT", "f" * 40)
    assert len({train.fingerprint, test.fingerprint, HubImages(REPO).fingerprint}) == 3


def test_the_card_gives_the_total(hub: LocalHub) -> None:
    card = "dataset_info:\n  splits:\n  - name: train\n    num_bytes: 1\n    num_examples: 7\n"
    hub.files[KEY, "README.md"] = f"---\n{card}---\n".encode()
    assert HubImages(REPO).total == 7


def test_a_broken_image_fails_alone_and_when_it_is_read(hub: LocalHub) -> None:
    columns = rows(range(3))
    columns["image"][1] = {"bytes": png(1)[:70], "path": None}
    only(hub, columns)
    items = everything(HubImages(REPO))
    assert len(items) == 3 and items[0].load().size == items[2].load().size == (8, 8)
    with pytest.raises(OSError):
        items[1].load()


def test_no_file_of_this_machine_is_read(hub: LocalHub, tmp_path: Path) -> None:
    """A row may hold a path instead of bytes: `datasets` would open whatever it names."""
    (tmp_path / "private.png").write_bytes(png(0))
    own, private = f"hf://datasets/{REPO}@{COMMIT}/a.png", str(tmp_path / "private.png")
    paths = [private, f"file://{private}::{own}", f"{own}::file://{private}", own.replace("digits", "others")]
    only(hub, rows(range(4), image=[{"bytes": None, "path": path} for path in paths]))
    for item in everything(HubImages(REPO)):
        with pytest.raises(ValueError, match="neither in the data file nor in the data set"):
            item.load()


def test_single_images_are_one_unit(hub: LocalHub) -> None:
    """The stream holds their paths, not their bytes."""
    hub.files.clear()
    for index in range(7):
        hub.files[KEY, f"train/{NAMES[DIGITS.target[index]]}/{index}.png"] = png(index)
    source = HubImages(REPO)
    assert source.units == 1 and source.classes == sorted(NAMES[:7])
    items = everything(source)
    found = {(source.classes[item.label], np.asarray(item.load())[..., 0].tobytes()) for item in items}
    assert found == {(NAMES[DIGITS.target[index]], pixels(index).tobytes()) for index in range(7)}
    assert len({item.id for item in items}) == 7


def test_columns_of_images(hub: LocalHub) -> None:
    import datasets

    image, names = datasets.Image(), datasets.ClassLabel(names=NAMES)
    columns = rows(range(2))
    images = columns.pop("image")
    only(hub, {**columns, "small": images[::-1], "big": images}, {"label": names, "small": image, "big": image})
    message = str(refusal())
    assert "several columns hold images (small, big); name one with --image-column" in message
    assert "no such column of images; the columns are label, small, big" in str(refusal(image_column="label"))
    item = everything(HubImages(REPO, image_column="big"))[0]
    assert np.array_equal(np.asarray(item.load())[..., 0], pixels(0))
    only(hub, {"label": [0, 1]}, {"label": names})
    assert "no column holds images; name one with --image-column; the columns are label" in str(refusal())


def test_columns_of_labels(hub: LocalHub) -> None:
    import datasets

    image, names, number = datasets.Image(), datasets.ClassLabel(names=NAMES), datasets.Value("int64")
    images = rows(range(2))["image"]
    only(hub, {"image": images, "cls": [3, 4]}, {"image": image, "cls": number})
    assert "the labels in column cls have no names (they are no ClassLabel)" in str(refusal())
    assert "the labels in column cls have no names" in str(refusal(label_column="cls"))
    only(hub, {"image": images, "count": [3, 4]}, {"image": image, "count": number})
    assert "no column holds labels; name one with --label-column; the columns are image, count" in str(refusal())
    only(hub, {"image": images, "coarse": [0, 1], "fine": [5, 6]}, {"image": image, "coarse": names, "fine": names})
    assert "several columns hold labels (coarse, fine); name one with --label-column" in str(refusal())
    assert "--label-column x: no such column" in str(refusal(label_column="x"))
    assert [item.label for item in everything(HubImages(REPO, label_column="fine"))] == [5, 6]
    only(hub, {"image": images, "label": [0, 1], "kind": [5, 6]}, {"image": image, "label": number, "kind": names})
    assert [item.label for item in everything(HubImages(REPO))] == [5, 6]


@pytest.mark.parametrize("label", [-1, None])
def test_a_split_without_labels(hub: LocalHub, label: int | None) -> None:
    only(hub, rows(range(2), label=[label, label]))
    message = f"the label of image 00000/00000000 is {label}; the split 'train' has no labels"
    assert message in str(refusal(f"{REPO}:train"))


def test_what_is_not_there(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no such repository, or it is private" in str(refusal("no/body"))
    assert "there is no revision 'v2'" in str(refusal(f"{REPO}@v2"))
    assert "Bad split: test. Available splits: ['train']" in str(refusal(f"{REPO}:test"))
    hub.files["datasets/some/text", "notes.bin"] = b"nothing to read"
    assert "data files" in str(refusal("some/text"))
    hub.files["datasets/some/broken", "train.parquet"] = b"PAR1 not so"
    assert "arquet" in str(refusal("some/broken"))


def test_gated(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.faults.gated = True
    assert f"gated; accept its terms at https://huggingface.co/datasets/{REPO}, then `hf auth login`" in str(refusal())
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert len(everything(HubImages(REPO))) == 7


def test_a_cached_copy_is_not_taken_for_what_is_gated(hub: LocalHub) -> None:
    """`datasets` falls back to what it once downloaded: of whichever commit, and in other units."""
    import datasets

    datasets.load_dataset(REPO, split="train")
    hub.faults.gated = True
    assert "gated; accept its terms" in str(refusal())


def test_offline_and_unreachable(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    source = HubImages(REPO)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        error = refusal()
        assert isinstance(error, Unreachable) and "offline mode is on" in str(error)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
        error = refusal()
        assert isinstance(error, Unreachable) and "the Hub cannot be reached" in str(error)
    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 1)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.server.shutdown()
    hub.server.server_close()
    huggingface_hub.close_session()  # connections that are open are still served
    with pytest.raises(Unreachable, match=f"^hf:{REPO}:train: the Hub cannot be reached") as caught:
        list(source.items(1))
    assert "\n" not in str(caught.value)


def test_a_data_file_that_is_broken(hub: LocalHub) -> None:
    path = "data/train-00001-of-00002.parquet"
    hub.files[KEY, path] = hub.files[KEY, path][:200]
    source = HubImages(REPO)
    assert len(list(source.items(0))) == 4
    with pytest.raises(UserError, match=f"^hf:{REPO}:train: .*arquet"):
        list(source.items(1))


def test_several_configurations(hub: LocalHub) -> None:
    files = "".join(f"- config_name: part{n}\n  data_files: data/train-0000{n}*\n" for n in "01")
    hub.files[KEY, "README.md"] = f"---\nconfigs:\n{files}---\n".encode()
    assert "several configurations" in str(refusal())


def test_a_folder_of_the_same_name_is_not_read(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here" / REPO / "train" / "dog"
    os.makedirs(folder)
    (folder / "a.png").write_bytes(png(0))
    monkeypatch.chdir(tmp_path / "here")
    source = open_source(f"hf:{REPO}", shard_size=5)
    assert source.classes == NAMES and source.units == 2


@pytest.mark.parametrize(
    "place", ["", "a", "a/b/c", "../b", "a/..", "a/b@../x", "a/b@", "a/b:", "a/b:train[:10]", "a/b:a+b", "a/b@x:y:z"]
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(UserError, match="is no data set on the Hub; write hf:owner/repo"):
        HubImages(place)


def test_a_place_with_everything(hub: LocalHub) -> None:
    assert "there is no revision 'refs/pr/1'" in str(refusal(f"{REPO}@refs/pr/1:validation"))
