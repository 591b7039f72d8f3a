"""The real client of the Hub against a Hub on this machine: what goes well and what goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from hastezoo import hub
from hastezoo.errors import UserError
from hastezoo.hub import Place, fetch, parse
from tests.local_hub import COMMIT, LocalHub

REPO = "someone/model"
DATA = bytes(range(256)) * 4096  # 1 MB


@pytest.fixture(autouse=True)
def weights(local_hub: LocalHub) -> None:
    local_hub.files[REPO, "model.safetensors"] = DATA
    local_hub.files[REPO, "config.json"] = b'{"a": 1}'


def test_a_file_comes_by_redirect_and_is_then_in_the_cache(local_hub: LocalHub) -> None:
    path = fetch(Place(REPO, None, "model.safetensors"))
    assert path.read_bytes() == DATA and COMMIT in str(path)
    sent = local_hub.sent
    assert fetch(Place(REPO, COMMIT, "model.safetensors")) == path
    assert fetch(Place(REPO, "main", "model.safetensors")) == path
    assert local_hub.sent == sent, "the bytes came twice"


def test_without_a_file_the_only_weights_are_taken(local_hub: LocalHub) -> None:
    assert fetch(Place(REPO)).name == "model.safetensors"
    local_hub.files["a/one", "last.pt"] = b"weights"
    assert fetch(Place("a/one")).read_bytes() == b"weights"
    local_hub.files["a/many", "a.pt"] = local_hub.files["a/many", "b.pt"] = b"x"
    with pytest.raises(UserError, match=r"several files of weights \(a\.pt, b\.pt\); name one: hub:a/many:FILE"):
        fetch(Place("a/many"))
    local_hub.files["a/none", "README.md"] = b"x"
    with pytest.raises(UserError, match="holds no file of weights"):
        fetch(Place("a/none"))


def test_gated_and_absent(local_hub: LocalHub) -> None:
    with pytest.raises(UserError, match=r"hub:no/body:x\.pt: there is no such repository, or it is private"):
        fetch(Place("no/body", None, "x.pt"))
    with pytest.raises(UserError, match="there is no revision 'v2'"):
        fetch(Place(REPO, "v2", "model.safetensors"))
    with pytest.raises(UserError, match=r"hub:someone/model:other\.pt: the repository has no such file"):
        fetch(Place(REPO, None, "other.pt"))
    local_hub.faults.gated = True
    with pytest.raises(UserError, match=r"gated; accept its terms at https://huggingface\.co/someone/model") as caught:
        fetch(Place(REPO, None, "model.safetensors"))
    assert "\n" not in str(caught.value)


def test_a_token_opens_what_is_gated(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    local_hub.faults.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(Place(REPO, None, "model.safetensors")).read_bytes() == DATA


def test_too_many_requests_then_success(local_hub: LocalHub) -> None:
    local_hub.faults.busy = 2
    assert fetch(Place(REPO, None, "model.safetensors")).read_bytes() == DATA
    assert local_hub.faults.busy == 0


def test_a_connection_cut_in_the_middle_is_resumed(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)  # 10 MB, what is lost at most
    local_hub.faults.cut = 1
    assert fetch(Place(REPO, None, "model.safetensors")).read_bytes() == DATA
    assert local_hub.ranges == [f"bytes={len(DATA) // 2}-"] and local_hub.sent < 1.1 * len(DATA)


def test_wrong_bytes_are_refused_and_not_kept(local_hub: LocalHub) -> None:
    local_hub.faults.wrong_bytes = True
    with pytest.raises(UserError, match="do not have the sha256 the Hub states; nothing was kept"):
        fetch(Place(REPO, None, "model.safetensors"))
    local_hub.faults.wrong_bytes = False
    assert fetch(Place(REPO, None, "model.safetensors")).read_bytes() == DATA


def test_offline_with_a_filled_cache_makes_no_request(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(Place(REPO))
    asked = len(local_hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch(Place(REPO)) == fetch(Place(REPO, None, "model.safetensors")) == path
    for place in (Place(REPO, None, "config.json"), Place("another/model")):
        with pytest.raises(hub.Unreachable, match="offline mode is on"):
            fetch(place)
    assert len(local_hub.requests) == asked


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9/{repo_id}/{revision}/{filename}"  # nothing listens there
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(hub.Unreachable, match="the Hub cannot be reached"):
        fetch(Place(REPO, None, "model.safetensors"))


def test_two_processes_download_once(local_hub: LocalHub, tmp_path: Path) -> None:
    """With the settings from the environment, as a user gives them."""
    environment = {**os.environ, "HF_ENDPOINT": local_hub.url, "HF_HOME": str(tmp_path / "hf")}
    code = "from hastezoo.hub import *; print(fetch(parse('hub:someone/model')).stat().st_size)"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [int(process.communicate(timeout=60)[0]) for process in running] == [len(DATA)] * 2
    assert local_hub.sent < 1.5 * len(DATA)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hub:a/b", Place("a/b")),
        ("hub:a/b@main", Place("a/b", "main")),
        ("hub:a/b:c/d.pt", Place("a/b", None, "c/d.pt")),
        ("hub:a-1/b.2@refs/pr/1:d.safetensors", Place("a-1/b.2", "refs/pr/1", "d.safetensors")),
    ],
)
def test_places_are_read_and_shown(text: str, place: Place) -> None:
    assert parse(text) == place and str(place) == text


@pytest.mark.parametrize(
    "text", ["hub:", "hub:a", "a/b", "hub:a/b/c", "hub:a/b:../../x", "hub:../b", "hub:a/b:/etc/passwd", "hub:a/b@../x"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is no place on the Hub|leaves the repository"):
        parse(text)
