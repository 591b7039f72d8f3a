"""Ranks: who may work beside whom, who makes what, and what is said of those that are waited for."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from filelock import FileLock

from hastezoo.data import locks, ranks
from hastezoo.data.locks import at_work
from hastezoo.data.ranks import Missing, Ranks, Waiting
from hastezoo.errors import UserError

ALONE = Ranks()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".rank"))


@pytest.mark.parametrize(
    ("inside", "comes", "refusal"),
    [
        (ALONE, ALONE, "another process is preparing {}; wait for it, or end it first"),
        (ALONE, Ranks(0, 2), "another process is preparing {}; wait for it, or end it first"),
        (Ranks(1, 2), ALONE, "rank 1 of 2 is preparing {}; wait for all of them, or end them first"),
        (Ranks(1, 2), Ranks(1, 2), "another process is preparing {} as rank 1 of 2; end it first"),
        (Ranks(1, 2), Ranks(1, 3), "rank 1 of 2 is preparing {}; wait for all of them, or end them first"),
        (Ranks(1, 2), Ranks(0, 2), None),
        (Ranks(1, 12), Ranks(11, 12), None),
    ],
)
def test_who_goes_together(tmp_path: Path, inside: Ranks, comes: Ranks, refusal: str | None) -> None:
    with at_work(tmp_path, inside, "preparing"):
        with contextlib.ExitStack() as stack:
            if refusal is not None:
                message = stack.enter_context(pytest.raises(UserError))
            held = stack.enter_context(at_work(tmp_path, comes, "preparing", patience=0))
            with held.gate():
                assert held.others() == [inside]
        if refusal is not None:
            assert str(message.value) == refusal.format(tmp_path)
    with at_work(tmp_path, comes, "preparing", patience=0):
        pass
    assert hidden(tmp_path) == []


def test_patience_with_one_that_is_about_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL", 0.01)
    stack = contextlib.ExitStack()
    stack.enter_context(at_work(tmp_path, Ranks(0, 3), "preparing"))
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: stack.close())
    with at_work(tmp_path, ALONE, "preparing", patience=60) as held, held.gate():
        assert held.others() == []


def test_what_dead_ranks_leave_is_taken_away(tmp_path: Path) -> None:
    for name in (".rank-0-of-7.lock", ".rank-6-of-7.lock", ".rank-x.lock"):
        (tmp_path / name).touch()
    with at_work(tmp_path, ALONE, "preparing", patience=0):
        assert hidden(tmp_path) == [".rank-x.lock"]


def test_the_gate_lets_one_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ranks; one that is alone holds it to its end."""
    monkeypatch.setattr(locks, "GATE_PATIENCE", 0.0)
    with at_work(tmp_path, Ranks(0, 2), "preparing") as first, at_work(tmp_path, Ranks(1, 2), "preparing") as second:
        with first.gate(), pytest.raises(UserError, match=r"another process holds .*\.lock and does not let go"):
            second.gate().__enter__()
        with second.gate():
            pass
    with at_work(tmp_path, ALONE, "preparing") as held:
        with held.gate():
            pass
        with pytest.raises(UserError), at_work(tmp_path, Ranks(1, 2), "preparing", patience=0):
            pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    with at_work(tmp_path, Ranks(0, 2), "preparing", patience=0) as held, held.gate():
        pass


@pytest.mark.parametrize(("units", "count"), [(0, 1), (1, 3), (7, 1), (7, 3), (8, 8)])
def test_every_unit_is_one_rank_s(units: int, count: int) -> None:
    every = [Ranks(rank, count) for rank in range(count)]
    assert sorted(unit for one in every for unit in one.share(units)) == list(range(units))
    assert all(one.owns(unit) == (unit in one.share(units)) for one in every for unit in range(units))


def test_the_line() -> None:
    missing = Missing([1, 3, 6, 1001], 2000, 8)
    assert missing.of_ranks == {1: 2, 3: 1, 6: 1}
    assert missing.line("shards", "hastezoo prepare folder a b") == (
        "waiting for 4 of 2,000 shards: 2 of rank 1, 1 of rank 3, 1 of rank 6; a rank that has ended is started again "
        "with RANK=1 WORLD_SIZE=8 hastezoo prepare folder a b"
    )
    many = Missing(range(1, 64), 64, 64).line("chunks", "hastezoo eval-fid")
    assert many.startswith("waiting for 63 of 64 chunks: 1 of rank 1, 1 of rank 2, ")
    assert "1 of rank 8, the rest of 55 more ranks; " in many and "rank 9" not in many


def test_when_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a minute without anything new, then every five minutes; new ones begin the half minute again."""
    now = 1000.0
    monkeypatch.setattr(ranks.time, "monotonic", lambda: now)
    told: list[tuple[float, list[int]]] = []
    waiting = Waiting(9, 3, lambda missing: told.append((now - 1000, list(missing.units))))
    behind = [1, 2, 4]
    for second in range(0, 1000):
        now = 1000.0 + second
        if second in (20, 340):
            behind.pop()
        waiting.see(behind)
    assert told == [(50, [1, 2]), (370, [1]), (670, [1]), (970, [1])]
