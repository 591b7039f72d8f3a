"""`scancel --signal=TERM JOB.STEP`: to the tasks of a step."""

import contextlib
import os
import signal
import sys
from pathlib import Path

option, _, step = sys.argv[-1].partition(".")
assert sys.argv[1:-1] == ["--signal=TERM"] and option == os.environ["SLURM_JOB_ID"] and step, sys.argv
for task in (Path(os.environ["FAKE_SLURM"]) / f"step-{step}").iterdir():
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(int(task.read_text()), signal.SIGTERM)
