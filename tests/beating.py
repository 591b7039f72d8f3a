"""Groups of real processes with a heartbeat, forked from one interpreter, which imports torch once.

    python -m tests.beating FOLDER

writes for each group what its processes said on stderr to FOLDER/NAME, and their exit codes to FOLDER/NAME.codes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from hastezoo.heartbeat import Heartbeat
from tests.ranks import free_port

COUNT = 3
TEXT = "another process has ended"


def fork(function: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        code = 70
        try:
            code = function()
        finally:
            os._exit(code)
    return child


def until(happened: Callable[[], bool]) -> None:
    """At most a minute."""
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise TimeoutError


class Group:
    """Three processes.

    Args:
        name: Of its files.
        by_hand: Rank 0 keeps the store, and not a process beside them.
        work: What the processes do from step 7 on; it returns an exit code.
    """

    def __init__(self, name: str, folder: Path, by_hand: bool, work: Callable[[Group, Heartbeat, int], int]) -> None:
        self.name, self.folder, self.by_hand, self.work = name, folder, by_hand, work
        self.port = free_port()
        self.keeper = 0 if by_hand else fork(self._keep)
        self.pids = [fork(lambda rank=rank: self._run(rank)) for rank in range(COUNT)]  # type: ignore[misc]

    def _store(self) -> object:
        from torch.distributed import TCPStore

        return TCPStore("127.0.0.1", self.port, None, True, timedelta(seconds=60), wait_for_workers=False)

    def _keep(self) -> int:
        kept = self._store()
        time.sleep(100)
        return int(kept is None)

    def _run(self, rank: int) -> int:
        log = os.open(self.folder / self.name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 2)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(self.port))
        if not self.by_hand:
            os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        kept = self._store() if self.by_hand and rank == 0 else None
        heart = Heartbeat.join(rank=rank, count=COUNT, silence=3.0, stall=100.0)
        assert isinstance(heart, Heartbeat)
        heart.at(7, "reading data")
        until(lambda: all(peer.state is not None and peer.state.step == 7 for peer in heart.peers))
        self.mark(f"ready{rank}")
        code = self.work(self, heart, rank)
        del kept
        return code

    def mark(self, what: str) -> None:
        (self.folder / f"{self.name}.{what}").touch()

    def wait(self, what: str) -> None:
        until((self.folder / f"{self.name}.{what}").exists)

    def ready(self) -> None:
        for rank in range(COUNT):
            self.wait(f"ready{rank}")

    def finish(self, *ranks: int) -> dict[int, int]:
        return {rank: os.waitstatus_to_exitcode(os.waitpid(self.pids[rank], 0)[1]) for rank in ranks}

    def conclude(self, codes: dict[int, int]) -> None:
        if self.keeper:
            os.kill(self.keeper, signal.SIGKILL)
            os.waitpid(self.keeper, 0)
        (self.folder / f"{self.name}.codes").write_text(" ".join(str(codes[rank]) for rank in range(COUNT)))


def hang(group: Group, heart: Heartbeat, rank: int) -> int:
    time.sleep(100)
    return 0


def ask(group: Group, heart: Heartbeat, rank: int) -> int:
    """As training does when a collective fails, which the test says by a file."""
    group.wait("failed")
    line = heart.whodunit(TEXT)
    heart.close(error=True)
    if line is not None:
        os.write(2, f"error: {line}\n".encode())
    return 1


def fail(group: Group, heart: Heartbeat, rank: int) -> int:
    """Rank 0 ends with an error; then the collective of the others fails."""
    if rank > 0:
        return ask(group, heart, rank)
    os.write(2, b"error: it broke (as it may)\n")
    heart.close(error=True)
    group.mark("failed")
    return 2


def finish(group: Group, heart: Heartbeat, rank: int) -> int:
    heart.close()
    return 0


def main(folder: Path) -> None:
    import torch.distributed  # noqa: F401  once, and not in each process

    frozen = Group("frozen", folder, False, hang)
    killed = Group("killed", folder, False, ask)
    keeper_killed = Group("keeper killed", folder, True, hang)
    keeper_frozen = Group("keeper frozen", folder, True, hang)
    error = Group("error", folder, True, fail)
    done = Group("done", folder, True, finish)
    for group in (frozen, killed, keeper_killed, keeper_frozen):
        group.ready()
    os.kill(frozen.pids[1], signal.SIGSTOP)
    os.kill(killed.pids[2], signal.SIGKILL)
    killed.mark("failed")
    os.kill(keeper_killed.pids[0], signal.SIGKILL)
    os.kill(keeper_frozen.pids[0], signal.SIGSTOP)
    killed.conclude(killed.finish(0, 1, 2))
    keeper_killed.conclude(keeper_killed.finish(0, 1, 2))
    codes = frozen.finish(0, 2)
    os.kill(frozen.pids[1], signal.SIGCONT)
    frozen.conclude({**codes, **frozen.finish(1)})
    codes = keeper_frozen.finish(1, 2)
    os.kill(keeper_frozen.pids[0], signal.SIGKILL)
    keeper_frozen.conclude({**codes, **keeper_frozen.finish(0)})
    error.conclude(error.finish(0, 1, 2))
    done.conclude(done.finish(0, 1, 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
