"""`hastezoo app` as it is typed: what it takes from where, and what it refuses before anything is served."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hastezoo.cli.main import main
from hastezoo.webapp import server
from hastezoo.webapp.settings import AppSettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH", "HASTEZOO_AUTH", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)


def settings_of(monkeypatch: pytest.MonkeyPatch, *options: str, **environment: str) -> AppSettings:
    """What the server would be started with."""
    seen: list[AppSettings] = []
    monkeypatch.setattr(server, "serve", lambda settings, say: seen.append(settings))
    result = CliRunner().invoke(main, ["app", *options], env=environment)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_by_default_only_this_machine_is_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = settings_of(monkeypatch)
    assert (found.host, found.port, found.auth, found.root_path) == ("127.0.0.1", 7860, [], "")
    assert found.outputs == tmp_path / "outputs" / "app"
    assert found == AppSettings(), "the command's defaults are not those of the settings"


def test_a_space_is_made_to_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, SPACE_ID="me/zoo").host == "0.0.0.0"
    assert settings_of(monkeypatch, SPACE_ID="me/zoo", GRADIO_SERVER_NAME="10.0.0.1").host == "10.0.0.1"


def test_the_environment_gives_what_the_command_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"GRADIO_SERVER_PORT": "8001", "GRADIO_ROOT_PATH": "/zoo/", "HASTEZOO_AUTH": "me:a,b:c you:d"}
    found = settings_of(monkeypatch, **environment)
    assert (found.port, found.root_path) == (8001, "/zoo")
    assert found.auth == [("me", "a,b:c"), ("you", "d")]
    assert settings_of(monkeypatch, "--port", "8002", **environment).port == 8002


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "99999"), "port: input should be less than or equal to 65535 (given: 99999)"),
        (("--model", "sit-xx"), "unknown model 'sit-xx'; nearest: sit-xl"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--dtype", "float8"), "dtype: input should be 'float32', 'bfloat16' or 'float16' (given: 'float8')"),
        (("--auth", "me"), "--auth takes NAME:PASSWORD"),
        (("--auth", ":x"), "--auth takes NAME:PASSWORD"),
        (("--root-path", "zoo"), "root_path: starts with /"),
        (("--waiting", "-1"), "waiting: input should be greater than or equal to 0"),
        (("--keep-hours", "0"), "keep_hours: input should be greater than 0"),
        (("--max-images", "0"), "max_images: input should be greater than or equal to 1"),
        (("--outputs", "file/out"), "file/out: Not a directory; give another --outputs"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1:7860: "),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_what_cannot_be_is_one_line(options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "create_server", None)  # nothing of it comes so far as to be served
    Path("file").write_text("x")
    result = CliRunner().invoke(main, ["app", *options])
    (line,) = result.output.splitlines()
    assert result.exit_code == 2 and line.startswith("error: ") and said in line


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "create_server", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result: Any = CliRunner().invoke(main, ["app", "--port", str(port)])
    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; give another --host or --port" in result.output
