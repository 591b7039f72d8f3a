"""Nothing but the folder of outputs is served, and nothing is taken."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

import pytest

from hastezoo.webapp.guard import LONGEST_BODY, Guard
from tests.webapp.serving import Served, serving

FILE = "/gradio_api/file="


@pytest.fixture(scope="module")
def kept(served: Served) -> Path:
    """A file of the folder."""
    path = served.studio.outputs.images / "somebody" / "00000.png"
    path.parent.mkdir()
    path.write_bytes(b"an image")
    return path


def raw(served: Served, target: str) -> tuple[int, bytes]:
    """(status, body) of a request line as it is: urllib would tidy the path up."""
    place = urlparse(served.url)
    with socket.create_connection((place.hostname, place.port), timeout=10) as line:
        line.sendall(f"GET {target} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := line.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def test_a_file_of_the_folder_is_served(served: Served, kept: Path) -> None:
    assert served.get(f"{FILE}{kept}") == (200, b"an image")


def outside(served: Served, tmp: Path) -> dict[str, str]:
    """Paths of files that exist and lie elsewhere, written in many ways."""
    root = served.studio.outputs.root
    secret = tmp / "secret.txt"
    secret.write_text("secret")
    beside = root.parent / f"{root.name}-beside.txt"
    beside.write_text("secret")
    link = served.studio.outputs.images / "link.png"
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    hidden = served.studio.outputs.images / ".hidden.png"
    hidden.write_text("secret")
    up = "../" * 12
    return {
        "absolute": str(secret),
        "dots": f"{root}/images/{up}etc/passwd",
        "encoded dots": quote(f"{root}/images/") + "%2e%2e/" * 12 + "etc/passwd",
        "encoded slashes": f"{root}/images/" + "..%2f" * 12 + "etc/passwd",
        "twice encoded": f"{root}/images/" + "%252e%252e%252f" * 12 + "etc/passwd",
        "backslashes": f"{root}\\images\\" + "..\\" * 12 + "etc\\passwd",
        "relative": f"{up}etc/passwd",
        "beside": str(beside),
        "beside by dots": f"{root}/../{beside.name}",
        "a link out": str(link),
        "hidden": str(hidden),
        "no file": f"{root}/images/nothing.png",
        "a folder": f"{root}/images",
        "null": f"{root}/images/%00",
        "the package": str(Path(__file__).resolve()),
        "this process": "/proc/self/environ",
        "another host": "http://127.0.0.1:1/secret",
        "a file address": "file:///etc/passwd",
        "nothing": "",
    }


@pytest.mark.parametrize("form", [FILE, "/gradio_api/file/", "//gradio_api/file=", "/gradio_api//file=", "/file="])
def test_nothing_outside_the_folder_is_served(served: Served, tmp_path: Path, form: str) -> None:
    for name, path in outside(served, tmp_path).items():
        status, body = raw(served, form + path.replace(" ", "%20"))
        assert status in (400, 403, 404, 307), (name, status)
        assert b"secret" not in body.replace(b"/secret", b"") and b"root:" not in body, name


def test_the_guard_alone_would_serve_nothing_outside(served: Served, kept: Path, tmp_path: Path) -> None:
    """Gradio refuses most of it too, behind the guard; neither relies on the other."""
    guard = Guard(None, served.studio.outputs.root, asyncio.Event())  # type: ignore[arg-type]
    assert guard.serves(str(kept))
    assert [name for name, path in outside(served, tmp_path).items() if guard.serves(unquote(path))] == []


@pytest.mark.parametrize(
    "path",
    [
        "upload", "upload/", "upload?upload_id=1", "proxy=http://127.0.0.1:1/", "stream/x", "stream/a/b/1/list.m3u8",
        "process_recording", "vibe-edit", "vibe-code", "component_server", "custom_component/a/b/c/d", "deep_link",
        "runs", "run-history/buckets", "run/predict", "api/generate", "profiling/traces", "dev/reload", "%75pload",
    ],
)  # fmt: skip
def test_routes_that_the_app_has_no_use_for_are_closed(served: Served, path: str) -> None:
    refused = (404, {"detail": "this app has no such route"})
    assert served.post(f"/gradio_api/{path}", b"--x\r\n\r\n") == refused
    status, body = served.get(f"/gradio_api/{path}")
    assert (status, json.loads(body)) == refused


def test_an_upload_leaves_nothing(served: Served) -> None:
    before = set(served.studio.outputs.root.rglob("*"))
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\ndata\r\n--x--\r\n'
    status, _ = served.post("/gradio_api/upload", body)
    assert status == 404
    assert set(served.studio.outputs.root.rglob("*")) == before


def test_a_body_that_is_too_long_is_refused_before_it_is_read(served: Served) -> None:
    head = f"POST /gradio_api/call/generate HTTP/1.1\r\nContent-Length: {LONGEST_BODY + 1}\r\nConnection: close\r\n"
    place = urlparse(served.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as line:
        line.sendall(f"{head}Host: {place.netloc}\r\n\r\n".encode())
        answer = line.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"a request may have 1,048,576 bytes" in answer


def test_a_body_without_a_stated_length_is_cut_off(served: Served) -> None:
    place = urlparse(served.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as line:
        head = "POST /gradio_api/call/generate HTTP/1.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
        line.sendall(f"{head}Host: {place.netloc}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(40):
                line.sendall(chunk)
            line.sendall(b"0\r\n\r\n")
            answer = line.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            answer = b""
    assert b"200 OK" not in answer[:20]


def test_the_health_endpoint_says_what_is_loaded_and_waits(served: Served) -> None:
    status, body = served.get("/health")
    found = json.loads(body)
    assert status == 200
    assert (found["status"], found["running"], found["waiting"]) == ("ok", 0, 0)


def test_a_password_is_asked_for_everywhere_but_for_health(tmp_path: Path) -> None:
    with serving(tmp_path, auth=[("me", "right")]) as app:
        kept = app.studio.outputs.images / "x.png"
        kept.write_bytes(b"an image")
        assert app.get(f"{FILE}{kept}")[0] == 401
        assert app.post("/gradio_api/call/generate", {"data": []})[0] == 401
        assert app.post("/gradio_api/queue/join", {"data": [], "fn_index": 0, "session_hash": "x"})[0] == 401
        assert app.get("/config")[0] == 401
        assert app.get("/health")[0] == 200
        assert b"UCI digits" not in app.get("/")[1], "the page is sent before the password"
