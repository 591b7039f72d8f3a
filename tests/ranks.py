"""Runs a function in several processes that talk over gloo, forked from one interpreter, which imports things once.

    python -m tests.ranks COUNT MODULE FUNCTION FOLDER

calls MODULE.FUNCTION(Path(FOLDER)) in COUNT processes, as torchrun would start them but for restarts, after
MODULE.warm_up() in the one that forks.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def call(count: int, function: str, folder: Path, timeout: float = 240) -> str:
    """Call `module.function` in so many processes; what they print. All must end well."""
    module, _, name = function.rpartition(".")
    command = [sys.executable, "-m", "tests.ranks", str(count), module, name, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, timeout=timeout, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def main(count: int, module: str, name: str, folder: str) -> int:
    functions = importlib.import_module(module)
    functions.warm_up()
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank))
            getattr(functions, name)(Path(folder))
            sys.stdout.flush()
            os._exit(0)  # what an exception does too, with its traceback
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return max(map(abs, codes))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
