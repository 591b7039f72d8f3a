"""A job under a scheduler that behaves as slurmctld and slurmd do, with `nodes` that are all this machine.

What is imitated is what the manual and the source of Slurm say: a copy of the script runs from a spool folder;
`--signal=B:` reaches the batch shell alone, a preemption's grace the steps alone, an end both, and SIGKILL follows;
`scontrol requeue` ends the job and puts it back under the same number, with SLURM_RESTART_COUNT one higher.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

BIN = Path(__file__).parent / "bin"
PATIENCE = 120.0  # seconds for anything that a test waits for


class Job:
    """One batch job, from its submission on.

    Args:
        script: The batch script.
        arguments: Of the script.
        folder: Where it is submitted.
        environment: What it gets beside this process'.
        hosts: Names of the nodes that it gets.
        array: Its number and the count in a job array.
        kill_wait: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        script: Path,
        arguments: Iterable[str] = (),
        *,
        folder: Path,
        environment: dict[str, str],
        hosts: Sequence[str] = ("localhost",),
        array: tuple[int, int] | None = None,
        kill_wait: float = 30.0,
    ) -> None:
        self.folder, self.kill_wait, self.arguments = folder, kill_wait, list(arguments)
        self.id, self.restarts, self.exit_code = 4711, 0, 0
        self.state_folder = folder / "slurmctld"
        self.state_folder.mkdir()
        self._install()
        self.spooled = Path(shutil.copy(script, self.state_folder / "slurm_script"))
        self.options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", script.read_text(), re.MULTILINE))
        self.name = str(self.id) if array is None else f"{self.id}_{array[0]}"
        self.environment = {**self._described(hosts, array), **environment}
        (self.state_folder / "job").write_text(self.name)
        if "requeue" in self.options:
            (self.state_folder / "may-requeue").touch()
        self.state = "PENDING"
        self.deadline: float | None = None

    def _install(self) -> None:
        """The commands, run by this interpreter: one that is found by a shim takes longer to start than they to run."""
        (self.state_folder / "bin").mkdir()
        for command in BIN.glob("*.py"):
            installed = self.state_folder / "bin" / command.stem
            installed.write_text(f"#!{sys.executable} -IS\n{command.read_text()}")
            installed.chmod(0o755)

    def _described(self, hosts: Sequence[str], array: tuple[int, int] | None) -> dict[str, str]:
        """What Slurm says to the batch shell."""
        said = {
            "PATH": f"{self.state_folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "FAKE_SLURM": str(self.state_folder),
            "SLURM_JOB_ID": str(self.id), "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_NODELIST": ",".join(hosts), "SLURM_JOB_NUM_NODES": str(len(hosts)),
            "SLURM_NTASKS": self.options.get("ntasks", str(len(hosts))),
            "SLURM_CPUS_PER_TASK": self.options["cpus-per-task"],
        }  # fmt: skip
        if array is not None:
            index, count = array
            said |= {"SLURM_NTASKS": "1", "SLURM_ARRAY_JOB_ID": str(self.id), "SLURM_ARRAY_TASK_ID": str(index)}
            said |= {"SLURM_ARRAY_TASK_COUNT": str(count), "SLURM_ARRAY_TASK_MIN": "0"}
        return said

    @property
    def state(self) -> str:
        return (self.state_folder / "state").read_text()

    @state.setter
    def state(self, value: str) -> None:
        (self.state_folder / "state").write_text(value)

    @property
    def output(self) -> str:
        """Of all starts, or of the last if the script does not ask for more."""
        return (self.folder / f"slurm-{self.id}.out").read_text()

    def start(self) -> None:
        """The scheduler has room."""
        assert self.state == "PENDING"
        for step in self.state_folder.glob("step-*"):
            shutil.rmtree(step)
        environment = {**os.environ, **self.environment}
        if self.restarts:
            environment["SLURM_RESTART_COUNT"] = str(self.restarts)
        self.deadline, self.state = None, "RUNNING"
        mode = "a" if self.options.get("open-mode") == "append" else "w"
        with (self.folder / f"slurm-{self.id}.out").open(mode) as stream:
            self.shell = subprocess.Popen(
                ["/bin/bash", str(self.spooled), *self.arguments], cwd=self.folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the running job does."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.shell.poll() is None, f"it ended first: {self.output}"
            assert time.monotonic() < deadline, f"waited in vain: {self.output}"
            time.sleep(0.01)

    def processes(self, steps_only: bool = False) -> list[int]:
        """All that the job started and that runs, as a control group would know."""
        marks = [f"FAKE_SLURM={self.state_folder}".encode()] + [b"FAKE_SLURM_STEP="] * steps_only
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                seen = (place / "environ").read_bytes().split(b"\0")
                if all(any(entry.startswith(mark) for entry in seen) for mark in marks):
                    found.append(int(place.name))
        return found

    def signal_steps(self, number: int, *, children: bool = False) -> None:
        """To the tasks of steps, or (SignalChildrenProcesses, or another proctrack plugin) to all processes of them."""
        for pid in self.processes(steps_only=True) if children else self.tasks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def tasks(self) -> list[int]:
        """The processes that steps began with."""
        found = []
        for path in self.state_folder.glob("step-*/*"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(int(path.read_text()))
        return found

    def _signal_shell(self, number: int) -> None:
        if self.shell.poll() is None:
            os.kill(self.shell.pid, number)

    def notice(self) -> None:
        """What the script's --signal asks for, some time before the limit."""
        match = re.fullmatch(r"(B:)?(\w+)@\d+", self.options["signal"])
        assert match is not None
        (self._signal_shell if match[1] else self.signal_steps)(signal.Signals[f"SIG{match[2]}"])

    def grace(self, **options: bool) -> None:
        """A preemption with GraceTime has begun."""
        self.signal_steps(signal.SIGTERM, **options)

    def take_away(self, state: str) -> None:
        """The end: CANCELLED (scancel), TIMEOUT, or PENDING (a preemption that requeues)."""
        self.state = state
        self.restarts += state == "PENDING"
        self.signal_steps(signal.SIGTERM)
        self._signal_shell(signal.SIGTERM)
        self.deadline = self.deadline or time.monotonic() + self.kill_wait

    def end(self) -> str:
        """Wait until the job is over or goes back into the queue; its state then."""
        late = time.monotonic() + PATIENCE
        requeued = self.state_folder / "requeue"
        while self.shell.poll() is None:
            if requeued.exists():
                self.take_away("PENDING")
                requeued.unlink()
            assert time.monotonic() < late, f"it does not end: {self.output}"
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.kill()
            time.sleep(0.01)
        self.exit_code = self.shell.returncode
        if self.state == "RUNNING":
            self.state = "FAILED" if self.exit_code else "COMPLETED"
        self.kill()
        return self.state

    def kill(self) -> None:
        """SIGKILL to all that is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def run(self, starts: int) -> str:
        """Start it again as often as it is requeued, at most `starts` times."""
        for _ in range(starts):
            self.start()
            if self.end() != "PENDING":
                break
        return self.state
