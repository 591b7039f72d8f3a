"""torch-fidelity's own file of weights: found where torch-fidelity keeps it, fetched from where it fetches it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as theirs

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors import inception as module
from hastezoo.evaluation.extractors.inception import FILE, SHA256, Inception, default_file
from hastezoo.zoo import download
from tests.evaluation.networks import hollow_inception, write_inception
from tests.local_hub import LocalHub


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_inception(tmp_path / "original.pth", hollow_inception()).read_bytes()


@pytest.fixture
def place(weights: bytes, local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file belongs; it is on the local server."""
    sha256 = hashlib.sha256(weights).hexdigest()
    local_hub.files["toshas/torch-fidelity", FILE] = weights
    monkeypatch.setattr(theirs, "URL_INCEPTION_V3", f"{local_hub.url}/cdn/{sha256}")
    monkeypatch.setattr(module, "SHA256", sha256)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / FILE


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir() if not path.name.startswith("."))


def refused(place: Path) -> str:
    with pytest.raises(UserError, match="--inception PATH") as caught:
        Inception.from_file(device="cpu")
    assert "\n" not in str(caught.value) and str(place) in str(caught.value)
    return str(caught.value)


def test_the_file_that_is_wanted_is_torch_fidelitys() -> None:
    assert theirs.URL_INCEPTION_V3.endswith(f"/{FILE}") and FILE.endswith(f"-{SHA256[:8]}.pth") and len(SHA256) == 64


def test_it_is_downloaded_once_to_where_torch_fidelity_looks(place: Path, weights: bytes, local_hub: LocalHub) -> None:
    told: list[tuple[int, int | None]] = []
    extractor = Inception.from_file(device="cpu", progress=lambda *both: told.append(both))
    assert place.read_bytes() == weights and left(place) == [FILE] and told[-1] == (len(weights), len(weights))
    assert extractor.identity["weights"] == "2015-12-05 of torch-fidelity"
    assert torch.hub.get_dir() == str(place.parent.parent)
    sent = local_hub.sent
    assert default_file() == place and local_hub.sent == sent


def test_a_file_that_is_there_needs_no_writable_folder(place: Path, weights: bytes, local_hub: LocalHub) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes(weights)
    assert default_file() == place
    assert [path.name for path in place.parent.iterdir()] == [FILE] and not local_hub.sent


def test_an_interrupted_download_goes_on(place: Path, weights: bytes, local_hub: LocalHub) -> None:
    local_hub.faults.cut = download.RETRIES
    assert "bytes are kept; the same command goes on" in refused(place)
    assert not place.exists()
    assert default_file().read_bytes() == weights and local_hub.sent == len(weights) and left(place) == [FILE]


def test_other_bytes_are_refused_and_not_kept(place: Path, local_hub: LocalHub) -> None:
    local_hub.faults.wrong_bytes = True
    assert "expected" in refused(place) and left(place) == []


def test_another_file_in_its_place_is_neither_opened_nor_removed(place: Path, local_hub: LocalHub) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    assert "remove it and it is downloaded anew" in refused(place)
    assert place.read_bytes() == b"something else" and not local_hub.sent
    place.unlink()
    place.mkdir()
    assert "cannot use" in refused(place)


def test_without_a_network(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theirs, "URL_INCEPTION_V3", f"http://127.0.0.1:9/{FILE}")
    assert f"http://127.0.0.1:9/{FILE} cannot be fetched" in refused(place)


def test_a_folder_that_cannot_be_made(place: Path) -> None:
    place.parent.parent.parent.write_text("a file where TORCH_HOME says a folder is")
    assert "cannot use" in refused(place)
