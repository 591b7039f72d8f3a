"""Class names and labels drawn from seeds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

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
    with pytest.raises(UserError, match="one of digits, imagenet"):
        class_names("imagenets")


def write_list(home: Path, name: str, text: str) -> None:
    (home / "classes").mkdir(parents=True, exist_ok=True)
    (home / "classes" / f"{name}.json").write_text(text, encoding="utf-8")


def test_a_list_of_the_users_own(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(own_home, "pets", '["cat", "müde Katze"]')
    assert list(class_names("pets")) == ["cat", "müde Katze"] and find_label("MÜDE katze", class_names("pets")) == 1
    write_list(own_home, "pets", '["dog"]')
    assert list(class_names("pets")) == ["dog"]
    with pytest.raises(UserError, match="unknown list of classes 'pet': one of digits, imagenet, pets"):
        class_names("pet")
    monkeypatch.setenv("HASTEZOO_HOME", str(tmp_path / "another"))
    with pytest.raises(UserError, match=r"one of digits, imagenet$"):
        class_names("pets")


def test_a_list_of_the_users_never_stands_for_the_packages(own_home: Path) -> None:
    write_list(own_home, "digits", '["cat"]')
    assert class_names("digits") is DIGITS and len(DIGITS) == 10
    assert class_names("imagenet") is class_names("imagenet")  # read once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ("[]", "no JSON list of names"),
        ('{"cat": 0}', "no JSON list of names"),
        ('["cat", 1]', "no JSON list of names"),
        ('["cat", " "]', "no JSON list of names"),
    ],
)
def test_a_broken_list_of_the_users_is_one_line(own_home: Path, text: str, message: str) -> None:
    write_list(own_home, "pets", text)
    with pytest.raises(UserError, match=rf"pets\.json .*{message}") as caught:
        class_names("pets")
    assert "\n" not in str(caught.value)


def test_a_list_cannot_lie_outside_its_folder(own_home: Path) -> None:
    write_list(own_home, "pets", '["cat"]')
    (own_home / "secret.json").write_text('["cat"]')
    with pytest.raises(UserError, match="unknown list"):
        class_names("../secret")


def test_imagenet_is_timms() -> None:
    """The class list that timm gives by its front door; ours comes without importing timm."""
    from timm.data import ImageNetInfo

    info, ours = ImageNetInfo(), class_names("imagenet")
    assert len(ours) == info.num_classes() == 1000 and list(ours.ids) == info.label_names()
    for label in range(1000):
        assert ", ".join(ours.synonyms[label]) == info.index_to_description(label)
        assert f"{info.index_to_description(label)}: {ours.definitions[label]}" == info.index_to_description(
            label, detailed=True
        )


def test_imagenet_loads_no_timm() -> None:
    code = "import sys, hastezoo.conditioning.labels as labels; labels.class_names('imagenet')"
    code += "; print({'timm', 'torch'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "set()", result.stdout + result.stderr


def test_imagenet_by_the_front_door_where_timm_is_rearranged(monkeypatch: pytest.MonkeyPatch) -> None:
    from hastezoo.conditioning import labels

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else found(name))
    assert labels._imagenet() == class_names("imagenet")
    monkeypatch.setitem(sys.modules, "timm.data", None)
    with pytest.raises(UserError, match="pip install timm"):
        labels._imagenet()


@pytest.mark.parametrize("asked", [207, "207", "golden retriever", "Golden Retriever", "n02099601", "N02099601"])
def test_imagenet_by_number_name_and_identifier(asked: int | str) -> None:
    assert find_label(asked, class_names("imagenet")) == 207


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("crane", r"ambiguous; say which by number: 134 crane \(n02012849\), 517 crane \(n03126707\)"),
        ("retriever", r"no class is named 'retriever'; say which by number: 205 flat-coated retriever"),
        ("terrier", r"and \d+ more \(`hastezoo classes`\)"),
        ("goldn retriver", "unknown class 'goldn retriver'; nearest: golden retriever"),
        ("n99999999", "unknown class 'n99999999'"),
        ("1000", "class 1000 is out of range"),
        ("", "unknown class ''"),
    ],
)
def test_imagenet_names_that_are_not_one_class(asked: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find_label(asked, class_names("imagenet"))
    assert "\n" not in str(caught.value)


def test_search_looks_in_names_identifiers_and_definitions() -> None:
    imagenet = class_names("imagenet")
    assert imagenet.search("n02099601") == [207]
    found = imagenet.search("Retriever")
    assert found[:5] == [205, 206, 207, 208, 209]
    assert imagenet.search("silky golden coat") == [207] and imagenet.search("xyzzy") == []
    assert DIGITS.search("se") == [7]


def test_labels_of_seeds_are_uniform_and_fixed_for_ever() -> None:
    assert [label_of_seed(seed, 10) for seed in range(8)] == [0, 8, 4, 5, 0, 4, 8, 4]
    counts = Counter(label_of_seed(seed, 10) for seed in range(20_000))
    chi2 = sum((count - 2000) ** 2 / 2000 for count in counts.values())
    assert set(counts) == set(range(10)) and chi2 < 27.9  # the 0.1 % point of chi2 with 9 degrees of freedom
