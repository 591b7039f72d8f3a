"""Class names -> labels, and labels drawn from a seed."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from hastezoo.errors import UserError, nearest

CLASSES = Path(__file__).parent / "classes"


@functools.cache
def class_names(listing: str) -> tuple[str, ...]:
    """Names in the order of their labels.

    Args:
        listing: Name of a list in `classes/`, such as `digits`.

    Raises:
        UserError: If there is no such list.
    """
    path = CLASSES / f"{listing}.json"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in CLASSES.glob("*.json")))
        raise UserError(f"unknown list of classes {listing!r}: one of {known}")
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def find_label(asked: int | str, names: tuple[str, ...]) -> int:
    """The label of a class given by number or by name (in any case).

    Raises:
        UserError: If the number is out of range or the name unknown; it says what there is.
    """
    text = str(asked).strip()
    if text.lstrip("+-").isdecimal():
        label = int(text)
        if 0 <= label < len(names):
            return label
        raise UserError(f"class {label} is out of range: the model has {len(names)} classes, 0 to {len(names) - 1}")
    known = {name.lower(): label for label, name in enumerate(names)}
    if text.lower() in known:
        return known[text.lower()]
    near = nearest(text, known) or list(known)[:3]
    raise UserError(f"unknown class {text!r}; nearest: {', '.join(near)}")


def label_of_seed(seed: int, num_classes: int) -> int:
    """A label drawn uniformly from a seed alone, apart from the seed's noise; the same on every machine for ever."""
    digest = hashlib.sha256(f"hastezoo label {seed}".encode()).digest()
    return int.from_bytes(digest[:16], "big") % num_classes
