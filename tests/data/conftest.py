"""Fixtures for the tests of data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local_hub import LocalHub


@pytest.fixture
def local_datasets(local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The local Hub, and the real `datasets` library talking to it: it took its settings when it was imported."""
    import datasets
    from huggingface_hub import HfFileSystem

    files = f"{local_hub.url}/datasets/{{repo_id}}/resolve/{{revision}}/{{path}}"
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", local_hub.url)
    monkeypatch.setattr(datasets.config, "HUB_DATASETS_URL", files)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # a request to another host
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "datasets" / "downloads")
    yield local_hub
    HfFileSystem.clear_instance_cache()  # it remembers listings; the next Hub may come by the same port
