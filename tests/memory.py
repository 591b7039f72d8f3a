"""Peak memory of a process of its own, for Linux."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# VmHWM and not ru_maxrss: the latter starts at what the parent held when it forked.
REPORT = """
import re
from pathlib import Path
print("PEAK", 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
"""


def run_measured(code: str, *arguments: str | Path, **environment: str) -> tuple[str, int]:
    """(output, peak bytes of resident memory) of Python code in a new process."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    result = subprocess.run(
        [sys.executable, "-c", code + REPORT, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    output, _, peak = result.stdout.rpartition("PEAK")
    return output, int(peak)
