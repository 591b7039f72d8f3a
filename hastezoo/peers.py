"""What the processes of a run know of each other: how far each is, for which one the others wait, and words for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

WAITS = frozenset({"forward and backward"})  # parts of a step in which processes wait for each other
KEPT = "The last checkpoint is good, and the same command goes on from it"


@dataclass(frozen=True)
class State:
    """What a process writes with a beat.

    Attributes:
        life: A random name of this process.
        beat: Counts.
        step: Steps done, -1 before training began.
        doing: In words.
        unhurried: It may take long.
        status: Empty, or "ending" (it takes part in ending the job), "done", "error" (it ended with one), "followed"
            (it ended since another had).
    """

    life: str
    host: str
    pid: int
    beat: int = 0
    step: int = -1
    doing: str = "starting"
    unhurried: bool = False
    status: str = ""

    @property
    def place(self) -> str:
        """Where in the run it is."""
        return self.doing if self.step < 0 else f"at step {self.step}, {self.doing}"

    def pack(self) -> str:
        """As text."""
        return json.dumps(asdict(self))


@dataclass
class Peer:
    """A process as another one hears it.

    Attributes:
        state: Its last, once it has changed: what never does was left by another run.
        age: Seconds since it changed.
    """

    rank: int
    raw: bytes | None = None
    state: State | None = None
    age: float = 0.0

    def hear(self, raw: bytes | None, weight: float) -> None:
        """Take in what it last wrote, None for nothing, `weight` seconds after the time before."""
        if raw is None or raw == self.raw:
            self.age += weight
            return
        if self.raw is not None:
            self.state = State(**json.loads(raw))
        self.raw, self.age = raw, 0.0

    @property
    def status(self) -> str:
        """As of its state; empty before it is known."""
        return "" if self.state is None else self.state.status

    @property
    def progress(self) -> tuple[int, str] | None:
        """What changes as long as it gets on."""
        return None if self.state is None else (self.state.step, self.state.doing)

    @property
    def place(self) -> str:
        """Where in the run it is."""
        return "starting" if self.state is None else self.state.place


def names(peers: Sequence[Peer], most: int = 3) -> str:
    """Which processes, with where they run, as far as that is known."""
    words = [
        str(peer.rank) if peer.state is None else f"{peer.rank} (host {peer.state.host}, pid {peer.state.pid})"
        for peer in peers
    ]
    if len(words) == 1:
        return f"rank {words[0]}"
    if len(words) > most:
        return f"ranks {', '.join(words[:most])} and {len(words) - most} more"
    return f"ranks {', '.join(words[:-1])} and {words[-1]}"


def what_became(peers: Sequence[Peer], what: str) -> str:
    """A line about processes that are no more: "has `what`", and where in the run; or that they said why themselves."""
    failed = [peer for peer in peers if peer.status == "error"]
    if failed:
        say = "it says" if len(failed) == 1 else "they say"
        return f"{names(failed)} ended with an error {failed[0].place}; see what {say}"
    have, it = ("has", "it") if len(peers) == 1 else ("have", "the first")
    return f"{names(peers)} {have} {what}; {it} was {peers[0].place}. {KEPT}"


def culprits(states: dict[int, State]) -> list[int]:
    """The ranks for which the others wait: of those with the fewest steps the ones that wait for nobody.

    Where that tells nothing, those that do something else than most; none, if all do the same.
    """
    fewest = min(state.step for state in states.values())
    behind = [rank for rank, state in states.items() if state.step == fewest]
    busy = [rank for rank in behind if states[rank].doing not in WAITS]
    if len(behind) < len(states):
        return busy or behind
    if 0 < len(busy) < len(behind):
        return busy
    counted = Counter(state.doing for state in states.values()).most_common()
    if len(counted) == 1:
        return []
    if counted[0][1] == counted[1][1]:
        return behind
    return [rank for rank in behind if states[rank].doing != counted[0][0]]


def waited_for(peers: Sequence[Peer]) -> str:
    """Of processes that all stand still, where those are for which the others wait."""
    found = culprits({peer.rank: peer.state for peer in peers if peer.state is not None})
    if not found:
        return f"all are {peers[0].place}"
    places: dict[str, list[Peer]] = {}
    for peer in peers:
        if peer.rank in found:
            places.setdefault(peer.place, []).append(peer)
    words = "; ".join(f"{names(group)} {'is' if len(group) == 1 else 'are'} {place}" for place, group in places.items())
    if len(found) == len(peers):
        return words
    return f"{words}, and the others wait for {'it' if len(found) == 1 else 'them'}"
