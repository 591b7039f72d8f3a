"""Work shared out by number over ranks: processes, on any machines, that share nothing but a folder.

Rank r of n makes the units u with u mod n = r. Rank 0 waits for what the others make, which it can only see on disk: so
it says now and then what is missing, and how who would make it is started again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SILENCE = 30.0  # seconds in which nothing appears, before it is said what is missing
AGAIN = 300.0  # seconds at least between two times that it is said
NAMED = 8  # ranks at most, in one line


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    count: int = 1

    def share(self, units: int) -> range:
        """Which of so many units are this process' own."""
        return range(units)[self.rank :: self.count]

    def owns(self, unit: int) -> bool:
        return unit % self.count == self.rank


@dataclass(frozen=True)
class Missing:
    """What the process that waits does not see yet.

    Attributes:
        units: Their numbers.
        total: Of all units, those that are there included.
        ranks: Over how many processes they are shared out.
    """

    units: Sequence[int]
    total: int
    ranks: int

    @property
    def of_ranks(self) -> dict[int, int]:
        """How many are missing of each rank that is behind."""
        return dict(sorted(Counter(unit % self.ranks for unit in self.units).items()))

    def line(self, things: str, command: str) -> str:
        """What is said of it.

        Args:
            things: What the units are, such as shards.
            command: What every rank was started with.
        """
        behind = [f"{count} of rank {rank}" for rank, count in self.of_ranks.items()]
        if len(behind) > NAMED:
            behind[NAMED:] = [f"the rest of {len(behind) - NAMED} more ranks"]
        example = next(iter(self.of_ranks))
        return (
            f"waiting for {len(self.units):,} of {self.total:,} {things}: {', '.join(behind)}; a rank that has ended "
            f"is started again with RANK={example} WORLD_SIZE={self.ranks} {command}"
        )


Tell = Callable[[Missing], None]
"""Told what is being waited for."""


class Waiting:
    """Says what is missing after `SILENCE`, and then every `AGAIN`, as long as nothing new appears."""

    def __init__(self, total: int, ranks: int, tell: Tell) -> None:
        self.total, self.ranks, self.tell = total, ranks, tell
        self._count = -1
        self._since = self._not_before = time.monotonic()

    def see(self, missing: Sequence[int]) -> None:
        """What is missing now."""
        now = time.monotonic()
        if len(missing) != self._count:
            self._count, self._since = len(missing), now
        if now - self._since >= SILENCE and now >= self._not_before:
            self._not_before = now + AGAIN
            self.tell(Missing(missing, self.total, self.ranks))
