"""The real server on a port of this machine, in a thread, and raw requests to it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hastezoo.webapp.server import bind, create_server
from hastezoo.webapp.settings import AppSettings
from hastezoo.webapp.studio import Studio
from tests.conftest import ROOT


@dataclass
class Served:
    """An app that is served.

    Attributes:
        url: Without a slash at the end.
        studio: Behind it.
    """

    url: str
    studio: Studio

    def get(self, path: str, timeout: float = 30) -> tuple[int, bytes]:
        """(status, body)."""
        return fetch(urllib.request.Request(self.url + path), timeout)

    def post(self, path: str, value: Any, timeout: float = 30) -> tuple[int, Any]:
        """(status, JSON) of JSON sent; NaN goes as it is, which Python reads."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        status, body = fetch(request, timeout)
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode(errors="replace")

    def call(self, name: str, *values: Any) -> list[tuple[str, Any]]:
        """All (event, data) of an endpoint called by HTTP alone, until it ends."""
        status, answer = self.post(f"/gradio_api/call/{name}", {"data": list(values)})
        assert status == 200, (status, answer)
        return list(self.events(f"/gradio_api/call/{name}/{answer['event_id']}"))

    def events(self, path: str, timeout: float = 120) -> Iterator[tuple[str, Any]]:
        """Server-sent events, until the server ends them."""
        event = ""
        with urllib.request.urlopen(self.url + path, timeout=timeout) as stream:
            for line in stream:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    event = value
                elif key == "data":
                    yield event, json.loads(value)

    def idle(self, seconds: float = 30) -> None:
        """Wait until nothing runs and nothing waits."""
        end = time.monotonic() + seconds
        while any(self.studio.turns.counts().values()):
            assert time.monotonic() < end, self.studio.turns.counts()
            time.sleep(0.01)


def fetch(request: urllib.request.Request, timeout: float) -> tuple[int, bytes]:
    """(status, body), also of what the server refuses."""
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@contextmanager
def serving(outputs: Path, **settings: Any) -> Iterator[Served]:
    """Serve an app until the block ends."""
    studio = Studio(AppSettings(outputs=outputs, port=0, **settings))
    sock = bind(studio.settings)
    server = create_server(studio)
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"
        time.sleep(0.02)
    try:
        yield Served(f"http://127.0.0.1:{sock.getsockname()[1]}", studio)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def proxied(url: str, prefix: str) -> Iterator[str]:
    """A reverse proxy that serves `url` under a path of its own; the address there."""

    class Forward(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {key: value for key, value in self.headers.items() if key.lower() != "accept-encoding"}
            target = url + self.path.removeprefix(prefix)
            request = urllib.request.Request(target, body or None, headers, method=self.command)
            with contextlib.suppress(ConnectionError), urllib.request.urlopen(request, timeout=120) as answer:
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
                self.end_headers()
                while part := answer.read1(65536):  # as it comes: events are streamed
                    self.wfile.write(part)

        do_GET = do_POST = forward

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}{prefix}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """`python app.py` in a process of its own; its address. It must stop cleanly at Ctrl-C."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--outputs", str(folder / "outputs"), *options]
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield _address(process, folder / "log.txt")
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
        said = (folder / "log.txt").read_text()
    assert code in (0, -signal.SIGINT, 130), (code, said)
    assert "Traceback" not in said, said


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 60
    while not (found := re.search(r"http://[\d.]+:\d+", log.read_text())):
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return found[0]
