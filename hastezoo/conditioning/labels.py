"""Class names -> labels, and labels drawn from a seed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hastezoo.errors import UserError, nearest
from hastezoo.home import home

CLASSES = Path(__file__).parent / "classes"
IMAGENET = "imagenet"
CANDIDATES = 8  # shown where a name is ambiguous


@dataclass(frozen=True)
class ClassList:
    """The classes of a model, in the order of their labels.

    Attributes:
        synonyms: Of each class, the first being its name.
        ids: Identifiers such as WordNet's n02099601, or nothing.
        definitions: A line of explanation each, or nothing.
    """

    synonyms: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.synonyms)

    def __getitem__(self, label: int) -> str:
        return self.synonyms[label][0]

    def __iter__(self) -> Iterator[str]:
        return (names[0] for names in self.synonyms)

    def describe(self, label: int) -> str:
        """`207 golden retriever (n02099601)`."""
        return f"{label} {self[label]}" + (f" ({self.ids[label]})" if self.ids else "")

    def search(self, text: str) -> list[int]:
        """Labels in whose synonyms, identifier or definition a text stands, in any case; those named by it first."""
        wanted = text.strip().lower()
        named = [label for label in range(len(self)) if wanted in ", ".join(self.synonyms[label]).lower()]
        other = [
            label
            for label in range(len(self))
            if (self.ids and wanted in self.ids[label])
            or (self.definitions and wanted in self.definitions[label].lower())
        ]
        return named + [label for label in other if label not in named]


def class_names(listing: str) -> ClassList:
    """The classes by the name of their list: `imagenet`, a file in `classes/` such as `digits`, or one of the user's.

    The user's are `HASTEZOO_HOME/classes/NAME.json`, a JSON list of names in the order of their labels. The package's
    lists come first, and the user's are read anew each time: they may change, and so may the home.

    Raises:
        UserError: If there is no such list, or the user's is no list of names.
    """
    if listing in package_lists():
        return _package_list(listing)
    own = {path.stem: path for path in sorted((home() / "classes").glob("*.json"))}
    if listing not in own:
        raise UserError(f"unknown list of classes {listing!r}: one of {', '.join([*package_lists(), *own])}")
    return ClassList(tuple((name,) for name in _read_names(own[listing])))


def package_lists() -> list[str]:
    """Names of the lists that ship with the package; none of the user's can have one of them."""
    return [*sorted(path.stem for path in CLASSES.glob("*.json")), IMAGENET]


@functools.cache
def _package_list(listing: str) -> ClassList:
    if listing == IMAGENET:
        return _imagenet()
    return ClassList(tuple((name,) for name in _read_names(CLASSES / f"{listing}.json")))


def _read_names(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the list of classes {path} cannot be read: {error}") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"the list of classes {path} is no JSON list of names, one for each label")
    return names


def _imagenet() -> ClassList:
    """ImageNet's 1000 classes from timm's ImageNetInfo: WordNet ids, lemmas and definitions."""
    info = _imagenet_info()()
    ids = tuple(info.label_names())
    lemmas = [info.label_name_to_description(one) for one in ids]
    detailed = (info.label_name_to_description(one, detailed=True) for one in ids)
    definitions = tuple(text.removeprefix(f"{lemma}: ") for text, lemma in zip(detailed, lemmas, strict=True))
    return ClassList(tuple(tuple(name.strip() for name in lemma.split(",")) for lemma in lemmas), ids, definitions)


def _imagenet_info() -> Any:
    """timm's class without importing timm, which loads torch and torchvision and takes four seconds for nothing."""
    name = "hastezoo._timm_data"
    try:
        found = importlib.util.find_spec("timm")
        if found is None or not found.submodule_search_locations:
            raise ImportError("timm is not installed")
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder) / "data") for folder in found.submodule_search_locations]
        sys.modules[name] = package
        return importlib.import_module(f"{name}.imagenet_info").ImageNetInfo
    except (ImportError, AttributeError):  # timm has been rearranged: the front door, then
        sys.modules.pop(name, None)
    try:
        return importlib.import_module("timm.data").ImageNetInfo
    except ImportError:
        raise UserError("ImageNet's class names come with timm, which is not installed: pip install timm") from None


def find_label(asked: int | str, names: ClassList) -> int:
    """The label of a class given by number, by name (any synonym, in any case) or by identifier.

    Raises:
        UserError: If the number is out of range, the name unknown or shared by several classes; it says what there is.
    """
    text = str(asked).strip()
    if text.lstrip("+-").isdecimal():
        label = int(text)
        if 0 <= label < len(names):
            return label
        raise UserError(f"class {label} is out of range: the model has {len(names)} classes, 0 to {len(names) - 1}")
    wanted = text.lower()
    if wanted in names.ids:
        return names.ids.index(wanted)
    found = [label for label in range(len(names)) if wanted in (name.lower() for name in names.synonyms[label])]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"class {text!r} is ambiguous; say which by number: {_listed(names, found)}")
    partial = [label for label in range(len(names)) if wanted and wanted in ", ".join(names.synonyms[label]).lower()]
    if partial:
        raise UserError(f"no class is named {text!r}; say which by number: {_listed(names, partial)}")
    known = {name.lower(): name for synonyms in names.synonyms for name in synonyms}
    near = [known[name] for name in nearest(text, known)] or list(names)[:3]
    raise UserError(f"unknown class {text!r}; nearest: {', '.join(near)}")


def _listed(names: ClassList, labels: list[int]) -> str:
    shown = ", ".join(names.describe(label) for label in labels[:CANDIDATES])
    return shown + (f" and {len(labels) - CANDIDATES} more (`hastezoo classes`)" if len(labels) > CANDIDATES else "")


def label_of_seed(seed: int, num_classes: int) -> int:
    """A label drawn uniformly from a seed alone, apart from the seed's noise; the same on every machine for ever."""
    digest = hashlib.sha256(f"hastezoo label {seed}".encode()).digest()
    return int.from_bytes(digest[:16], "big") % num_classes
