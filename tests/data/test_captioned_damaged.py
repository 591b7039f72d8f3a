"""Captioned images of which something is damaged: one line says it, with the file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hastezoo.data.captioned import VARIANTS, finite
from hastezoo.data.prepared import Prepared
from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from tests.data.coco_making import COUNT, TOTAL, WIDTH, captions_of, name_of, states_of
from tests.data.comparing import one_line
from tests.data.test_prepared import damage, refused


@pytest.fixture
def copy(captioned: Path, tmp_path: Path) -> Path:
    """To damage."""
    return Path(shutil.copytree(captioned, tmp_path / "copy"))


@pytest.mark.parametrize("change", [-2, 2, -2 * 77 * WIDTH, 2 * 77 * WIDTH])
def test_states_of_another_size(copy: Path, change: int) -> None:
    """Also by a whole caption: its neighbours would answer for it."""
    path = damage(
        copy, lambda row: {**row, "states": row["states"][:change] if change < 0 else row["states"] + bytes(change)}, 7
    )
    samples, size = Prepared(copy), 2 * 77 * WIDTH
    samples.__getitems__([0, 6])
    reason = rf"is damaged \(sample {name_of(7)}: its states are {7 * size + change:,} bytes, not 7 x {size:,}\)"
    refused(path, reason, lambda: samples.__getitems__([0, 7]))
    refused(path, reason, lambda: samples.caption_states(7, 1))


def test_states_that_are_missing(copy: Path) -> None:
    path = damage(copy, lambda row: {**row, "states": None}, 3)
    reason = rf"is damaged \(sample {name_of(3)}: its states are no bytes, not 7 x {2 * 77 * WIDTH:,}\)"
    refused(path, reason, lambda: Prepared(copy).__getitems__([3]))


def test_states_that_are_not_finite_in_the_file(copy: Path) -> None:
    """Of the caption that is drawn; of another nothing is known."""

    def spoil(row: dict[str, Any]) -> dict[str, Any]:
        every = states_of(row).copy()
        every[2, 76, 31] = np.inf
        return {**row, "states": every.tobytes()}

    path = damage(copy, spoil, 4)
    samples = Prepared(copy)
    samples.__getitems__([4, 4 + COUNT * (VARIANTS // 5)])
    turn = VARIANTS // 2
    reason = rf"is damaged \(sample {name_of(4)}: states that are not finite\)"
    refused(path, reason, lambda: samples.__getitems__([1, 4 + COUNT * turn]))
    refused(path, reason, lambda: samples.caption_states(4, 2))


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_what_is_finite(value: float) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    good = every[np.isfinite(every)]
    assert len(good) == (1 << 16) - (1 << 11) and finite(good) and finite(good[:1])
    assert not finite(np.append(good, np.float16(value))) and not finite(np.full(3, value, np.float16))
    assert not any(finite(one) for one in np.split(every[~np.isfinite(every)], 1 << 11))


@pytest.mark.parametrize("captions", [None, [], ["one"]])
def test_captions_that_are_missing(copy: Path, captions: Any) -> None:
    damage(copy, lambda row: {**row, "captions": captions}, 8)
    left = TOTAL - 5 + len(captions or [])
    with pytest.raises(UserError) as error:
        Prepared(copy)
    assert one_line(error) == (
        f"{copy} is damaged (it has {left} captions of 12 images, and its manifest says 69): copy it again, or prepare "
        "it anew"
    )


def test_a_caption_that_is_missing(copy: Path) -> None:
    path = damage(copy, lambda row: {**row, "captions": [*row["captions"][:4], None]}, 9)
    samples = Prepared(copy)
    assert samples.captions(8) == captions_of(8)
    refused(path, rf"is damaged \(sample {name_of(9)}: a caption is missing\)", lambda: samples.captions(9))


def broken_empty(path: Path, state: str) -> None:
    if state == "missing":
        path.unlink()
    elif state == "changed":
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        save_file({"states": torch.zeros(77, 16, dtype=torch.float16)}, str(path))
        record = json.loads((path.parent / "manifest.json").read_text())
        record["text"]["empty"]["sha256"] = sha256_of(path)
        (path.parent / "manifest.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("missing", "with the empty caption's states is missing"),
        ("changed", r"with the empty caption's states is damaged \(its sha256 is another\)"),
        ("another shape", r"does not hold the states \(77, 32\) of a caption"),
    ],
)
def test_the_empty_captions_file(copy: Path, state: str, message: str) -> None:
    path = copy / "empty.safetensors"
    broken_empty(path, state)
    with pytest.raises(UserError) as error:
        Prepared(copy)
    pattern = rf"the file {re.escape(str(path))} {message}: copy it again, or prepare the data set anew"
    assert re.fullmatch(pattern, one_line(error))


def test_shards_of_captions_in_a_data_set_of_classes(copy: Path) -> None:
    record = json.loads((copy / "manifest.json").read_text())
    del record["text"]
    (copy / "manifest.json").write_text(json.dumps(record | {"classes": ["a"], "counts": [12]}))
    with pytest.raises(UserError, match=r"is damaged \(its columns or classes are others\)"):
        Prepared(copy)
