"""Runs to draw, alone and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from hastezoo.training.history import History, read_histories, read_history
from tests.training.runs import with_termination, write_plain_run, write_run


@pytest.fixture
def history(tmp_path: Path) -> History:
    return read_history(write_run(tmp_path / "run"))


@pytest.fixture
def several(tmp_path: Path) -> list[History]:
    """An aligned run that ended, one that goes on, and a plain one that was probed, with a name that is no formula."""
    write_run(tmp_path / "haste")
    write_run(tmp_path / "never", alignment=with_termination(kind="never"), events=[])
    probed = [{"step": 9, "t": 0.5, "cknna": [0.01, 0.02, 0.03], "attention_kl": {"1<-2": 4.0, "2<-3": 6.0}}]
    write_plain_run(tmp_path / "_plain $x_$", diagnoses=probed)
    return read_histories([tmp_path / name for name in ("haste", "never", "_plain $x_$")])
