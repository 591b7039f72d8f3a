"""srun as its manual and its source (signals.c) have it: USR1 goes to the tasks as it is, TERM as KILL, and the exit
code is the tasks' largest. Tasks are its children here, each in a session of its own as those of slurmstepd are."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])
# A site may set KillOnBadExit; a script that cares says what it wants.
options = {"nodes": os.environ["SLURM_JOB_NUM_NODES"], "ntasks": "1", "ntasks-per-node": "0", "kill-on-bad-exit": "1"}
words = sys.argv[1:]
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    if name not in options or not value:
        sys.exit(f"srun: unrecognized option '--{name}={value}'")
    options[name] = value

count, hosts = int(options["ntasks"]), os.environ["SLURM_JOB_NODELIST"].split(",")
used = min(int(options["nodes"]), count)
each = int(options["ntasks-per-node"]) or -(-count // used)
if count > each * used or used > len(hosts):
    sys.exit("srun: error: Unable to create step: More processors requested than permitted")
step = len(list(STATE.glob("step-*")))
folder = STATE / f"step-{step}"
folder.mkdir()
tasks: list[subprocess.Popen] = []


def forward(number: int) -> None:
    if number == signal.SIGTERM:
        print("srun: forcing job termination", file=sys.stderr, flush=True)
        number = signal.SIGKILL
    for task in tasks:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(task.pid, number)


for number in range(count):
    environment = {
        **os.environ, "SLURM_PROCID": str(number), "SLURM_NTASKS": str(count), "SLURM_STEP_ID": str(step),
        "SLURM_NODEID": str(number // each), "SLURM_LOCALID": str(number % each),
        "SLURMD_NODENAME": hosts[number // each], "FAKE_SLURM_STEP": str(step),
    }  # fmt: skip
    environment["SLURM_CPUS_PER_TASK"] = os.environ.get("SRUN_CPUS_PER_TASK", "1")
    tasks.append(subprocess.Popen(words, env=environment, start_new_session=True))
    (folder / str(number)).write_text(str(tasks[-1].pid))
for caught in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(caught, lambda number, frame: forward(number))

codes: dict[int, int] = {}
while len(codes) < count:
    pid, status = os.wait()
    number = next(index for index, task in enumerate(tasks) if task.pid == pid)
    (folder / str(number)).unlink()
    code = os.waitstatus_to_exitcode(status)
    codes[number] = code if code >= 0 else 128 - code
    if code:
        print(f"srun: error: task {number}: ended with {code}", file=sys.stderr, flush=True)
        if options["kill-on-bad-exit"] == "1":
            forward(signal.SIGKILL)
sys.exit(max(codes.values()))
