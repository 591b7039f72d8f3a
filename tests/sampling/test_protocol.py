"""The Protocol's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hastezoo.sampling import solvers
from hastezoo.sampling.diffusions import FORMS
from hastezoo.sampling.protocol import STOCHASTIC, DiffusionForm, LastStep, Protocol


def test_names_are_those_of_the_registries() -> None:
    assert {name: entry.stochastic for name, entry in solvers.SOLVERS.items()} == STOCHASTIC
    assert set(DiffusionForm.__args__) == set(FORMS) and set(LastStep.__args__) == set(solvers.LAST_STEPS)


def test_a_users_solver_is_as_good_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "SOLVERS", dict(solvers.SOLVERS))

    @solvers.register_solver("still", stochastic=True)
    def still(velocity: Any, x: Any, times: Any, **_: Any) -> Any:
        return x

    assert Protocol(solver="still").stochastic


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"solver": "eler"}, "unknown solver"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"cfg": float("nan")}, "finite"),
        ({"cfg": -1}, "greater than or equal to 0"),
        ({"interval": (0.5, 0.4)}, "interval"),
        ({"interval": (-0.1, 0.4)}, "interval"),
        ({"channels": 0}, "greater than or equal to 1"),
        ({"diffusion": "sbdm"}, "infinite at t = 1"),
        ({"last_step_size": 0.5, "start": 0.4}, "not below start"),
        ({"naem": 1}, "Extra inputs"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Protocol(**values)


def test_settings_of_other_solvers_are_no_error() -> None:
    assert not Protocol(solver="heun", diffusion="sbdm").stochastic
    assert Protocol(diffusion="sbdm", start=0.999).stochastic
