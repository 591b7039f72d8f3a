"""Four processes of FSDP2 under torchrun: one is killed while a checkpoint is written, and the job goes on by itself; a
scheduler stops the job, and two go on with it. The curve is that of a run that nobody disturbed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hastezoo.training.checkpoints import Checkpoints, step_of
from tests.training.four import FSDP, SMALL, train
from tests.training.test_alignment_run import ENDS
from tests.training.test_alignment_run import SMALL as MINIATURE
from tests.training.test_engines import curve

pytestmark = pytest.mark.slow
STEPS = 12
TOLERANCE = 1e-5
SETTINGS = (*MINIATURE, *ENDS["step"], *SMALL, FSDP)

# Rank 2 is killed when the shards of step 6 are written and have no name yet, once.
KILLED = """
import os, signal, sys
from pathlib import Path
from hastezoo.recipes import digits
from hastezoo.training.sharded import Writer

complete = Writer._complete

def killed(self, writing, partial, path, about):
    writing.result()
    if about["step"] == 6 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if self.processes.rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        import time
        time.sleep(3)
    complete(self, writing, partial, path, about)

Writer._complete = killed
digits.main(sys.argv[1:])
"""


def launch(count: int, target: list[str], out: Path, steps: int, *options: str) -> subprocess.Popen[str]:
    settings = [part for one in (*SETTINGS, f"train.steps={steps}") for part in ("--set", one)]
    words = ["--arm", "haste", "--out", str(out), "--device", "cpu", "--quiet", *settings]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([*torchrun, *target, *words], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, which takes the same steps (test_engines.py)."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(out, "step", STEPS)
    return out


def assert_same(out: Path, undisturbed: Path) -> None:
    ours, theirs = curve(out), curve(undisturbed)
    assert list(ours) == list(range(1, STEPS + 1))
    for step, row in ours.items():
        assert row == pytest.approx(theirs[step], rel=TOLERANCE), step
    assert not list(out.rglob("*.partial"))


def test_a_rank_killed_during_saving_and_an_elastic_restart(undisturbed: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    out = tmp_path / "run"
    process = launch(4, [str(script)], out, STEPS, "--max-restarts", "1")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) <= 1 and all(re.match(r"error: rank 2 \(host .*\) has ended", line) for line in lines), said
    assert_same(out, undisturbed)


def test_a_scheduler_stops_four_and_two_go_on(undisturbed: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "run", ["-m", "hastezoo.recipes.digits"]
    process = launch(4, recipe, out, 100_000, "--max-restarts", "3")
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "step-00000003").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode and "error: " not in said, said
    stopped = step_of(Checkpoints(out / "checkpoints").paths()[0])
    assert stopped >= 3
    process = launch(2, recipe, out, max(STEPS, stopped + 2))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    if stopped + 2 > STEPS:
        pytest.skip(f"stopped only after step {stopped}")
    assert_same(out, undisturbed)


# Every rank says who it is when it has begun, and what it ended with.
TOLD = """
import os, sys
from pathlib import Path
from hastezoo.recipes import digits

told = Path(os.environ["TOLD"]) / os.environ["RANK"]
told.write_text(str(os.getpid()))
try:
    digits.main(sys.argv[1:])
except SystemExit as ended:
    told.with_suffix(".code").write_text(str(ended.code))
    raise
"""


def test_a_notice_to_one_rank_stops_all(undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR1, as a scheduler sends it before time is up: all stop after the same step and ask to be run again."""
    script, told, out = tmp_path / "told.py", tmp_path / "told", tmp_path / "run"
    script.write_text(TOLD)
    told.mkdir()
    monkeypatch.setenv("TOLD", str(told))
    rarely = ("train.keep_at=[3]", "train.checkpoint_every=100000")
    settings = [part for one in rarely for part in ("--set", one)]
    process = launch(2, [str(script), *settings], out, 100_000, "--max-restarts", "3")
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "step-00000003").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(int((told / "1").read_text()), signal.SIGUSR1)
    _, said = process.communicate(timeout=120)
    assert process.returncode and "error: " not in said, said
    assert {path.name: path.read_text() for path in told.glob("*.code")} == {"0.code": "75", "1.code": "75"}
    steps = [step_of(path) for path in Checkpoints(out / "checkpoints").paths()]
    assert len(steps) == 2 and 3 < steps[0] < 100_000 and steps[1] == 3
    assert not list(out.rglob("*.partial"))
    found = Checkpoints(out / "checkpoints").latest()
    assert found is not None and found.step == steps[0] == max(curve(out))
    ours, theirs = curve(out), curve(undisturbed)
    for step in ours.keys() & theirs.keys():
        assert ours[step] == pytest.approx(theirs[step], rel=TOLERANCE), step
