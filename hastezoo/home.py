"""Where the user's own things are: cards, imported weights, records of digests."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """The user's store: `HASTEZOO_HOME`, or the platform's cache folder."""
    return Path(
        os.environ.get("HASTEZOO_HOME") or platformdirs.user_cache_dir("hastezoo", appauthor=False)
    ).expanduser()
