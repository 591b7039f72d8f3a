"""The queue of the device: one at a time, in order, bounded, left and stopped at once."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from hastezoo.errors import UserError
from hastezoo.sampling.stopping import Cancelled
from hastezoo.webapp.turns import REMEMBERED, UNEXPECTED, Ticket, Turns
from hastezoo.webapp.watching import RATE, watch


class Gate:
    """Work that goes on until it is let through, and reports while it waits."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.steps = 0

    def __call__(self, ticket: Ticket) -> str:
        self.entered.set()
        while not self.open.is_set():
            self.steps += 1
            ticket.report(step=self.steps, preview="data:,")
            time.sleep(0.005)
        return "through"


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns(waiting=2)
    yield made
    made.close()


def wait(ticket: Ticket, seconds: float = 10) -> Ticket:
    """Until the ticket is over."""
    end = time.monotonic() + seconds
    while not ticket.over:
        assert time.monotonic() < end, f"still {ticket.state} after {seconds} s"
        time.sleep(0.005)
    return ticket


def test_tickets_are_done_in_the_order_they_came_and_never_two_at_once() -> None:
    turns, order, inside = Turns(waiting=20), [], []
    most = 0

    def work(number: int) -> Any:
        def do(ticket: Ticket) -> int:
            nonlocal most
            inside.append(number)
            most = max(most, len(inside))
            time.sleep(0.01)
            inside.remove(number)
            order.append(number)
            return number

        return do

    tickets = [turns.join(f"number {number}", work(number)) for number in range(12)]
    assert [wait(ticket).result for ticket in tickets] == list(range(12))
    assert order == list(range(12))
    assert most == 1
    turns.close()


def test_the_queue_is_bounded_and_says_how_many_wait(turns: Turns) -> None:
    gate = Gate()
    first = turns.join("first", gate)
    assert gate.entered.wait(10)
    waiting = [turns.join("more", lambda ticket: None) for _ in range(2)]
    assert turns.counts() == {"running": 1, "waiting": 2}
    with pytest.raises(UserError, match="the queue is full: 2 requests wait; try again"):
        turns.join("too many", lambda ticket: None)
    gate.open.set()
    assert [wait(ticket).state for ticket in (first, *waiting)] == ["done"] * 3
    assert wait(turns.join("again", lambda ticket: 7)).result == 7


def test_positions_count_from_the_next_one_and_move_up(turns: Turns) -> None:
    gate = Gate()
    running = turns.join("running", gate)
    assert gate.entered.wait(10)
    second, third = (turns.join("waits", lambda ticket: None) for _ in range(2))
    assert [turns.position(one) for one in (running, second, third)] == [0, 1, 2]
    before = third.version
    assert turns.cancel(second.id)
    assert second.state == "cancelled"
    assert turns.position(third) == 1
    assert third.version > before, "whoever watches is not told"
    gate.open.set()
    wait(third)


def test_cancelling_stops_the_work_at_its_next_report(turns: Turns) -> None:
    gate = Gate()
    ticket = turns.join("endless", gate)
    assert gate.entered.wait(10)
    assert turns.cancel(ticket.id)
    at_most = gate.steps + 1
    assert wait(ticket).state == "cancelled"
    assert gate.steps <= at_most + 1
    assert ticket.result is None
    assert not turns.cancel(ticket.id), "it is over"
    assert not turns.cancel("nobody's")


@pytest.mark.parametrize(
    ("error", "said", "logged"),
    [(UserError("no such class"), "no such class", False), (ZeroDivisionError("secret"), UNEXPECTED, True)],
)
def test_a_failure_is_one_line_and_the_next_one_goes_on(
    turns: Turns, caplog: pytest.LogCaptureFixture, error: Exception, said: str, logged: bool
) -> None:
    def fail(ticket: Ticket) -> None:
        raise error

    with caplog.at_level(logging.ERROR, "hastezoo.webapp"):
        ticket = wait(turns.join("fails", fail))
        assert (ticket.state, ticket.error) == ("failed", said)
        assert wait(turns.join("next", lambda ticket: 1)).result == 1
    assert bool(caplog.records) == logged
    assert ("secret" in caplog.text) == logged


@pytest.mark.parametrize(("error", "state"), [(UserError("no"), "failed"), (Cancelled(), "cancelled")])
def test_what_the_work_held_is_let_go(error: Exception, state: str) -> None:
    class Big:
        pass

    tidied: list[bool] = []
    turns = Turns(waiting=2, after=lambda: tidied.append(gc.collect() >= 0))
    big = Big()
    held = weakref.ref(big)

    def work(ticket: Ticket, big: Big = big) -> None:
        kept = big  # noqa: F841
        raise error  # its traceback holds the frame, and the frame the object

    ticket = turns.join("holds", work)
    del big, work
    assert wait(ticket).state == state
    error.__traceback__ = None  # this test's own hold on it
    assert tidied
    gc.collect()
    assert held() is None
    turns.close()


def test_only_so_many_tickets_are_remembered(turns: Turns) -> None:
    first = wait(turns.join("first", lambda ticket: None))
    assert turns.find(first.id) is first
    for _ in range(REMEMBERED + 1):
        wait(turns.join("more", lambda ticket: None))
    assert turns.find(first.id) is None
    assert len(turns._tickets) <= REMEMBERED + 1


def test_closing_stops_what_runs_and_what_waits() -> None:
    turns, gate = Turns(waiting=2), Gate()
    running = turns.join("runs", gate)
    assert gate.entered.wait(10)
    waits = turns.join("waits", lambda ticket: None)
    turns.close()
    assert (running.state, waits.state) == ("cancelled", "cancelled")
    with pytest.raises(UserError, match="shutting down"):
        turns.join("late", lambda ticket: None)


def test_time_left_is_told_by_the_pace_since_the_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ticket = Ticket(lambda ticket: None, "any")
    assert ticket.seconds_left is None
    ticket._become("running")
    ticket.report(text="loading")
    now = 150.0  # of loading, which tells nothing of the pace
    ticket.report(fraction=0.2)
    assert ticket.seconds_left is None, "too early to tell"
    now = 160.0
    ticket.report(fraction=0.4)
    assert ticket.seconds_left == pytest.approx(30)  # 10 s for a fifth, three fifths to go


async def _watched(turns: Turns, gate: Gate, steps: int) -> Ticket:
    ticket = turns.join("watched", gate)
    async with aclosing(watch(ticket, turns)) as changes:
        seen = 0
        async for _ in changes:
            seen += 1
            if seen == steps:
                break
    return ticket


def test_a_watcher_that_goes_cancels(turns: Turns) -> None:
    ticket = asyncio.run(_watched(turns, Gate(), 3))
    assert wait(ticket).state == "cancelled"
    assert turns.counts() == {"running": 0, "waiting": 0}


def test_a_watcher_that_goes_while_it_waits_gives_up_its_place(turns: Turns) -> None:
    gate = Gate()
    running = turns.join("runs", gate)
    assert gate.entered.wait(10)
    ticket = asyncio.run(_watched(turns, Gate(), 1))
    assert ticket.state == "cancelled"
    assert running.state == "running"
    gate.open.set()
    wait(running)


def test_a_watcher_is_told_now_and_then_though_nothing_changes(turns: Turns) -> None:
    """Only a report that cannot be sent shows that a client is gone."""

    async def count() -> int:
        release = threading.Event()
        ticket = turns.join("silent", lambda ticket: release.wait(10))
        told = 0
        async for _ in watch(ticket, turns):
            told += 1
            if told == 3:
                release.set()
        return told

    assert asyncio.run(count()) >= 4, "the last one is of the end"


def test_a_watcher_is_not_flooded(turns: Turns) -> None:
    async def count() -> tuple[int, float]:
        gate = Gate()
        ticket = turns.join("busy", gate)
        asyncio.get_running_loop().call_later(1.0, gate.open.set)
        began, told = time.monotonic(), 0
        async for _ in watch(ticket, turns):
            told += 1
        return told, time.monotonic() - began

    told, seconds = asyncio.run(count())
    assert 2 <= told <= seconds / RATE + 3
