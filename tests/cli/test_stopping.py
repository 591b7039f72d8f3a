"""A scheduler's notice: it ends a command soon, with exit code 75, and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hastezoo import files
from hastezoo.cli.main import main
from hastezoo.cli.prepare_work import PrepareBar
from hastezoo.cli.stopping import requeued_when_stopped, stopped_by_signals
from hastezoo.errors import REQUEUE, Stopped
from hastezoo.evaluation.generated import Generated
from tests.data.comparing import assert_near, assert_same, facts
from tests.data.making import SHARD, SIDE, UNITS, make, write_photographs

NOTICES = ("SIGTERM", "SIGUSR1")
LINE = "stopped by {}: what is finished stays, and the same command goes on\n"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those from before: a command that hears a notice ends its process, and so does not put them back."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("images"))


def notice(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def prepare_command(images: Path, dest: Path, vae: Path) -> list[str]:
    given = ["prepare", "folder", images, dest, "--resolution", SIDE, "--vae", vae, "--flip", "--device", "cpu"]
    return list(map(str, [*given, "--shard-size", SHARD, "--threads", 2]))


@pytest.mark.parametrize("name", NOTICES)
def test_prepare_is_stopped_and_goes_on(
    images: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    dest, advance = tmp_path / "dest", PrepareBar.advance

    def stop_within_the_third(self: PrepareBar, images: int) -> None:
        advance(self, images)
        if self.done > 2 * SHARD:
            notice(name)

    with monkeypatch.context() as patch:
        patch.setattr(PrepareBar, "advance", stop_within_the_third)
        result = run(*prepare_command(images, dest, tiny_vae))
    assert (result.exit_code, result.stdout, result.stderr) == (REQUEUE, "", LINE.format(name))
    before = facts(dest)
    assert sorted(before) == ["shard-00000.arrow", "shard-00001.arrow"] and not list(dest.glob(".*.partial"))
    result = run(*prepare_command(images, dest, tiny_vae))
    assert result.exit_code == 0 and before.items() <= facts(dest).items()
    make(images, tmp_path / "whole", tiny_vae, flip=True)
    assert_same(dest, tmp_path / "whole")


@pytest.mark.parametrize("name", NOTICES)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_evaluation_is_stopped_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rank: str
) -> None:
    """Also of several processes one that does not write, and one that waits for the others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    read, sleep = Generated.read, time.sleep

    def stopped(self: Generated, start: int, stop: int) -> np.ndarray:
        if start >= 1000 or rank == "1":
            notice(name)
        return read(self, start, stop)

    command = ["eval-fid", "--solver", "euler", "--steps", 1, "--device", "cpu", "-n", 1100, "--out", "x", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(Generated, "read", stopped)
        result = run(*command)
    assert (result.exit_code, result.stdout, result.stderr) == (REQUEUE, "", LINE.format(name))
    done = [] if rank == "1" else ["000000.safetensors"]
    assert [path.name for path in sorted(Path("x/features").iterdir())] == done
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if rank == "1":
        assert run(*command).exit_code == 0
        return

    def wait(seconds: float) -> None:
        notice(name)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", wait)
    result = run(*command)
    assert (result.exit_code, result.stderr) == (REQUEUE, LINE.format(name))
    assert len(list(Path("x/features").iterdir())) == 2 and not Path("x/result.json").exists()


def test_without_a_notice_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    assert requeued_when_stopped(lambda value: value + 1)(1) == 2
    with pytest.raises(KeyboardInterrupt):
        requeued_when_stopped(lambda: signal.raise_signal(signal.SIGINT))()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    thread = threading.Thread(target=requeued_when_stopped(lambda: done.append(1)))
    done: list[int] = []
    thread.start()
    thread.join()
    assert done == [1]


def test_what_comes_after_the_first_is_not_heard() -> None:
    """It would end the process amid what is taken away."""
    tidied = False
    with pytest.raises(Stopped, match="SIGUSR1"), stopped_by_signals():
        try:
            notice("SIGUSR1")
        finally:
            notice("SIGTERM")
            notice("SIGUSR1")
            tidied = True
    assert tidied


def long_enough() -> None:
    """What the notice is heard in, at last."""
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        time.sleep(0.01)
    raise AssertionError("not heard")


@pytest.mark.parametrize("where", ["fsync", "replace", "unlink", "open"])
def test_a_file_is_whole_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Whenever the notice comes while it is opened, closed and renamed."""
    place: Any = os if where == "fsync" else Path
    real: Callable[..., Any] = getattr(place, where)

    def noticed(*given: Any, **named: Any) -> Any:
        notice("SIGTERM")
        return real(*given, **named)

    with pytest.raises(Stopped), stopped_by_signals():
        with monkeypatch.context() as patch:
            patch.setattr(place, where, noticed)
            files.atomic_write(tmp_path / "file", b"whole")
        long_enough()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_amid_a_file_it_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Stopped), stopped_by_signals(), files.atomic_open(tmp_path / "file") as stream:
        stream.write(b"half")
        notice("SIGTERM")
        long_enough()
    assert list(tmp_path.iterdir()) == []


def test_what_python_would_forget_is_heard_later() -> None:
    """Exceptions of finalizers and of callbacks of weak references are printed and gone."""

    class Finalized:
        def __del__(self) -> None:
            notice("SIGUSR1")

    with pytest.raises(Stopped), stopped_by_signals():
        Finalized()
        long_enough()

    class Followed:
        pass

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(Stopped), stopped_by_signals():
        one = Followed()
        weakref.finalize(one, notice, "SIGTERM")
        del one
        long_enough()


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def alive(process: int) -> bool:
    """Not so of one that ended and that nobody has asked for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(("name", "group"), [("SIGTERM", True), ("SIGUSR1", True), ("SIGTERM", False)])
def test_processes_of_a_preparation_end_too(
    images: Path, tiny_vae: Path, tmp_path: Path, name: str, group: bool
) -> None:
    """Whether the notice goes to the command alone or to all that it started."""
    dest = tmp_path / "dest"
    command = [sys.executable, "-m", "hastezoo", *prepare_command(images, dest, tiny_vae)]
    options = ["--processes", "2", "--batch-size", "1", "--quiet"]
    process = subprocess.Popen([*command, *options], start_new_session=True, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not list(dest.glob("shard-*.json")) and not list(dest.glob(".shard*.partial")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.002)
    started = children(process.pid)
    (os.killpg if group else os.kill)(process.pid, getattr(signal, name))
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (REQUEUE, LINE.format(name))
    assert len(started) >= 2
    while any(map(alive, started)):  # a helper of Python's own ends after the command
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert not list(dest.glob(".*.partial"))
    assert len(facts(dest)) <= UNITS and not (dest / "manifest.json").exists()
    assert run(*prepare_command(images, dest, tiny_vae)).exit_code == 0
    make(images, tmp_path / "whole", tiny_vae, flip=True)
    assert_near(dest, tmp_path / "whole")
