"""By which settings two protocols draw other images."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from hastezoo.sampling.protocol import Protocol
from hastezoo.zoo.overrides import differing, overridden, read_protocol, setting, stated_protocol
from hastezoo.zoo.registry import find_protocol, protocols

# A value of each setting that is not the default, and what else must be so for it to have an effect.
EFFECTIVE: dict[str, tuple[Any, dict[str, Any]]] = {
    "solver": ("stochastic-heun", {}),
    "steps": (7, {}),
    "cfg": (2.0, {}),
    "interval": ((0.1, 0.9), {"cfg": 2.0}),
    "channels": (3, {"cfg": 2.0}),
    "diffusion": ("constant", {}),
    "diffusion_norm": (2.0, {}),
    "last_step": ("euler", {}),
    "last_step_size": (0.1, {}),
    "start": (0.9, {}),
    "rtol": (1e-3, {"solver": "dopri5"}),
    "atol": (1e-3, {"solver": "dopri5"}),
    "rounding": ("nearest", {}),
}


def test_every_setting_of_a_protocol_is_known_here() -> None:
    assert set(EFFECTIVE) | {"count", "labels"} == set(Protocol.model_fields)


@pytest.mark.parametrize("key", EFFECTIVE)
def test_a_setting_with_an_effect_differs(key: str) -> None:
    value, base = EFFECTIVE[key]
    a, b = Protocol(**base), Protocol(**{**base, key: value})
    assert differing(a, b) == {key: (getattr(a, key), value)} and differing(a, a) == {}
    assert differing(b, a) == {key: (value, getattr(a, key))}


@pytest.mark.parametrize(
    ("base", "idle"),
    [
        ({}, {"interval": (0.1, 0.2), "channels": 3, "rtol": 1e-2, "atol": 1e-2, "count": 7, "labels": "balanced"}),
        ({}, {"diffusion": "sigma"}),
        (
            {"solver": "heun"},
            {"diffusion": "constant", "diffusion_norm": 3, "last_step": "none", "last_step_size": 0.1},
        ),
        ({"solver": "dopri5"}, {"steps": 7}),
        ({"last_step": "none"}, {"last_step_size": 0.1}),
    ],
)
def test_a_setting_without_effect_does_not(base: dict[str, Any], idle: dict[str, Any]) -> None:
    assert differing(Protocol(**base), Protocol(**base, **idle)) == {}


def test_the_forms_of_the_diffusion_are_two_on_another_path() -> None:
    assert differing(Protocol(), Protocol(diffusion="sigma"), "cosine") == {"diffusion": ("linear", "sigma")}


def test_equal_are_only_protocols_that_draw_alike() -> None:
    alike = [(a, b) for a, b in combinations(protocols(), 2) if not differing(find_protocol(a), find_protocol(b))]
    assert alike == [("haste-nocfg", "repa-nocfg")]
    assert differing(find_protocol("repa-nocfg"), find_protocol("sit-sde-nocfg")) == {
        "rounding": ("truncate", "nearest")
    }


def test_what_a_written_protocol_changes_of_the_named_one() -> None:
    written = find_protocol("sit-ode").model_copy(update={"steps": 50, "channels": None}).model_dump(mode="json")
    assert overridden(written, "sit-ode") == {"steps": 50, "channels": None}
    assert overridden(find_protocol("haste").model_dump(mode="json"), "haste") == {}
    other = find_protocol("repa").model_copy(update={"diffusion": "sigma"})  # on the path of whatever model
    assert overridden(other.model_dump(mode="json"), "repa") == {"diffusion": "sigma"}
    # An interval that came with guidance: the named protocol has none that has an effect.
    guided = find_protocol("haste-nocfg").model_copy(update={"cfg": 1.5, "interval": (0.0, 0.5)})
    changes = overridden(guided.model_dump(mode="json"), "haste-nocfg")
    assert changes == {"cfg": 1.5, "interval": (0.0, 0.5)} and stated_protocol("haste-nocfg", changes) == guided
    assert overridden(None, "haste") == overridden(written, None) == overridden(written, "of yesterday") == {}


def test_what_this_version_does_not_know_is_no_protocol() -> None:
    assert (
        read_protocol(None) is None and read_protocol({"shiny": 1}) is None and read_protocol({"solver": "x"}) is None
    )
    assert stated_protocol("", {}) is None and stated_protocol("of yesterday", {}) is None
    assert stated_protocol("haste", {"shiny": 1}) is None
    assert stated_protocol("coco", {"cfg": 3.5}) == find_protocol("coco").model_copy(update={"cfg": 3.5})


def test_settings_in_words() -> None:
    assert setting("interval", (0.0, 0.72)) == "interval [0, 0.72]" and setting("channels", None) == "channels all"
    assert setting("steps", 50) == "steps 50" and setting("cfg", 1.0) == "cfg 1"
