"""Which sample comes when."""

from __future__ import annotations

import hashlib
from itertools import chain

import pytest

from hastezoo.data.order import StepOrder, generator, permutation, variant


def test_every_epoch_is_a_permutation_and_epochs_differ() -> None:
    batches = list(StepOrder(size=10, batch_size=4, seed=3, start=0, stop=5))
    flat = list(chain(*batches))
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10)) and flat[:10] != flat[10:]
    assert flat[:10] == permutation(3, 0, 10).tolist()


def test_starting_later_is_going_on() -> None:
    whole = list(StepOrder(10, 4, 0, 0, 9))
    assert list(StepOrder(10, 4, 0, 4, 9)) == whole[4:]
    assert len(StepOrder(10, 4, 0, 4, 9)) == 5


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_one_batch(processes: int) -> None:
    whole = list(StepOrder(10, 8, 0, 0, 6))
    parts = [list(StepOrder(10, 8, 0, 0, 6, rank, processes)) for rank in range(processes)]
    assert [list(chain(*shares)) for shares in zip(*parts, strict=True)] == whole


def test_without_variants_the_order_is_what_it_was() -> None:
    """Runs that were begun before there were any go on with the same batches."""
    wanted = [[7, 5, 0, 1], [2, 9, 3, 6], [8, 4, 9, 1]]
    assert list(StepOrder(10, 4, 3, 0, 3)) == list(StepOrder(10, 4, 3, 0, 3, variants=1)) == wanted
    digest = hashlib.sha256(str(list(StepOrder(1000, 64, 7, 3, 60))).encode()).hexdigest()
    assert digest == "6d979c3ff27905a79e8a0438039970b6903ab0d42b6aed4783ebe16d2a5ec536"


def test_variants_are_drawn_anew_in_each_epoch() -> None:
    """Samples come in the order they come in without, and all processes and starts agree on their variants."""
    whole = list(chain(*StepOrder(10, 4, 3, 0, 10, variants=7)))
    assert [number % 10 for number in whole] == list(chain(*StepOrder(10, 4, 3, 0, 10)))
    turns = [number // 10 for number in whole]
    for epoch in range(4):
        assert turns[10 * epoch : 10 * epoch + 10] == variant(3, epoch, 10, 7).tolist()
    assert set(turns) == set(range(7)) and turns[:10] != turns[10:20]
    parts = [list(StepOrder(10, 4, 3, 2, 10, rank, 2, 7)) for rank in range(2)]
    assert list(chain(*(share for shares in zip(*parts, strict=True) for share in shares))) == whole[8:]


def test_seeds_give_different_orders() -> None:
    assert permutation(0, 0, 50).tolist() != permutation(1, 0, 50).tolist()


def test_keys_are_not_confused() -> None:
    values = {int(generator(*keys).initial_seed()) for keys in ((1, 23), (12, 3), (1, "2", 3), ("a", 1), (1, "a"))}
    assert len(values) == 5


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="does not divide over 3 processes"):
        StepOrder(10, 8, 0, 0, 1, 0, 3)
    with pytest.raises(ValueError, match="empty"):
        StepOrder(0, 8, 0, 0, 1)
