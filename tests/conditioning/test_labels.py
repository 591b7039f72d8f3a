"""Class names and labels drawn from seeds."""

from __future__ import annotations

from collections import Counter

import pytest

from hastezoo.conditioning.labels import class_names, find_label, label_of_seed
from hastezoo.errors import UserError

DIGITS = class_names("digits")


@pytest.mark.parametrize("asked", [7, "7", "seven", "SEVEN", " seven "])
def test_a_class_by_number_or_name(asked: int | str) -> None:
    assert find_label(asked, DIGITS) == 7


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (10, "class 10 is out of range: the model has 10 classes, 0 to 9"),
        ("-1", "class -1 is out of range"),
        ("sevn", "unknown class 'sevn'; nearest: seven"),
        ("", "unknown class ''"),
    ],
)
def test_unknown_classes(asked: int | str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_label(asked, DIGITS)


def test_unknown_list_says_which_there_are() -> None:
    with pytest.raises(UserError, match="one of digits"):
        class_names("imagenets")


def test_labels_of_seeds_are_uniform_and_fixed_for_ever() -> None:
    assert [label_of_seed(seed, 10) for seed in range(8)] == [0, 8, 4, 5, 0, 4, 8, 4]
    counts = Counter(label_of_seed(seed, 10) for seed in range(20_000))
    chi2 = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert set(counts) == set(range(10)) and chi2 < 27.9  # the 0.1 % point of chi2 with 9 degrees of freedom
