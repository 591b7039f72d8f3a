"""Which sample comes when."""

from __future__ import annotations

from itertools import chain

import pytest

from hastezoo.data.order import StepOrder, generator, permutation


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
