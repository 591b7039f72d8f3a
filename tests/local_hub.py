"""A Hub on this machine: an HTTP server that speaks as much of the Hub's protocol as the tests need.

It serves models and data sets (a data set's repository is named `datasets/owner/repo`): files by redirect with ETag,
commit and sha256, ranges, listings. It answers as the Hub does where a repository is gated or something is absent,
misbehaves on demand, and takes a push (create, preupload, LFS upload, commit). It does not speak xet, so pushes are
tested with `HF_HUB_DISABLE_XET`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Faults:
    """What goes wrong. Counts go down as they are used.

    Attributes:
        cut: Downloads that break off in the middle.
        busy: Requests answered with 429.
        wrong_bytes: Send other bytes than those whose sha256 is stated.
        gated: Answer 401 to who sends no token.
        web_page: Answer downloads with a page of HTML.
        no_ranges: Ignore the Range header.
        wrong_range: Ranges answered with another one than was asked for.
    """

    cut: int = 0
    busy: int = 0
    wrong_bytes: bool = False
    gated: bool = False
    web_page: bool = False
    no_ranges: bool = False
    wrong_range: int = 0


@dataclass
class LocalHub:
    """Files by (repository, path), what was asked, and what was pushed."""

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    sent: int = 0
    uploads: dict[str, bytes] = field(default_factory=dict)
    commits: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> LocalHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def file_host(self) -> str:
        """Where redirects lead: another name of this server, as the Hub's files lie on another host."""
        return self.url.replace("127.0.0.1", "localhost")

    def of(self, repo: str) -> dict[str, bytes]:
        return {path: data for (owner, path), data in self.files.items() if owner == repo}


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or what follows the headers waits 40 ms for their acknowledgement

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_PUT(self) -> None:
        self.hub.requests.append(f"PUT {self.path}")
        self.hub.uploads[self.path.rsplit("/", 1)[1]] = self._body()
        self._answer(200)

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        data = self._body()
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            self.hub.created.append(json.loads(data))
            self._json({"url": f"{self.hub.url}/{json.loads(data).get('organization', 'me')}/x"})
        elif path == "/api/validate-yaml":
            content = json.loads(data)["content"]
            good = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
            self._answer(200, b"{}") if good and "license:" in good[1] else self._answer(400, b"no license")
        elif "/preupload/" in path:
            self._preupload(json.loads(data))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(data))
        elif "/commit/" in path:
            self._commit(path, data)
        elif found := re.match(r"/api/(datasets/[^/]+/[^/]+)/paths-info/", path):
            self._paths(found[1], parse_qs(data.decode())["paths"])
        else:
            self._answer(404)

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for one in asked["files"]
        ]
        self._json({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                "oid": one["oid"],
                "size": one["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}},
            }
            for one in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, path: str, data: bytes) -> None:
        found = re.match(r"/api/models/([^/]+/[^/]+)/commit/", path)
        assert found
        for line in data.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.hub.files[found[1], entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                self.hub.files[found[1], entry["value"]["path"]] = self.hub.uploads[entry["value"]["oid"]]
            self.hub.commits.append(entry)
        self._json({"success": True, "commitUrl": f"{self.hub.url}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT})

    def _get(self) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} {self.path}")
        if hub.faults.busy:
            hub.faults.busy -= 1
            self._answer(429, headers={"Retry-After": "0"})
            return
        path = unquote(self.path.partition("?")[0])
        if found := re.match(r"/cdn/([0-9a-f]{64})$", path):
            self._send(found[1])
        elif found := re.match(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
            self._resolve(*found.groups())
        elif found := re.match(r"/api/(datasets/[^/]+/[^/]+)/tree/[^/]+/?(.*)$", path):
            self._tree(found[1], found[2])
        elif found := re.match(r"/api/(datasets/[^/]+/[^/]+)(?:/revision/(.+))?$", path):
            self._data_set(found[1], found[2] or "main")
        elif found := re.match(r"/api/models/([^/]+/[^/]+)/tree/", path):
            self._tree(found[1])
        elif found := re.match(r"/api/models/([^/]+/[^/]+)(/revision/.+)?$", path):
            self._json({"id": found[1], "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.of(found[1])]})
        else:
            self._refuse(404, "RepoNotFound")

    def _data_set(self, repo: str, revision: str) -> None:
        """Of a gated data set, too, everybody may read this much."""
        if not self.hub.of(repo):
            self._refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            self._json({"id": repo.removeprefix("datasets/"), "sha": COMMIT})

    def _tree(self, repo: str, folder: str = "") -> None:
        """The files of a repository below a folder, at any depth, and the folders between."""
        files = self.hub.of(repo)
        if not files:
            self._refuse(404, "RepoNotFound")
            return
        below = [path for path in files if path.startswith(folder and f"{folder}/")]
        if not below:
            self._refuse(404, "EntryNotFound")
            return
        parents = {str(parent) for path in below for parent in PurePosixPath(path).parents}
        folders = sorted(parent for parent in parents if parent != "." and len(parent) > len(folder))
        self._json([self._entry(repo, path) for path in [*folders, *below]])

    def _paths(self, repo: str, paths: list[str]) -> None:
        """What is known of some paths; of what is not there, nothing."""
        files = self.hub.of(repo)
        there = [path for path in paths if any(name == path or name.startswith(f"{path}/") for name in files)]
        self._json([self._entry(repo, path) for path in there])

    def _entry(self, repo: str, path: str) -> dict[str, Any]:
        data = self.hub.files.get((repo, path))
        if data is None:
            return {"type": "directory", "path": path, "oid": "0" * 40}
        return {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}

    def _resolve(self, repo: str, revision: str, path: str) -> None:
        files = self.hub.of(repo)
        if not files:
            self._refuse(401 if "Authorization" not in self.headers else 404, "RepoNotFound")
        elif self.hub.faults.gated and "Authorization" not in self.headers:
            self._refuse(401, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif path not in files:
            self._refuse(404, "EntryNotFound", {"X-Repo-Commit": COMMIT})
        elif path.endswith((".json", ".md")):
            etag = hashlib.sha1(files[path]).hexdigest()
            self._answer(200, files[path], {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})
        else:
            digest = hashlib.sha256(files[path]).hexdigest()
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(files[path])),
                "Location": f"{self.hub.file_host}/cdn/{digest}",
            }
            self._answer(302, b"", headers)

    def _send(self, digest: str) -> None:
        """The bytes of a file, as a file host sends them."""
        hub, faults = self.hub, self.hub.faults
        if faults.web_page:
            self._answer(200, b"<html>Too many downloads</html>", {"Content-Type": "text/html; charset=utf-8"})
            return
        data = next(data for data in hub.files.values() if hashlib.sha256(data).hexdigest() == digest)
        if faults.wrong_bytes:
            data = bytes(len(data) - 1) + b"x"
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if self.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            asked = None
        start = int(asked[1]) if asked and not faults.no_ranges else 0
        if asked:
            hub.ranges.append(asked[0])
        if start and faults.wrong_range:
            faults.wrong_range -= 1
            start //= 2
        if start and start >= len(data):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        stop = min(int(asked[2]) + 1, len(data)) if asked and asked[2] and not faults.no_ranges else len(data)
        part, ranged = data[start:stop], bool(start) or stop < len(data)
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        if faults.cut and self.command == "GET":
            faults.cut -= 1
            self._answer(206 if ranged else 200, part[: len(part) // 2], headers, length=len(part))
            self.close_connection = True
            return
        self._answer(206 if ranged else 200, part, headers)

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(
        self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
            self.hub.sent += len(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))
