"""Images of a data set on the Hugging Face Hub, streamed by the `datasets` library: `hf:owner/repo[@revision][:split]`.

The commit that a revision names is looked up once and everything is read from that commit, so that a preparation that
is resumed, and the processes that share one, see the same list. Only data files are read; `datasets` runs no scripts.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image

from hastezoo.data.images import to_rgb
from hastezoo.data.source import HUB, Item
from hastezoo.errors import UserError
from hastezoo.hub import Place, Unreachable, explained

if TYPE_CHECKING:
    import datasets

LABEL_NAMES = ("label", "labels", "cls", "class")
FOLDER = "datasets/"  # before the names of data sets in the Hub's addresses
_PLACE = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w./-]*))?(:(?P<split>\w+(\.\w+)*))?")


class _DataSet(Place):
    """A data set as the errors name it; `repo` begins with `datasets/`, as in its address, and `file` is the split."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB}{self.repo.removeprefix(FOLDER)}{revision}:{self.file}"


class HubImages:
    """The labelled images of a split of a data set on the Hub; a `Source`.

    Each data file is a unit, so that a preparation that is resumed reads again only files it has not finished; a
    repository of single images is one unit, since `datasets` cannot divide it. The stream is opened where it is first
    read: a copy made by pickling opens its own.

    Args:
        place: `owner/repo[@revision][:split]`; without a split, `train`.
        image_column: Of the images; None for the only one.
        label_column: Of the labels; None for the only one with names of classes.

    Raises:
        UserError: If the text is no place; there is no such data set or split, it is not to be had, or has several
            configurations; or no column, or several, hold the images or the labels.
    """

    has_moments = False

    def __init__(self, place: str, image_column: str | None = None, label_column: str | None = None) -> None:
        found = _PLACE.fullmatch(place)
        if not found or ".." in place.split("/"):
            raise UserError(f"{HUB}{place} is no data set on the Hub; write {HUB}owner/repo[@revision][:split]")
        self.repo, self.split = found["repo"], found["split"] or "train"
        self._place = _DataSet(f"{FOLDER}{self.repo}", found["revision"], self.split)
        self.commit = self._commit()
        self._opened: datasets.IterableDataset | None = None
        stream, self.total = self._open()
        features = stream.features or {}
        self.image_column = _image_column(self._place, features, image_column)
        self.label_column = _label_column(self._place, features, label_column)
        self.classes: list[str] = list(features[self.label_column].names)
        self.units: int = stream.num_shards
        self.description = f"{HUB}{self.repo}@{self.commit}:{self.split}"
        columns = f"{self.image_column}\0{self.label_column}"
        self.fingerprint = hashlib.sha256(f"{self.description}\0{columns}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def items(self, unit: int) -> Iterator[Item]:
        """The images of a unit, named by unit and row.

        Raises:
            UserError: If the Hub fails, a data file is broken, or a row has no label.
        """
        for row, example in enumerate(self._rows(unit)):
            name, label = f"{unit:05d}/{row:08d}", example[self.label_column]
            if label is None or label < 0:
                split = f"the split {self.split!r} has no labels, take another"
                raise UserError(f"{self._place}: the label of image {name} is {label}; {split}")
            yield Item(name, label, functools.partial(_decode, example[self.image_column], self._files))

    @property
    def _files(self) -> str:
        return f"hf://{FOLDER}{self.repo}@{self.commit}/"

    def _rows(self, unit: int) -> Iterator[dict[str, Any]]:
        try:
            # Not decoded by `datasets`, where one broken image would end the stream. Said first: newer versions decode
            # folders of images ahead in threads, and what is selected from such a stream is decoded for good.
            stream = self._stream().decode(False).select_columns([self.image_column, self.label_column])
            yield from stream.shard(num_shards=self.units, index=unit)
        except Exception as error:
            raise _explained(error, self._place) from None

    def _stream(self) -> datasets.IterableDataset:
        if self._opened is None:
            self._open()
        assert self._opened is not None
        return self._opened

    def _open(self) -> tuple[datasets.IterableDataset, int | None]:
        """The stream, with features, and the number of images where the data set's card states it."""
        from datasets import load_dataset_builder

        try:
            # Where the Hub refuses, `datasets` falls back to its cache, whatever commit and units that holds: hence an
            # empty one. Named by its address, a folder `owner/repo` that happens to lie here is not taken for it.
            with tempfile.TemporaryDirectory() as empty:
                address = f"hf://{FOLDER}{self.repo}"
                builder = load_dataset_builder(address, revision=self.commit, cache_dir=empty)
            stream = builder.as_streaming_dataset(split=self.split)
        except Exception as error:
            raise _explained(error, self._place) from None
        self._opened = stream
        info = (builder.info.splits or {}).get(self.split)
        return stream, (info.num_examples or None) if info else None

    def _commit(self) -> str:
        from huggingface_hub import HfApi

        try:
            info = HfApi(library_name="hastezoo").dataset_info(self.repo, revision=self._place.revision)
        except Exception as error:
            raise _explained(error, self._place) from None
        assert info.sha
        return info.sha


def _explained(error: Exception, place: _DataSet) -> UserError:
    """What `datasets` and the Hub's client raise, as one line."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    text = str(error)
    if isinstance(error, UserError):
        return error
    if isinstance(error, DatasetNotFoundError) and "gated" in text:  # `datasets` hands on the sentence, not the cause
        page = f"https://huggingface.co/{place.repo}"
        return UserError(f"{place}: the repository is gated; accept its terms at {page}, then `hf auth login`")
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(f"{place}: the images are streamed, and offline mode is on (HF_HUB_OFFLINE)")
    if isinstance(error, (ConnectionError, LocalEntryNotFoundError)) or _of_transport(error):
        detail = (text.strip().splitlines() or [type(error).__name__])[0]
        return Unreachable(f"{place}: the Hub cannot be reached ({detail})")
    if text.startswith("Config name is missing"):
        return UserError(f"{place}: the data set has several configurations; only one with a single one can be used")
    return explained(error, place)


def _of_transport(error: Exception) -> bool:
    """Whether it is httpx's error of a connection: newer clients of the Hub have it from httpx2, so that none can be
    imported for sure."""
    return any(base.__name__ == "TransportError" for base in type(error).__mro__)


def _image_column(place: Place, features: Mapping[str, Any], name: str | None) -> str:
    """The column of images: the one named, or the only one there is."""
    from datasets import Image as ImageFeature

    found = [column for column, feature in features.items() if isinstance(feature, ImageFeature)]
    if name is not None:
        if name not in found:
            raise UserError(f"{place}: --image-column {name}: no such column of images; {_shown(features)}")
        return name
    if len(found) != 1:
        what = f"several columns hold images ({', '.join(found)})" if found else "no column holds images"
        raise UserError(f"{place}: {what}; name one with --image-column; {_shown(features)}")
    return found[0]


def _label_column(place: Place, features: Mapping[str, Any], name: str | None) -> str:
    """The column of labels with names: the one named, or the only one there is."""
    from datasets import ClassLabel

    found = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    if name is not None and name not in features:
        raise UserError(f"{place}: --label-column {name}: no such column; {_shown(features)}")
    if len(found) > 1 and name is None:
        raise UserError(f"{place}: several columns hold labels ({', '.join(found)}); name one with --label-column")
    whole = [column for column in LABEL_NAMES if "int" in str(getattr(features.get(column), "dtype", ""))]
    candidates = [name] if name is not None else found or whole
    if not candidates:
        raise UserError(f"{place}: no column holds labels; name one with --label-column; {_shown(features)}")
    column = candidates[0]
    if column not in found:
        raise UserError(
            f"{place}: the labels in column {column} have no names (they are no ClassLabel), so it is unknown which "
            "class each means; the data set cannot be used so"
        )
    return column


def _shown(features: Mapping[str, Any]) -> str:
    return "the columns are " + ", ".join(features) if features else "it has no columns"


def _decode(stored: Mapping[str, Any], files: str) -> Image.Image:
    """An image as `datasets` leaves it undecoded: its bytes, or the path of a file, which must be one of `files`."""
    data = stored["bytes"]
    if data is None:
        from datasets.utils.file_utils import xopen

        path = str(stored["path"])
        # The path may be whatever the data set says: only the data set's own files are opened, none of this machine's.
        if not path.startswith(files) or "::" in path:  # of chained addresses the first may be a local one
            raise ValueError(f"the image is neither in the data file nor in the data set: {path}")
        with xopen(path, "rb") as stream:
            data = stream.read()
    with Image.open(io.BytesIO(data)) as image:
        return to_rgb(image)
