"""What tests of several recipes begin with."""

from __future__ import annotations

from typing import Any

import pytest

from hastezoo.recipes import emoji_contrast


@pytest.fixture(scope="module")
def small_vision(alone: None) -> Any:
    """Every ViT that is made without saying how large is tiny."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {"depth": 1, "embed_dim": 32, "num_heads": 2}.items():
            patch.setitem(emoji_contrast.VISION, key, value)
        yield
