"""Training by processes that reach each other over a network only: two network namespaces, joined by a cable, as hosts.

Each has a name, an address and a torchrun of its own, as nodes of a cluster have; nothing goes through localhost.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from hastezoo.recipes.digits import run
from tests.stored import newest
from tests.training.test_resume import SMALL, small

pytestmark = pytest.mark.slow

# The order of a sum of gradients over two processes, through the steps of these runs.
TOLERANCE = 2e-4
MINIATURE = [*SMALL, "train.log_every=1"]
RATE = 100  # Mbit/s of the cable
# How often the kernel sends anew what nobody acknowledges. torchrun waits without an end for an answer of its store; by
# the usual 15 the kernel gives the connection up after a quarter of an hour, by these after some ten seconds.
RETRIES = 5
# Gives a process the host's name, and the names of both; they vanish with it.
ENTER = 'mount --bind "$1" /etc/hosts && echo "$2" >/proc/sys/kernel/hostname && shift 2 && exec "$@"'


@dataclass
class Host:
    """A network namespace with one interface.

    Attributes:
        name: Of the namespace, and of the host.
        address: Of its interface, that is called `cable`.
        hosts: A file with the names of all.
        processes: What was started in it.
    """

    name: str
    address: str
    hosts: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def ip(self, *words: str) -> str:
        """`ip` inside."""
        return command("ip", "-netns", self.name, *words)

    def start(self, *words: str, folder: Path) -> subprocess.Popen[str]:
        """Run something here; what it says is in folder/NAME.log."""
        inside = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts"]
        with (folder / f"{self.name}.log").open("w") as log:
            process = subprocess.Popen(
                [*inside, "sh", "-c", ENTER, "sh", str(self.hosts), self.name, *words],
                env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def kill(self) -> None:
        """End all that runs here."""
        for pid in command("ip", "netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for process in self.processes:
            process.wait(30)


def command(*words: str) -> str:
    result = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, (words, result.stderr)
    return result.stdout


def refusal() -> str | None:
    """Why there can be no namespaces here, if so."""
    missing = [name for name in ("ip", "tc", "unshare", "mount", "sysctl") if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    probe = f"hz{os.getpid()}probe"
    result = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if result.returncode:
        return f"no network namespaces here: {result.stderr.strip()}"
    command("ip", "netns", "del", probe)
    return None


def sweep() -> None:
    """Remove what tests left that were killed themselves."""
    for name in re.findall(r"^hz(\d+)([ab])\b", command("ip", "netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{name[0]}").exists():
            host = Host(f"hz{name[0]}{name[1]}", "", Path())
            host.kill()
            command("ip", "netns", "del", host.name)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable of RATE between them."""
    reason = refusal()
    if reason is not None:
        pytest.skip(reason)
    names = tmp_path / "hosts"
    pair = [Host(f"hz{os.getpid()}{letter}", f"10.77.0.{number}", names) for number, letter in enumerate("ab", 1)]
    names.write_text("127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in pair))
    sweep()
    made = []
    try:
        for host in pair:
            command("ip", "netns", "add", host.name)
            made.append(host)
        ends = [["cable", "netns", host.name] for host in pair]
        command("ip", "link", "add", *ends[0], "type", "veth", "peer", "name", *ends[1])
        for host in pair:
            host.ip("address", "add", f"{host.address}/24", "dev", "cable")
            host.ip("link", "set", "lo", "up")
            host.ip("link", "set", "cable", "up")
            command("ip", "netns", "exec", host.name, "sysctl", "-qw", f"net.ipv4.tcp_retries2={RETRIES}")
            limit = ("tbf", "rate", f"{RATE}mbit", "burst", "256kb", "latency", "100ms")
            command("tc", "-netns", host.name, "qdisc", "add", "dev", "cable", "root", *limit)
        yield pair[0], pair[1]
    finally:
        for host in made:
            host.kill()
            command("ip", "netns", "del", host.name)


def sent(host: Host) -> int:
    """Bytes that have left it."""
    return int(json.loads(host.ip("-json", "-stats", "link", "show", "cable"))[0]["stats64"]["tx"]["bytes"])


def losses(out: Path) -> list[dict[str, float]]:
    """The lines of metrics; of a run under way those that are whole."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def train(hosts: tuple[Host, Host], folder: Path, *settings: str) -> list[subprocess.Popen[str]]:
    """A torchrun of one process on each, that meet on the first; they train into folder/run."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{hosts[0].name}:29400", "--rdzv-id", "run"]
    words = [word for setting in [*MINIATURE, *settings] for word in ("--set", setting)]
    recipe = ["-m", "hastezoo.recipes.digits", "--checkpoint", "sit-ti-digits", "--device", "cpu", "--quiet"]
    return [host.start(*launch, *recipe, "--out", str(folder / "run"), *words, folder=folder) for host in hosts]


def said(hosts: tuple[Host, Host], folder: Path) -> str:
    return "\n".join(f"== {host.name}\n{(folder / f'{host.name}.log').read_text()}" for host in hosts)


def until(condition: Callable[[], bool], processes: list[subprocess.Popen[str]]) -> bool:
    """Wait for something that running processes do; whether it came."""
    deadline = time.monotonic() + 120
    while not condition() and all(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_two_hosts_train_as_one_process(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """The same losses; and every step's gradients went over the cable."""
    steps, before = 20, sent(hosts[1])
    processes = train(hosts, tmp_path, f"train.steps={steps}")
    assert [process.wait(180) for process in processes] == [0, 0], said(hosts, tmp_path)
    run(
        "sit-ti-digits",
        small("train.log_every=1", f"train.steps={steps}"),
        tmp_path / "whole",
        device="cpu",
        quiet=True,
    )
    rows, whole = losses(tmp_path / "run"), losses(tmp_path / "whole")
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([row[name] for row in rows], [row[name] for row in whole], rtol=TOLERANCE)
    parameters = (tmp_path / "run" / "sit-ti-digits.safetensors").stat().st_size
    assert sent(hosts[1]) - before > 0.9 * steps * parameters


def test_cut_cable_ends_both(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Nothing tells a process that the network is gone; the heartbeat notices, says who is missing, and ends it.

    torchrun of the first has its store beside it and ends with its worker; that of the second when the kernel says so.
    """
    processes = train(hosts, tmp_path, "train.steps=100000", "train.keep_at=[5]", "parallel.silence=3")
    assert until(lambda: len(losses(tmp_path / "run")) >= 8, processes), said(hosts, tmp_path)
    hosts[0].ip("link", "set", "cable", "down")
    codes = [process.wait(120) for process in processes]
    assert all(codes), said(hosts, tmp_path)
    first, second = ((tmp_path / f"{host.name}.log").read_text() for host in hosts)
    assert len(re.findall(rf"^error: rank 1 \(host {hosts[1].name}, pid \d+\) has not been heard of", first, re.M)) == 1
    assert len(re.findall(rf"^error: the machine of rank 0 \({hosts[0].name}:\d+\) could not be", second, re.M)) == 1
    assert "Traceback" not in first.split("error: rank 1")[0]
    assert newest(tmp_path / "run") is not None
