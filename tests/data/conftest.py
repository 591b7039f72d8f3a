"""Fixtures for the tests of data sets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.making import Posterior, make, write_photographs
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


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of photographs in a folder a class."""
    return write_photographs(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def whole(images: Path, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared at one go, with mirrored moments."""
    dest = tmp_path_factory.mktemp("whole") / "below" / "dest"
    make(images, dest, tiny_vae, flip=True)
    return dest


@pytest.fixture(scope="session")
def posterior(tiny_vae: Path) -> Posterior:
    return Posterior(tiny_vae)


@pytest.fixture
def pictures(images: Path, tmp_path: Path) -> Path:
    """A copy of the images to spoil."""
    return Path(shutil.copytree(images, tmp_path / "pictures"))
