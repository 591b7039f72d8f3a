"""Direct links: resumed within a call and across calls, checked, never half under the final name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hastezoo.errors import UserError
from hastezoo.zoo import download as module
from hastezoo.zoo.download import download
from tests.local_hub import LocalHub

DATA = bytes(range(256)) * 16384  # 4 MB
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def link(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    local_hub.files["a/b", "last.pt"] = DATA
    return f"{local_hub.url}/cdn/{DIGEST}"


def test_a_link_becomes_a_file_and_progress_is_told(link: str, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = download(link, tmp_path / "deep" / "last.pt", sha256=DIGEST, progress=lambda *both: told.append(both))
    assert path.read_bytes() == DATA and told[-1] == (len(DATA), len(DATA))
    assert [one.name for one in path.parent.iterdir()] == ["last.pt"]


def test_a_cut_connection_goes_on_where_it_was(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.faults.cut = 2
    assert download(link, tmp_path / "x", sha256=DIGEST).read_bytes() == DATA
    half = len(DATA) // 2
    assert local_hub.ranges == [f"bytes={half}-", f"bytes={half + half // 2}-"] and local_hub.sent == len(DATA)


def test_a_call_that_gave_up_is_continued_by_the_next(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.faults.cut = module.RETRIES
    with pytest.raises(UserError, match=r"bytes are kept; the same command goes on"):
        download(link, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert download(link, tmp_path / "x", sha256=DIGEST).read_bytes() == DATA
    assert local_hub.sent == len(DATA), "bytes came twice"


def test_another_file_behind_the_link_starts_anew(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    """If-Range: the kept half belongs to a file that is no longer there."""
    local_hub.faults.cut = module.RETRIES
    with pytest.raises(UserError):
        download(link, tmp_path / "x")
    other = bytes(reversed(DATA))
    local_hub.files["a/b", "last.pt"] = other
    link = f"{local_hub.url}/cdn/{hashlib.sha256(other).hexdigest()}"
    assert download(link, tmp_path / "x").read_bytes() == other


def test_a_server_without_ranges_sends_it_all_again(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.faults.cut, local_hub.faults.no_ranges = 1, True
    assert download(link, tmp_path / "x", sha256=DIGEST).read_bytes() == DATA


def test_a_finished_part_is_not_fetched_again(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    """Killed between the last byte and the rename."""
    (tmp_path / "x.part").write_bytes(DATA)
    (tmp_path / "x.part.json").write_text(f'{{"etag": "\\"{DIGEST}\\"", "total": {len(DATA)}}}')
    assert download(link, tmp_path / "x", sha256=DIGEST).read_bytes() == DATA
    assert local_hub.sent == 0


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"total": 7}', "no json", '{"etag": "\\"other\\""}'])
def test_a_part_of_which_nothing_is_known_is_fetched_anew(link: str, tmp_path: Path, state: str) -> None:
    (tmp_path / "x.part").write_bytes(b"rubbish")
    (tmp_path / "x.part.json").write_text(state)
    assert download(link, tmp_path / "x", sha256=DIGEST).read_bytes() == DATA


def test_another_part_than_was_asked_for_is_not_appended(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.faults.cut, local_hub.faults.wrong_range = 1, 1
    assert download(link, tmp_path / "x").read_bytes() == DATA


def test_wrong_bytes_are_not_kept(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.faults.wrong_bytes = True
    with pytest.raises(UserError, match=r"has sha256 \w{12}\.\.\., expected .*nothing was kept"):
        download(link, tmp_path / "x", sha256=DIGEST)
    assert list(tmp_path.glob("x*")) == []


@pytest.mark.parametrize("status", [429, 404])
def test_busy_is_waited_for_and_dead_is_said(link: str, local_hub: LocalHub, tmp_path: Path, status: int) -> None:
    if status == 429:
        local_hub.faults.busy = 2
        assert download(link, tmp_path / "x").read_bytes() == DATA
    else:
        with pytest.raises(UserError, match="answered 404 Not Found; the link may be dead"):
            download(f"{local_hub.url}/nothing", tmp_path / "x")


def test_a_web_page_is_no_file(link: str, local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.faults.web_page = True
    with pytest.raises(UserError, match="a web page, not a file"):
        download(link, tmp_path / "x")
    assert list(tmp_path.glob("x*")) == []


def test_a_host_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        download("http://127.0.0.1:9/x", tmp_path / "x")
    assert "\n" not in str(caught.value)
