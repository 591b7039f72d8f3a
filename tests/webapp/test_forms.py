"""Forms: what is sent becomes the question that `hastezoo sample` would ask, or one line."""

from __future__ import annotations

from typing import Any

import pytest

from hastezoo.errors import UserError
from hastezoo.webapp import forms
from hastezoo.webapp.settings import AppSettings
from hastezoo.zoo.registry import find_card, find_protocol

DIGITS = "sit-ti-digits-haste"
SETTINGS = AppSettings()


def ask(settings: AppSettings = SETTINGS, **values: Any) -> Any:
    form = forms.read(forms.DrawForm, {"model": DIGITS, **values})
    return forms.asked(form, form, settings)


def test_what_is_left_out_comes_from_the_card() -> None:
    found = ask()
    assert (found.model, found.protocol, found.overrides) == (DIGITS, find_card(DIGITS).protocol, {})
    assert (list(found.seeds), list(found.classes)) == ([0, 1, 2, 3], [])


def test_only_what_differs_from_the_protocol_is_an_override() -> None:
    digits = find_protocol("digits")
    same = {"solver": digits.solver, "steps": digits.steps, "cfg": digits.cfg, "low": 0, "high": 1.0}
    assert ask(**same).overrides == {}
    assert ask(**{**same, "steps": 7}).overrides == {"steps": 7}
    assert ask(low=0.25).overrides == {"interval": (0.25, 1.0)}
    assert ask(protocol="haste", high=0.9).overrides == {"interval": (0.0, 0.9)}
    assert ask(protocol="haste", cfg=1.65).overrides == {}


def test_an_empty_text_says_nothing() -> None:
    assert ask(protocol="", solver="", steps=None, prompts="", negative="").overrides == {}


@pytest.mark.parametrize(("sent", "seed"), [("0", 0), (" 12 ", 12), (7, 7), (str(2**62), 2**62)])
def test_a_seed_is_exact(sent: Any, seed: int) -> None:
    assert list(ask(seed=sent, number=2).seeds) == [seed, seed + 1]


@pytest.mark.parametrize("sent", ["-1", "1.0", "1e3", "0x10", "١٢", True, 1.5, [1], "9" * 30])
def test_what_is_no_seed_is_told(sent: Any) -> None:
    with pytest.raises(UserError, match=r"^seed: "):
        ask(seed=sent)


def test_prompts_are_one_a_line() -> None:
    form = forms.read(forms.DrawForm, {"model": "mmdit-coco", "prompts": "a cat\n\n  \na dog\n", "number": 3})
    assert form.prompts == ["a cat", "a dog"]
    assert form.count == 6


def test_images_and_steps_are_limited() -> None:
    settings = AppSettings(max_images=6, max_work=100)
    assert ask(settings, number=4, steps=25)
    with pytest.raises(UserError, match="4 images x 26 steps are more than the 100 image steps"):
        ask(settings, number=4, steps=26)
    with pytest.raises(UserError, match="7 images are more than the 6"):
        ask(settings, number=7, steps=1)
    with pytest.raises(UserError, match="8 images are more than the 6"):
        ask(settings, classes=[1, 2], number=4, steps=1)
    with pytest.raises(UserError, match=f"1 images x {forms.ADAPTIVE_STEPS} steps"):
        ask(settings, number=1, solver="dopri5")
    ten = find_protocol("digits").model_copy(update={"steps": 10})
    forms.check_work(5, ten, settings, more=[ten])
    with pytest.raises(UserError, match="4 images x 30 steps of 3 columns are more"):
        forms.check_work(4, ten, settings, more=[ten, ten])


def test_only_what_is_offered_can_be_asked() -> None:
    settings = AppSettings(models=["sit-ti-digits"])
    assert [card.name for card in forms.offered(settings)] == ["sit-ti-digits"]
    with pytest.raises(UserError, match=f"{DIGITS} is not offered here; choose one of sit-ti-digits"):
        ask(settings)
    assert len(forms.offered(SETTINGS)) > 10


def test_an_unknown_field_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown key 'step'; nearest: steps"):
        ask(step=3)
