"""A process that dies or hangs ends the job, in one line. Time and store are made up; at the end processes are real."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hastezoo.board import Board, Errand
from hastezoo.errors import UserError
from hastezoo.heartbeat import BEAT, GONE, LINGER, START, Heartbeat, Silent
from hastezoo.peers import KEPT, State, culprits


class Store:
    """What is used of torch's, in a dict. It can break, and hang."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.calls = 0
        self.broken = self.hangs = False

    def _use(self) -> None:
        self.calls += 1
        if self.broken:
            raise RuntimeError("Broken pipe")

    def set(self, key: str, value: str) -> None:
        self._use()
        self.values[key] = value.encode()

    def append(self, key: str, value: str) -> None:
        self._use()
        self.values[key] = self.values.get(key, b"") + value.encode()

    def get(self, key: str) -> bytes:
        self._use()
        return self.values[key]

    def multi_get(self, keys: list[str]) -> list[bytes]:
        self._use()
        return [self.values[key] for key in keys]

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        self._use()
        assert expected == ""
        return self.values.setdefault(key, desired.encode())


class Prompt:
    """An errand that is done when it is looked at, unless the store hangs."""

    def __init__(self, board: Board, store: Store) -> None:
        self.board, self.store = board, store
        self.given: tuple[str, str] | None = None
        self.answer: Any = None

    def begin(self, note: str, election: str) -> None:
        assert self.given is None, "one call at a time"
        self.given, self.answer = (note, election), None
        self.returned()

    def returned(self, seconds: float = 0.0) -> bool:
        if self.store.hangs:
            return False
        if self.given is not None:
            self.answer, self.given = self.board.exchange(*self.given), None
        return True


class Team:
    """Heartbeats of as many ranks, driven beat by beat."""

    def __init__(self, count: int = 3, store: Store | None = None, **settings: Any) -> None:
        self.time = 0.0
        self.store = store or Store()
        self.said: list[tuple[int, str]] = []
        self.ended: dict[int, float] = {}
        self.stopped: set[int] = set()
        self.count = count
        self.hearts = [self._heart(rank, settings) for rank in range(count)]

    def _heart(self, rank: int, settings: dict[str, Any]) -> Heartbeat:
        def end(code: int) -> None:
            assert code == 1
            assert rank not in self.ended, "a process ends once"
            self.ended[rank] = self.time

        heart = Heartbeat(
            Prompt(Board(lambda: (self.store, lambda: None), rank, self.count), self.store),
            rank=rank, count=self.count, address="node1:29500", say=lambda line: self.said.append((rank, line)),
            end=end, clock=lambda: self.time, sleep=lambda seconds: self.run(seconds),
            **{"silence": 60.0, "stall": 600.0, **settings},
        )  # fmt: skip
        heart.host, heart.pid = f"node{rank // 8}", 4200 + rank
        return heart

    def run(self, seconds: float, work: Callable[[], None] = lambda: None) -> None:
        """Let time pass; work is done before every beat."""
        for _ in range(round(seconds / BEAT)):
            self.time += BEAT
            work()
            for rank, heart in enumerate(self.hearts):
                if rank not in self.stopped and rank not in self.ended and not heart.closing.is_set():
                    heart.tick()

    def at(self, *places: tuple[int, str]) -> None:
        for heart, place in zip(self.hearts, places, strict=True):
            heart.at(*place)

    def quiet(self) -> bool:
        return not self.said and not self.ended


def same(step: int, doing: str, count: int = 3) -> list[tuple[int, str]]:
    return [(step, doing)] * count


def test_to_note_a_place_asks_no_store() -> None:
    team = Team()
    team.run(2)
    before = team.store.calls
    for step in range(100):
        team.hearts[0].at(step=step, doing="reading data")
        with team.hearts[0].unhurried("drawing"):
            pass
    assert team.store.calls == before


def test_one_process_has_nobody_to_watch() -> None:
    heart = Heartbeat.join(rank=0, count=1)
    assert isinstance(heart, Silent)
    heart.at(step=3, doing="reading data")
    with heart.unhurried("drawing"):
        assert heart.whodunit("it broke") == "it broke"
    heart.close()


@pytest.mark.parametrize(("host", "port"), [(None, "29500"), ("node1", None), ("node1", "none")])
def test_several_processes_must_know_where_the_store_is(
    monkeypatch: pytest.MonkeyPatch, host: str | None, port: str | None
) -> None:
    for name, value in (("MASTER_ADDR", host), ("MASTER_PORT", port)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"of 4 processes .*torchrun"):
        Heartbeat.join(rank=0, count=4)


def test_a_process_that_falls_silent_ends_the_job_in_one_line() -> None:
    team = Team(4)
    team.at(*same(1200, "reading data", 4))
    team.run(100)
    assert team.quiet()
    team.stopped = {3}
    team.run(59)
    assert team.quiet()
    team.run(5)
    assert [line for _, line in team.said] == [
        f"rank 3 (host node0, pid 4203) has not been heard of for 60 s; it was at step 1200, reading data. {KEPT}"
    ]
    assert set(team.ended) == {0, 1, 2}


def test_the_one_that_speaks_ends_first_and_the_others_soon() -> None:
    team = Team(4)
    team.run(5)
    team.stopped = {2}
    team.run(70)
    (speaker, _), *_ = team.said
    others = [team.ended[rank] for rank in team.ended if rank != speaker]
    assert len(others) == 2
    assert all(0 < time - team.ended[speaker] <= LINGER * BEAT for time in others)


def test_rank_0_by_hand_ends_last_for_it_keeps_the_store() -> None:
    team = Team(3, by_hand=True)
    team.run(5)
    team.stopped = {2}
    team.run(70)
    assert len(team.said) == 1
    assert team.ended[0] - team.ended[1] >= LINGER * BEAT


def test_processes_of_one_machine_are_named_together() -> None:
    team = Team(14)
    team.at(*same(7, "saving", 14))
    team.run(5)
    team.stopped = set(range(8, 14))
    team.run(70)
    assert [line for _, line in team.said] == [
        "ranks 8 (host node1, pid 4208), 9 (host node1, pid 4209), 10 (host node1, pid 4210) and 3 more have not been "
        f"heard of for 60 s; the first was at step 7, saving. {KEPT}"
    ]


def test_who_wakes_from_a_stop_accuses_nobody() -> None:
    team = Team(2)
    team.run(5)
    team.stopped = {1}
    team.run(50)
    team.time += 1000  # both
    team.run(20)
    assert team.quiet()
    team.stopped = set()
    team.run(300)
    assert team.quiet()


def test_beats_are_counted_and_not_the_clock() -> None:
    team = Team(2)
    team.run(5)
    for _ in range(55):
        team.time += 3 * BEAT  # late, though not so late that this process was stopped
        team.hearts[0].tick()
    assert team.quiet()  # 82.5 s, of which 55 count
    for _ in range(10):
        team.time += 3 * BEAT
        team.hearts[0].tick()
    assert team.said


def test_a_process_that_never_beats_has_longer_and_is_named() -> None:
    team = Team(3)
    team.stopped = {2}
    team.run(60 + START - 1)
    assert team.quiet()
    team.run(5)
    assert [line for _, line in team.said] == [f"rank 2 has not started within 360 s of the others. {KEPT}"]


def test_what_an_earlier_run_left_in_the_store_is_no_beat() -> None:
    team = Team(3)
    team.at(*same(17, "reading data"))
    team.run(5)
    team.stopped = {2}
    team.run(70)
    assert set(team.ended) == {0, 1}
    after = Team(3, team.store)
    after.run(100)
    assert after.quiet()
    after.stopped = {1}
    after.run(65)
    assert [line.partition(";")[0] for _, line in after.said] == [
        "rank 1 (host node0, pid 4201) has not been heard of for 60 s"
    ]
    never = Team(3, team.store)
    never.stopped = {2}
    never.run(60 + START + 5)
    assert [line for _, line in never.said] == [f"rank 2 has not started within 360 s of the others. {KEPT}"]


def test_a_step_that_is_never_finished_ends_the_job() -> None:
    team = Team(3)
    team.at(*same(1199, "forward and backward"))
    team.run(500)
    team.at((1200, "forward and backward"), (1200, "reading data"), (1200, "forward and backward"))
    team.run(599)
    assert team.quiet()
    team.run(5)
    assert [line for _, line in team.said] == [
        "no step was finished for 600 s: rank 1 (host node0, pid 4201) is at step 1200, reading data, and the others "
        f"wait for it. {KEPT}"
    ]
    assert set(team.ended) == {0, 1, 2}


def test_any_progress_of_any_process_is_progress() -> None:
    team = Team(3)
    team.at(*same(3, "reading data"))
    team.run(500)
    team.hearts[2].at(3, "forward and backward")
    team.run(590)
    assert team.quiet()
    team.run(20)
    assert "ranks 0 (host node0, pid 4200) and 1 (host node0, pid 4201) are at step 3, reading data" in team.said[0][1]


def test_where_all_stand_at_the_same_place_nobody_is_named() -> None:
    team = Team(3)
    team.at(*same(12, "forward and backward"))
    team.run(610)
    assert [line for _, line in team.said] == [
        f"no step was finished for 600 s: all are at step 12, forward and backward. {KEPT}"
    ]


def test_those_in_different_places_are_named_each_in_its_own() -> None:
    team = Team(2)
    team.at((5, "saving"), (5, "reading data"))
    team.run(610)
    assert [line for _, line in team.said] == [
        "no step was finished for 600 s: rank 0 (host node0, pid 4200) is at step 5, saving; "
        f"rank 1 (host node0, pid 4201) is at step 5, reading data. {KEPT}"
    ]


def test_nobody_counts_a_stall_while_one_takes_its_time() -> None:
    team = Team(3)
    team.at(*same(5, "forward and backward"))
    with team.hearts[0].unhurried("drawing samples"):
        team.run(5000)
    assert team.quiet()
    assert team.hearts[1].peers[0].state is not None
    assert team.hearts[1].peers[0].state.doing == "drawing samples"
    team.run(590)
    assert team.quiet()
    team.run(20)
    assert team.said


def test_one_that_takes_its_time_may_be_silent_for_as_long_as_a_stall() -> None:
    team = Team(3)
    with team.hearts[0].unhurried("measuring"):
        team.run(5)
        team.stopped = {0}
        team.run(590)
        assert team.quiet()
        team.run(20)
    assert [line for _, line in team.said] == [
        f"rank 0 (host node0, pid 4200) has not been heard of for 600 s; it was measuring. {KEPT}"
    ]


FB, READ, SAVE = "forward and backward", "reading data", "saving"


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(12, FB), (12, FB), (12, READ)], [2]),
        ([(12, READ), (12, READ), (12, FB)], [0, 1]),  # not the one that differs from most: it waits
        ([(13, READ), (12, FB), (13, READ)], [1]),
        ([(13, FB), (12, FB), (12, READ)], [2]),
        ([(13, READ), (12, FB), (12, FB)], [1, 2]),
        ([(12, SAVE), (12, READ), (12, READ)], [0]),
        ([(12, SAVE), (12, READ)], [0, 1]),
        ([(12, READ), (12, FB)], [0]),
        ([(12, FB), (12, FB)], []),
        ([(12, READ), (12, READ)], []),
    ],
)
def test_whom_the_others_wait_for(places: list[tuple[int, str]], expected: list[int]) -> None:
    states = {rank: State("life", "host", 1, step=step, doing=doing) for rank, (step, doing) in enumerate(places)}
    assert culprits(states) == expected


@pytest.mark.parametrize("how", ["broken", "hangs"])
def test_the_store_is_gone(how: str) -> None:
    team = Team(3)
    team.run(5)
    setattr(team.store, how, True)
    team.run(59)
    assert team.quiet()
    team.run(5)
    line = f"the machine of rank 0 (node1:29500) could not be reached for 60 s. {KEPT}"
    assert team.said == [(rank, line) for rank in range(3)]
    assert set(team.ended) == {0, 1, 2}


def test_the_store_may_take_long_to_be_there() -> None:
    team = Team(3)
    team.store.broken = True
    team.run(60 + START - 1)
    assert team.quiet()
    team.store.broken = False
    team.run(300)
    assert team.quiet()
    unborn = Team(2)
    unborn.store.broken = True
    unborn.run(60 + START + 1)
    assert len(unborn.said) == 2


@pytest.mark.parametrize("how", ["broken", "hangs"])
def test_a_pause_of_the_store_is_nobodys_silence(how: str) -> None:
    team = Team(3)
    team.at(*same(5, "reading data"))
    team.run(5)
    setattr(team.store, how, True)
    team.run(55)
    setattr(team.store, how, False)
    team.run(50)
    assert team.quiet()


def test_a_store_that_rank_0_kept_goes_with_it() -> None:
    team = Team(3, by_hand=True)
    team.at(*same(5, "reading data"))
    team.run(5)
    team.stopped, team.store.broken = {0}, True
    team.run(70)
    line = "rank 0 (host node0, pid 4200) could not be reached for 60 s at node1:29500; it was at step 5, reading data"
    assert team.said == [(rank, f"{line}. {KEPT}") for rank in (1, 2)]


def test_a_store_that_rank_0_kept_may_go_when_it_is_done() -> None:
    team = Team(2, by_hand=True)
    team.run(5)
    team.hearts[0].close()
    team.store.broken = True
    team.run(5000)
    assert team.quiet()


def test_rank_0_keeps_its_store_until_the_others_have_read_how_it_ended() -> None:
    team = Team(3, by_hand=True)
    team.run(5)
    before = team.time
    team.hearts[0].close(error=True)
    assert team.time > before
    assert [heart.peers[0].status for heart in team.hearts[1:]] == ["error", "error"]
    for by_hand in (True, False):
        all_done = Team(2, by_hand=by_hand)
        all_done.run(5)
        if by_hand:
            all_done.hearts[1].close()
        before = all_done.time
        all_done.hearts[0].close()
        assert all_done.time == before


def test_nobody_accuses_a_process_that_is_done() -> None:
    team = Team(3)
    team.at(*same(5, "saving"))
    team.run(5)
    team.hearts[1].close()
    team.hearts[1].close(error=True)  # what counts is how it ended first
    calls = team.store.calls
    team.hearts[1].at(6, "nothing")
    assert team.store.calls == calls
    team.run(5000)
    assert team.quiet()
    assert team.hearts[0].peers[1].status == "done"


def test_an_error_that_others_did_not_notice_ends_them_after_a_while() -> None:
    team = Team(3)
    team.at(*same(17, "saving"))
    team.run(5)
    team.hearts[1].close(error=True)
    team.run(59)
    assert team.quiet()
    team.run(5)
    assert [line for _, line in team.said] == [
        "rank 1 (host node0, pid 4201) ended with an error at step 17, saving; see what it says"
    ]


def test_a_failed_collective_tells_who_ended() -> None:
    team = Team(4)
    team.at(*same(17, "forward and backward", 4))
    team.run(5)
    team.stopped = {2}
    before = team.time
    assert team.hearts[3].whodunit("a process has ended") == (
        f"rank 2 (host node0, pid 4202) has ended; it was at step 17, forward and backward. {KEPT}"
    )
    assert team.time - before <= (GONE + 3) * BEAT
    assert [team.hearts[rank].whodunit("a process has ended") for rank in (0, 1)] == [None, None]
    for rank in (0, 1, 3):
        team.hearts[rank].close(error=True)
    assert team.quiet()


def test_all_that_ended_together_are_named() -> None:
    team = Team(4)
    team.run(5)
    team.stopped = {2}
    team.run(BEAT)
    team.stopped = {2, 3}
    answer = team.hearts[0].whodunit("")
    assert answer is not None
    assert answer.startswith(
        "ranks 2 (host node0, pid 4202) and 3 (host node0, pid 4203) have ended; the first was start"
    )


def test_a_failed_collective_points_to_an_error_at_once() -> None:
    team = Team(3)
    team.at(*same(17, "reading data"))
    team.run(5)
    team.hearts[1].close(error=True)
    team.run(BEAT)
    before = team.time
    expected = "rank 1 (host node0, pid 4201) ended with an error at step 17, reading data; see what it says"
    assert team.hearts[0].whodunit("text") == expected
    assert team.time - before <= 3 * BEAT
    assert team.hearts[2].whodunit("text") is None


@pytest.mark.parametrize("done", [False, True])
def test_a_failed_collective_where_nobody_ended_is_told_by_one_process_as_it_was(done: bool) -> None:
    team = Team(3)
    team.run(5)
    if done:
        team.hearts[2].close()
    assert [team.hearts[rank].whodunit("text") for rank in (1, 0)] == ["text", None]
    assert team.quiet()


def test_who_ended_since_another_had_is_not_who_ended() -> None:
    team = Team(4)
    team.at(*same(17, "reading data", 4))
    team.run(5)
    team.stopped = {3}
    assert team.hearts[0].whodunit("text") is not None
    team.hearts[0].close(error=True)
    team.run(4)
    assert team.hearts[1].whodunit("text") is None
    assert team.hearts[1].line == f"rank 3 (host node0, pid 4203) has ended; it was at step 17, reading data. {KEPT}"


def test_a_failed_collective_and_no_store_is_told_by_everyone() -> None:
    team = Team(3, by_hand=True)
    team.at(*same(17, "reading data"))
    team.run(5)
    team.stopped, team.store.broken = {0}, True
    expected = (
        "rank 0 (host node0, pid 4200) cannot be reached any more at node1:29500; it was at step 17, reading data. "
        + KEPT
    )
    assert [team.hearts[rank].whodunit("text") for rank in (1, 2)] == [expected, expected]


def test_the_watch_waits_while_one_asks_who_ended() -> None:
    team = Team(2, silence=2.0)
    team.run(5)
    team.stopped = {1}
    assert team.hearts[0].whodunit("text") is not None
    assert team.quiet()


def test_who_hangs_on_the_way_out_is_ended_and_the_line_said() -> None:
    team = Team(3, silence=5.0)
    team.run(5)
    team.stopped = {2}
    answer = team.hearts[1].whodunit("text")
    team.run(10)
    assert team.said == [(1, answer)]
    assert set(team.ended) == {0, 1}


def test_who_closes_while_the_watch_ends_the_job_lets_it_speak() -> None:
    team = Team(3)
    team.run(5)
    team.stopped = {2}
    while not any(heart.sentenced for heart in team.hearts):
        team.run(BEAT)
    assert team.hearts[0].whodunit("text") is None
    for heart in team.hearts[:2]:
        heart.close(error=True)
    assert len(team.said) == 1
    assert set(team.ended) == {0, 1}


def test_one_that_was_frozen_ends_with_the_others_when_it_wakes() -> None:
    team = Team(3)
    team.run(5)
    team.stopped = {0}
    team.run(70)
    assert set(team.ended) == {1, 2}
    team.stopped = set()
    team.run(5)
    assert set(team.ended) == {0, 1, 2}
    assert len(team.said) == 1


def test_an_election_that_the_store_does_not_answer_is_no_reason_to_be_silent() -> None:
    team = Team(2)
    team.run(5)
    team.stopped = {1}
    while not team.hearts[0].sentenced:
        team.run(BEAT)
    team.store.hangs = True
    team.run(5)
    assert len(team.said) == 1


def test_a_crowd_beats_less_often() -> None:
    beats = [Team(1, silence=3.0).hearts[0].beat]
    for count in (64, 256):
        heart = Heartbeat(None, rank=0, count=count, silence=3.0, stall=9.0, address="", say=print, end=print)
        beats.append(heart.beat)
    assert beats == [BEAT, BEAT, 4 * BEAT]
    assert heart.silence == 4 * heart.beat


def test_a_connection_that_broke_is_made_again() -> None:
    stores = [Store(), Store()]
    left = iter(stores)
    board = Board(lambda: (next(left), lambda: None), 0, 2)
    assert board.exchange("a", "") == ([b"a", None], None)
    stores[0].broken = True
    assert board.exchange("b", "") is None
    assert board.exchange("c", "speaker") == ([b"c", None], 0)
    assert stores[1].values["speaker"] == b"0"


def test_a_connection_that_is_gone_is_not_written_to() -> None:
    def gone() -> None:
        raise ConnectionError

    store = Store()
    assert Board(lambda: (store, gone), 0, 2).exchange("a", "") is None
    assert "0" not in store.values


def test_an_errand_may_hang() -> None:
    import threading

    go = threading.Event()

    def wait(note: str, election: str) -> Any:
        assert go.wait(60)
        return (note, election)

    errand = Errand(wait)
    assert errand.returned()
    errand.begin("a", "b")
    assert not errand.returned(0.01)
    go.set()
    assert errand.returned(60)
    assert errand.answer == ("a", "b")


def test_a_process_that_ends_without_a_word_is_closed_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed  # noqa: F401  which registers something itself

    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")  # nothing listens there
    registered: list[Any] = []
    monkeypatch.setattr(atexit, "register", lambda *call, **options: registered.append((*call, options)))
    heart = Heartbeat.join(rank=1, count=2)
    assert isinstance(heart, Heartbeat)
    assert registered == [(heart.close, {"error": True})]
    assert heart.by_hand
    heart.close()
    assert heart.watch is not None
    assert not heart.watch.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_real_processes_killed_and_frozen(tmp_path: Path, root: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.beating", str(tmp_path)]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr

    def errors(name: str) -> list[str]:
        return (tmp_path / name).read_text().splitlines()

    def codes(name: str) -> str:
        return (tmp_path / f"{name}.codes").read_text()

    # Of three processes rank 1 is frozen, and goes on when the others have ended.
    (frozen,) = errors("frozen")
    assert frozen.startswith("error: rank 1 (host ")
    assert frozen.endswith(f"not been heard of for 3 s; it was at step 7, reading data. {KEPT}")
    assert codes("frozen") == "1 1 1"
    # Rank 2 is killed, and the others ask who it was, as after a collective that failed.
    (killed,) = errors("killed")
    assert killed.startswith("error: rank 2 (host ")
    assert killed.endswith(f"has ended; it was at step 7, reading data. {KEPT}")
    assert codes("killed") == "1 1 -9"
    # Rank 0 keeps the store and is killed: both others speak, and torch says nothing.
    kept = errors("keeper killed")
    assert len(kept) == 2
    assert all(line.startswith("error: rank 0 (host ") and "could not be reached for 3 s" in line for line in kept)
    assert codes("keeper killed") == "-9 1 1"
    # Rank 0 keeps the store and is frozen: calls to the store hang.
    assert [line.partition(" (")[0] for line in errors("keeper frozen")] == ["error: rank 0"] * 2
    assert codes("keeper frozen") == "-9 1 1"
    # Rank 0 keeps the store and ends with an error, of which the others read all the same.
    assert sorted(line.partition(" (")[0] for line in errors("error")) == ["error: it broke", "error: rank 0"]
    assert any("ended with an error at step 7, reading data; see what it says" in line for line in errors("error"))
    # All finish.
    assert errors("done") == []
    assert codes("done") == "0 0 0"
