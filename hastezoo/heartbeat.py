"""The heartbeat of a run of several processes: when one dies or hangs, the job ends, with one clear line.

Every process has a thread that writes every half second how far it is into the store by which the processes found
each other (torchrun's, or that of rank 0), and reads there how far the others are. The thread ends the job

- when a process was not heard of for `silence` seconds: it was killed or is frozen, its machine or the network is gone
  (one that may take its time has `stall` seconds: its thread may not get Python's lock);
- when no process finished a step, or began another part of one, for `stall` seconds, and none had said that it may take
  its time; the line names the process for which the others wait;
- when the store itself, once all had reached it, did not answer for `silence` seconds.

The training thread may hang in a collective meanwhile, which hears nothing, so all processes end by `os._exit`, with
code 1, and one of them says why. A process that never beat has `START` seconds more.

Time is counted in beats of one's own, not read off clocks: a process that was stopped itself (SIGSTOP, a laptop's lid)
does not accuse the others when it wakes. What an earlier run left in the store is not taken for a beat, since it never
changes: torchrun starts workers again beside the same store.

The process group has a time-out too (`init_process_group(timeout=...)`). It tells of a collective that took too long,
not of the process that was missing, and knows nothing of work for which the others rightly wait. So it should be far
longer than `silence` and `stall`: then the heartbeat comes first. Where a collective fails at once, since a peer's
connection is closed, `whodunit` says which process has ended.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from hastezoo.board import Answer, Board, Errand, connect
from hastezoo.errors import UserError
from hastezoo.peers import KEPT, Peer, State, names, waited_for, what_became

BEAT = 0.5  # seconds
CROWD = 64  # processes; of more each beats less often, for every one reads what all write
START = 300.0  # seconds more until a process is missed that never beat
EXIT = 1

# In beats:
LATE = 4  # a tick that comes so late was stopped itself
GONE = 5  # without a beat, and with its connections closed: ended
PATIENCE = 10  # until the beats must have told who ended
VOTE = 6  # until one process must have been chosen to speak
LINGER = 2  # from knowing that the job ends until ending, so that the one that speaks is the first
KEEP = 6  # the same for the process that keeps the store, by which the others know


class Heart(Protocol):
    """What training knows of a heartbeat."""

    def at(self, step: int, doing: str) -> None:
        """Note what this process begins to do; cheap, an attribute.

        Args:
            step: Steps done.
            doing: The part of a step, such as "reading data".
        """

    def unhurried(self, doing: str) -> Any:
        """A context in which nobody counts a stall, however long it takes."""

    def whodunit(self, text: str) -> str | None:
        """Which process has ended, when a collective failed. Waits a few beats until that is known.

        Args:
            text: What to say where no beat is missing.

        Returns:
            One line; or None, if another process says it: then end with the same code and say nothing.
        """

    def close(self, *, error: bool = False) -> None:
        """End the watch; nobody accuses this process from now on.

        Args:
            error: It ends with a message of its own, to which the others may point.
        """


class Silent:
    """The heart of a process that is alone: there is nobody to tell, and nobody to watch."""

    def at(self, step: int, doing: str) -> None:
        """Nothing."""

    @contextmanager
    def unhurried(self, doing: str) -> Iterator[None]:
        """Nothing."""
        yield

    def whodunit(self, text: str) -> str | None:
        """The text."""
        return text

    def close(self, *, error: bool = False) -> None:
        """Nothing."""


class Heartbeat:
    """Beats for this process, and watches the others. Begins with `join`.

    Args:
        errand: Calls `Board.exchange`.
        rank, count: Of this process, and how many there are.
        silence, stall: Seconds.
        address: Of the store, in words.
        by_hand: Rank 0's own process keeps the store, not torchrun.
        say: Takes the line, without its end, that ends the job.
        end: Takes the exit code, and does not return.
        clock: Seconds, of this machine alone.
        sleep: Waits so many seconds, of the training thread.
    """

    def __init__(
        self,
        errand: Any,
        *,
        rank: int,
        count: int,
        silence: float,
        stall: float,
        address: str,
        by_hand: bool = False,
        say: Callable[[str], None],
        end: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.errand, self.rank, self.address, self.by_hand = errand, rank, address, by_hand
        self.beat = BEAT * max(1.0, count / CROWD)
        self.silence, self.stall = max(silence, LATE * self.beat), stall
        self.say, self.end, self.clock, self.sleep = say, end, clock, sleep
        self.life, self.host, self.pid = uuid.uuid4().hex[:12], socket.gethostname(), os.getpid()
        self.now: tuple[int, str, bool] = (-1, "starting", False)
        self.status = ""
        self.beats = 0
        self.before = clock()
        self.peers = [Peer(other) for other in range(count)]
        self.reached = False  # the store, by all
        self.mute = self.stalled = self.ending = 0.0
        self.asking = self.asked = self.sentenced = self.said = self.ended = False
        self.line: str | None = None
        self.elected: int | None = None
        self.closing = threading.Event()
        self.watch: threading.Thread | None = None

    @classmethod
    def join(cls, *, rank: int, count: int, silence: float = 60.0, stall: float = 600.0) -> Heart:
        """Begin to beat and to watch; returns at once. Call it before the process group is made, which may hang too.

        Args:
            rank: Of this process.
            count: Of all processes; for one there is nothing to do.
            silence: Seconds without a beat of a process, or without an answer of the store, that end the job.
            stall: Seconds without progress of any process that end the job.

        Raises:
            UserError: If MASTER_ADDR and MASTER_PORT do not say where the store is.
        """
        if count == 1:
            return Silent()
        host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
        if not host or not port.isdecimal():
            raise UserError(
                f"MASTER_ADDR and MASTER_PORT must say where rank 0 of {count} processes is (given: {host!r} and "
                f"{port!r}); start with torchrun, or set them"
            )
        import torch.distributed  # noqa: F401  not by a thread, which the end of the process may meet in the middle

        board = Board(lambda: connect(host, int(port)), rank, count)
        heart = cls(
            Errand(board.exchange), rank=rank, count=count, silence=silence, stall=stall, address=f"{host}:{port}",
            by_hand=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True", say=say_error, end=os._exit,
        )  # fmt: skip
        heart.watch = threading.Thread(target=heart._watch, daemon=True, name="heartbeat")
        heart.watch.start()
        # A process that ends by an exception nobody caught has said so itself.
        atexit.register(heart.close, error=True)
        return heart

    def at(self, step: int, doing: str) -> None:
        """As `Heart` says."""
        self.now = (step, doing, self.now[2])

    @contextmanager
    def unhurried(self, doing: str) -> Iterator[None]:
        """As `Heart` says."""
        before = self.now
        self.now = (before[0], doing, True)
        try:
            yield
        finally:
            self.now = before

    def whodunit(self, text: str) -> str | None:
        """As `Heart` says."""
        self.asked = self.asking = True
        line = self._who_ended()
        for _ in range(PATIENCE):
            if line is not None:
                break
            self.sleep(self.beat)
            line = self._who_ended()
        self.line = self.line or line or text
        for _ in range(VOTE):
            if self.elected is not None or self._lost(GONE * self.beat):
                break
            self.sleep(self.beat)
        self.asking = False
        # Once the watch has begun to end this process, the watch says what there is to say.
        return self.line if self._speaker() == self.rank and not self.sentenced else None

    def close(self, *, error: bool = False) -> None:
        """As `Heart` says."""
        atexit.unregister(self.close)
        if self.closing.is_set():
            return
        self.closing.set()
        if self.watch is not None:
            self.watch.join(LATE * self.beat)
        while self.sentenced and not self.ended:  # what the watch has begun
            self.sleep(self.beat)
            self.tick()
        self.status = "followed" if error and self.asked else "error" if error else "done"
        if self._tell() and self.by_hand and self.rank == 0:
            self._keep_store()

    def tick(self) -> None:
        """One beat: read what the store answered, judge, and ask anew."""
        if self.ended:
            return
        weight = self._weight()
        answered = self.errand.returned()
        answer = self.errand.answer if answered else None
        if answer is None:
            self.mute += weight
        else:
            self._hear(answer, weight)
        if not self.sentenced:
            self._judge()
        if answered:
            self._beat()
        if self.sentenced:
            self._conclude(weight)

    def _watch(self) -> None:
        self._beat()
        while not self.closing.wait(self.beat):
            self.tick()

    def _beat(self) -> None:
        step, doing, unhurried = self.now
        self.beats += 1
        state = State(self.life, self.host, self.pid, self.beats, step, doing, unhurried, self.status)
        standing = self.line is not None and self.elected is None
        self.errand.begin(state.pack(), f"speaker of {self._first_life()}" if standing else "")

    def _first_life(self) -> str:
        """A name of this run that all its processes know and no earlier one had: that of its first process."""
        return next((peer.state.life for peer in self.peers if peer.state is not None), self.life)

    def _weight(self) -> float:
        """Seconds that this tick counts. After it was stopped itself, it begins to count anew."""
        now = self.clock()
        elapsed, self.before = now - self.before, now
        if elapsed <= LATE * self.beat:
            return min(elapsed, 2 * self.beat)
        self.mute = self.stalled = 0.0
        for peer in self.peers:
            peer.age = 0.0
        return 0.0

    def _hear(self, answer: Answer, weight: float) -> None:
        before = [peer.progress for peer in self.peers]
        for peer, note in zip(self.peers, answer.notes, strict=True):
            peer.hear(note, weight)
        moved = before != [peer.progress for peer in self.peers]
        at_leisure = any(peer.state is None or peer.state.unhurried or peer.status == "done" for peer in self.peers)
        self.stalled = 0.0 if moved or at_leisure else self.stalled + weight
        # The store may stand still while processes reach it: torch looks their names up, which may take seconds each.
        self.mute, self.reached = 0.0, self.reached or None not in answer.notes
        if answer.elected is not None:
            self.elected = answer.elected

    def _judge(self) -> None:
        """Whether the job is to end. Where another process ends it, this one need not know why."""
        line = None if self.asking else self._verdict()
        if line is not None or any(peer.status == "ending" for peer in self._others()):
            self.line = self.line or line
            self.sentenced, self.status = True, "ending"

    def _verdict(self) -> str | None:
        """Why the job is to end, if it is."""
        if self._lost(self.silence if self.reached else self.silence + START):
            return f"{self._lost_words(f'could not be reached for {self.mute:.0f} s')}. {KEPT}"
        silent = [peer for peer in self._others() if peer.age >= self._patience(peer) and peer.status != "done"]
        known = [peer for peer in silent if peer.state is not None]
        if known:
            return what_became(known, f"not been heard of for {known[0].age:.0f} s")
        unknown = [peer for peer in silent if peer.state is None]
        if unknown:
            have = "has" if len(unknown) == 1 else "have"
            return f"{names(unknown)} {have} not started within {self.silence + START:g} s of the others. {KEPT}"
        if self.stalled >= self.stall:
            return f"no step was finished for {self.stall:g} s: {waited_for(self.peers)}. {KEPT}"
        return None

    def _patience(self, peer: Peer) -> float:
        """Seconds without a beat until it is missed. What takes long may hold Python's lock, as SciPy does."""
        if peer.state is None:
            return self.silence + START
        return max(self.silence, self.stall) if peer.state.unhurried else self.silence

    def _others(self) -> list[Peer]:
        return [peer for peer in self.peers if peer.rank != self.rank]

    def _lost(self, seconds: float) -> bool:
        """Whether the store did not answer for so long, and should: kept by rank 0, it goes when rank 0 is done."""
        return self.mute >= seconds and not (self.by_hand and self.peers[0].status == "done")

    def _lost_words(self, what: str) -> str:
        first = self.peers[0]
        if self.by_hand and first.state is not None:
            return f"{names([first])} {what} at {self.address}; it was {first.place}"
        return f"the machine of rank 0 ({self.address}) {what}"

    def _who_ended(self) -> str | None:
        """The answer of `whodunit`, once the beats give one."""
        seconds = GONE * self.beat
        if self._lost(seconds):
            return f"{self._lost_words('cannot be reached any more')}. {KEPT}"
        known = [peer for peer in self._others() if peer.state is not None]
        failed = [peer for peer in known if peer.status == "error"]
        # Those that ended together, as the processes of one machine do, are not heard of for equally long, nearly.
        quiet = [peer for peer in known if not peer.status and peer.age >= seconds - 2 * self.beat]
        if failed or any(peer.age >= seconds for peer in quiet):
            return what_became(failed or quiet, "ended")
        return None

    def _speaker(self) -> int:
        """The rank that was elected. Without a store it is everyone, or one, where the cause has spoken for itself."""
        if self.elected is not None:
            return self.elected
        if any(peer.status == "error" for peer in self.peers):
            return min((peer.rank for peer in self.peers if not peer.status), default=self.rank)
        return self.rank

    def _conclude(self, weight: float) -> None:
        """Speak, if this process is to, and end."""
        self.ending += weight
        if self.line is not None and not self.said:
            lost = self._lost(GONE * self.beat)
            if self.elected is None and not lost and self.ending < VOTE * self.beat:
                return
            if self._speaker() == self.rank:
                self.say(self.line)
                self.said = True
        patience = KEEP if self.by_hand and self.rank == 0 else 0 if self.said else LINGER
        if self.ending >= patience * self.beat:
            self.ended = True
            self.end(EXIT)

    def _tell(self) -> bool:
        """Write the state once more, out of the rhythm; whether it could be."""
        if not self.errand.returned(LATE * self.beat):
            return False
        self._beat()
        return self.errand.returned(LATE * self.beat) and self.errand.answer is not None

    def _keep_store(self) -> None:
        """Until the others, if they live, have read how this process ended: the store ends with it."""
        for _ in range(round(self.silence / self.beat)):
            self._hear(self.errand.answer, self.beat)
            if all(peer.status or peer.state is None or peer.age >= GONE * self.beat for peer in self.peers):
                break
            self.sleep(self.beat)
            if not self._tell():
                break


def say_error(line: str) -> None:
    """Write the line to stderr past Python's own buffer, whose lock a thread that hangs may hold."""
    os.write(2, f"error: {line}\n".encode())
