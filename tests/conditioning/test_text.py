"""Text encoders by kind, and one that knows the states of its prompts already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hastezoo.conditioning.text import StoredText, TextEncoder, create_text_encoder
from hastezoo.errors import UserError


def test_kinds(tiny_clip: Path) -> None:
    found: TextEncoder = create_text_encoder("clip", source=tiny_clip, length=5, device="cpu")
    assert found.length == 5 and found.states(["a cat"]).shape == (1, 5, 32)
    with pytest.raises(ValueError, match="unknown text encoder 'bert': one of clip"):
        create_text_encoder("bert", source="x", length=77, device="cpu")


def test_stored_states() -> None:
    generator = torch.Generator().manual_seed(0)
    known = {name: torch.randn(3, 4, generator=generator).half() for name in ("", "a cat", "caf\u00e9")}
    stored: TextEncoder = StoredText(known, length=3, width=4, source="some/clip", sha256="ab")
    assert (stored.source, stored.sha256, stored.revision, stored.length, stored.width) == ("some/clip", "ab", "", 3, 4)
    found = stored.states(["a  cat", "", "cafe\u0301", "a cat"])
    assert torch.equal(found, torch.stack([known["a cat"], known[""], known["caf\u00e9"], known["a cat"]]))
    found.zero_()
    assert known["a cat"].abs().sum() > 0 and found.dtype == torch.float16
    with pytest.raises(
        UserError, match=r'prompt "a <U\+202E>bus" are not among those stored; the text encoder some/clip'
    ):
        stored.states(["a cat", "a \u202ebus"])


def test_stored_states_are_read_when_they_are_asked_for() -> None:
    asked = []

    class Reading(Mapping[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            asked.append(name)
            return torch.full((2, 2), float(len(name)))

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("nobody lists them")

        def __len__(self) -> int:
            raise AssertionError("nobody counts them")

    stored = StoredText(Reading(), length=2, width=2, source="", sha256="")
    assert asked == [] and stored.states(["abc"]).tolist() == [[[3.0, 3.0], [3.0, 3.0]]] and asked == ["abc"]
