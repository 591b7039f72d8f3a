"""The batch scripts for Slurm, under a stand-in for it (slurm/controller.py): stopped, requeued, finished, given up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hastezoo.cli.main import main as hastezoo
from hastezoo.errors import REQUEUE
from hastezoo.recipes.digits import run
from tests.recipes.slurm.controller import Job
from tests.stored import newest
from tests.training.test_resume import SMALL, small

# A line for every step: one that is a mean over a stop has the steps after it only.
MINIATURE = [*SMALL, "train.log_every=1"]
# The order of a sum of gradients over two processes, through the steps of these runs.
TOLERANCE = 2e-4
TWO = ("localhost", "localhost")
POLL = "0.05"  # seconds between two looks of the shipped scripts
# What stands in for torchrun and its workers: it notes the signals that it gets and ends as torchrun does.
RECORDS = """
note() { echo "$1" >>signals; }
trap 'note TERM; sleep "${SAVING:-0.05}"; note saved; exit 1' TERM
touch running
while :; do sleep 0.02; done
"""


@pytest.fixture
def launch(root: Path) -> Path:
    return root / "recipes" / "launch"


@pytest.fixture
def submit(launch: Path, tmp_path: Path) -> Any:
    """submit(script, what runs instead of Python, *arguments, ...) -> the job."""

    def make(name: str, program: str, *arguments: str, settings: dict[str, str] | None = None, **options: Any) -> Job:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/bash\n{program}\n")
        python.chmod(0o755)
        environment = {"PYTHON": str(python), "LAUNCH": str(launch), "POLL": POLL, **(settings or {})}
        return Job(launch / name, arguments, folder=tmp_path, environment=environment, **options)

    return make


def signals(job: Job) -> list[str]:
    path = job.folder / "signals"
    return path.read_text().split() if path.exists() else []


def running(job: Job) -> None:
    """Start it, and wait until its program runs."""
    (job.folder / "running").unlink(missing_ok=True)
    job.start()
    job.until((job.folder / "running").exists)


def test_notice_stops_it_and_it_is_requeued(submit: Any) -> None:
    """The batch shell alone hears of the end; the program gets one SIGTERM and the time that it needs."""
    job = submit("one_node.sbatch", RECORDS)
    for restarts in (1, 2):
        running(job)
        job.notice()
        assert job.end() == "PENDING" and job.restarts == restarts
        assert signals(job) == ["TERM", "saved"] * restarts
    assert re.findall("job 4711: (.*)", job.output) == [
        "start 1 on localhost", "the scheduler's notice; requeued",
        "start 2 on localhost", "the scheduler's notice; requeued",
    ]  # fmt: skip


def test_further_signals_change_nothing(submit: Any) -> None:
    """Neither a second notice, nor those that Slurm sends to the step itself; only the first becomes a SIGTERM."""
    job = submit("one_node.sbatch", RECORDS, settings={"SAVING": "0.6"})
    running(job)
    job.notice()
    job.until(lambda: signals(job) == ["TERM"])
    job.notice()
    job.grace()
    assert job.end() == "PENDING"
    assert signals(job) == ["TERM", "saved"]


def test_grace_of_a_preemption(submit: Any) -> None:
    """Its SIGTERM goes to the steps; the batch shell sees the code 75 of a step that was stopped."""
    job = submit("one_node.sbatch", RECORDS)
    running(job)
    job.grace()
    assert job.end() == "PENDING" and job.exit_code == REQUEUE
    assert signals(job) == ["TERM", "saved"]


def test_site_that_signals_every_process(submit: Any) -> None:
    """SIGUSR1 to all processes of a step does not end torchrun, which has no handler of it."""
    job = submit("one_node.sbatch", f"trap - USR1\n{RECORDS}")
    running(job)
    job.signal_steps(signal.SIGUSR1, children=True)
    assert job.end() == "PENDING"
    assert signals(job) == ["TERM", "saved"]


def test_cancelled_job_stays_cancelled(submit: Any) -> None:
    """scancel: everything gets SIGTERM, and may write a checkpoint, but it does not come back."""
    job = submit("one_node.sbatch", RECORDS)
    running(job)
    job.take_away("CANCELLED")
    assert job.end() == "CANCELLED" and job.restarts == 0
    assert signals(job) == ["TERM", "saved"]


def test_preemption_that_requeues_is_not_requeued_twice(submit: Any) -> None:
    job = submit("one_node.sbatch", RECORDS)
    running(job)
    job.take_away("PENDING")
    assert job.end() == "PENDING" and job.restarts == 1
    assert signals(job) == ["TERM", "saved"]


def test_limit_before_the_checkpoint_is_written(submit: Any) -> None:
    """It is requeued before SIGKILL ends the batch shell too."""
    job = submit("one_node.sbatch", RECORDS, settings={"SAVING": "30"}, kill_wait=0.5)
    running(job)
    job.notice()
    job.until(lambda: signals(job) == ["TERM"])
    job.take_away("TIMEOUT")
    assert job.end() == "PENDING" and job.restarts == 1 and job.exit_code == REQUEUE
    _, line = re.findall("job 4711: (.*)", job.output)
    assert line.startswith("time was up before the run had stopped") and line.endswith("requeued")
    assert signals(job) == ["TERM"]


def test_program_that_does_not_hear_the_notice_is_killed(submit: Any) -> None:
    """torchrun that waits for a node that is gone, say; the step's other tasks would wait for it."""
    program = "trap '' TERM; touch running; sleep 60 & while :; do wait; done"
    job = submit("one_node.sbatch", program, settings={"KILL_AFTER": "1"})
    running(job)
    job.notice()
    assert job.end() == "PENDING" and job.exit_code == REQUEUE


def test_run_that_finishes_in_spite_of_the_notice(submit: Any) -> None:
    job = submit("one_node.sbatch", "trap 'exit 0' TERM; touch running; while :; do sleep 0.02; done")
    running(job)
    job.notice()
    assert job.end() == "COMPLETED" and job.exit_code == 0


def test_job_that_fails_for_good_is_given_up(submit: Any) -> None:
    job = submit("one_node.sbatch", "echo started >>starts; exit 1", settings={"MAX_FAILURES": "2"})
    assert job.run(starts=10) == "FAILED" and job.exit_code == 101
    assert len((job.folder / "starts").read_text().split()) == 3
    assert "failed 3 times in a row, the last time with code 101; not requeued" in job.output
    assert not list(job.folder.glob("*.failures"))


def test_failures_count_in_a_row(submit: Any) -> None:
    """A start that the scheduler ended was none."""
    job = submit("one_node.sbatch", f"[ -e fail ] && exit 137\n{RECORDS}", settings={"MAX_FAILURES": "1"})
    for stop in (job.notice, job.grace):
        (job.folder / "fail").touch()
        job.start()
        assert job.end() == "PENDING" and job.exit_code == 137
        (job.folder / "fail").unlink()
        running(job)
        stop()
        assert job.end() == "PENDING"
    (job.folder / "fail").touch()
    assert job.run(starts=10) == "FAILED" and job.exit_code == 137 and job.restarts == 5


def test_failures_that_cannot_be_counted_end_it(submit: Any) -> None:
    job = submit("one_node.sbatch", "exit 1")
    (job.folder / "slurm-4711.failures").mkdir()
    assert job.run(starts=10) == "FAILED" and job.restarts == 0


@pytest.mark.parametrize("most", [0, 3])
def test_restarts_have_a_limit(submit: Any, most: int) -> None:
    """Also where none was a failure: a run that is stopped before its first step would go on for ever."""
    job = submit("one_node.sbatch", "exit 75", settings={"MAX_RESTARTS": str(most)})
    assert job.run(starts=10) == "FAILED" and job.exit_code == REQUEUE and job.restarts == most
    assert f"not requeued, after {most} restarts (MAX_RESTARTS)" in job.output


def test_job_that_slurm_does_not_requeue_says_so(submit: Any) -> None:
    job = submit("one_node.sbatch", "exit 75")
    (job.state_folder / "may-requeue").unlink()
    assert job.run(starts=10) == "FAILED" and job.exit_code == REQUEUE
    assert "scontrol did not requeue it" in job.output


SAYS = 'echo "$@" >>"said.$SLURM_PROCID"; echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT $SLURM_CPUS_PER_TASK" >>environment'


def test_what_one_node_runs(submit: Any) -> None:
    settings = {"DATA": "my data", "NPROC": "4", "RECIPE": "coco256", "CHECKPOINT": "mine", "SHUTDOWN": "100"}
    job = submit("one_node.sbatch", f'printf "%s\\n" "$@" >words\n{SAYS}', "--set", "a=[1, 2]", settings=settings)
    assert job.run(starts=1) == "COMPLETED"
    words = (job.folder / "words").read_text().splitlines()
    assert words[: words.index("hastezoo.recipes.coco256")] == [
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", "--max-restarts", "3", "-m",
    ]  # fmt: skip
    assert words[words.index("hastezoo.recipes.coco256") + 1 :] == [
        "--data", "my data", "--checkpoint", "mine", "--out", "runs/mine", "--quiet", "--set", "a=[1, 2]",
    ]  # fmt: skip
    assert (job.folder / "environment").read_text().split() == ["100", "64"]


def test_what_nodes_run(submit: Any) -> None:
    """One torchrun a node, that meet on the first."""
    settings = {"ENGINE": "fsdp", "SHARDS": "8", "DATA": ""}
    job = submit("nodes.sbatch", SAYS, settings=settings, hosts=("n1", "n2", "n3"))
    assert job.run(starts=1) == "COMPLETED"
    said = {path.name: path.read_text() for path in job.folder.glob("said.*")}
    assert sorted(said) == ["said.0", "said.1", "said.2"] and len(set(said.values())) == 1
    assert said["said.0"].split() == [
        "-m", "torch.distributed.run", "--nnodes", "3", "--rdzv-backend", "c10d", "--rdzv-endpoint", "n1:14711",
        "--rdzv-id", "4711", "--nproc-per-node", "gpu", "--max-restarts", "3", "-m", "hastezoo.recipes.imagenet256",
        "--set", "parallel.shards=8", "--checkpoint", "sit-xl-haste", "--out", "runs/sit-xl-haste", "--quiet",
        "--set", "parallel.engine=fsdp",
    ]  # fmt: skip
    assert (job.folder / "environment").read_text().splitlines() == ["270 64"] * 3


def test_every_node_gets_the_notice(submit: Any) -> None:
    job = submit("nodes.sbatch", RECORDS.replace("touch running", 'touch "running.$SLURM_NODEID"'), hosts=TWO)
    job.start()
    job.until(lambda: len(list(job.folder.glob("running.*"))) == 2)
    job.notice()
    assert job.end() == "PENDING"
    assert sorted(signals(job)) == ["TERM", "TERM", "saved", "saved"]


@pytest.mark.parametrize("script", ["nodes.sbatch", "ranks.sbatch"])
def test_task_that_fails_ends_the_others_and_is_a_failure(submit: Any, script: str) -> None:
    """The others, told to end, say 75; that hides nothing."""
    program = f'[ "$SLURM_PROCID" = 1 ] && {{ while [ ! -e running ]; do sleep 0.02; done; exit 2; }}\n{RECORDS}'
    job = submit(script, program, "eval-fid", settings={"MAX_FAILURES": "0", "SLURM_NTASKS": "2"}, hosts=TWO)
    assert job.run(starts=10) == "FAILED" and job.exit_code == 102 and job.restarts == 0
    assert signals(job) == ["TERM", "saved"]


RANKS = 'echo "$RANK of $WORLD_SIZE on $LOCAL_RANK: $*" >>ranks'


@pytest.mark.parametrize("seen, local", [(None, "01"), ("0,1", "01"), ("1", "00")])
def test_ranks_are_tasks(submit: Any, seen: str | None, local: str) -> None:
    """Where each task sees one GPU alone, as --gpus-per-task has it, it is the first."""
    settings = {"SLURM_NTASKS": "4", **({"CUDA_VISIBLE_DEVICES": seen} if seen else {})}
    job = submit("ranks.sbatch", RANKS, "eval-fid", "--out", "a b", settings=settings, hosts=TWO)
    assert job.run(starts=1) == "COMPLETED"
    assert sorted((job.folder / "ranks").read_text().splitlines()) == [
        f"{rank} of 4 on {local[rank % 2]}: -m hastezoo eval-fid --out a b" for rank in range(4)
    ]


def test_rank_of_an_array_is_requeued_alone(submit: Any) -> None:
    """Under its own name: one task of an array has the number of the whole array for its job's. Here 1 is the first."""
    settings = {"MAX_RESTARTS": "1", "SLURM_ARRAY_TASK_MIN": "1"}
    job = submit("ranks.sbatch", f"{RANKS}\nexit 75", "eval-fid", array=(3, 8), settings=settings)
    assert job.run(starts=9) == "FAILED" and job.restarts == 1
    assert (job.folder / "ranks").read_text().splitlines() == ["2 of 8 on 0: -m hastezoo eval-fid"] * 2


def test_rank_of_an_array_is_submitted_alone(submit: Any) -> None:
    settings = {"RANKS": "8", "FIRST": "0", "SLURM_ARRAY_TASK_MIN": "3"}
    job = submit("ranks.sbatch", RANKS, "eval-fid", array=(3, 1), settings=settings)
    assert job.run(starts=1) == "COMPLETED"
    assert (job.folder / "ranks").read_text() == "3 of 8 on 0: -m hastezoo eval-fid\n"


def test_ranks_without_a_command(submit: Any) -> None:
    job = submit("ranks.sbatch", RANKS)
    assert job.run(starts=9) == "FAILED" and job.exit_code == 2
    assert "what is to be run?" in job.output


def test_scripts_are_where_the_package_says(launch: Path, tmp_path: Path) -> None:
    """Without LAUNCH they are found through the interpreter, wherever the batch script was copied."""
    environment = {"PYTHON": sys.executable, "DATA": "", "RECIPE": "no-such"}
    settings = {"NPROC": "1", "WORKER_RESTARTS": "0", "MAX_FAILURES": "0"}
    job = Job(launch / "ranks.sbatch", ["--version"], folder=tmp_path, environment={**environment, **settings})
    job.environment["SLURM_NTASKS"] = "1"
    assert job.run(starts=1) == "COMPLETED", job.output
    assert "hastezoo" in job.output


@pytest.mark.parametrize("script", ["one_node.sbatch", "nodes.sbatch", "ranks.sbatch"])
def test_what_every_script_asks_of_slurm(submit: Any, script: str) -> None:
    asked = submit(script, "").options
    assert {name: asked[name] for name in ("requeue", "signal", "open-mode")} == {
        "requeue": "", "signal": "B:USR1@300", "open-mode": "append",
    }  # fmt: skip


def supervised(launch: Path, *lines: str) -> str:
    """What the lines say with supervise.sh."""
    script = "\n".join([f'source "{launch / "supervise.sh"}"', *lines])
    environment = {**os.environ, "POLL": "0.02"}
    result = subprocess.run(["bash", "-uc", script], capture_output=True, text=True, timeout=30, env=environment)
    return result.stdout


def test_notice_before_the_command_is_passed_on(launch: Path) -> None:
    """When the command has started, not to a shell that is about to: that would lose one in six (so many times)."""
    for _ in range(25):
        said = supervised(launch, "kill -USR1 $$", "supervise USR1 sleep 3", 'echo "$code $notices"')
        assert said == f"{128 + signal.SIGUSR1} USR1 \n"


def test_notice_after_the_command_is_none(launch: Path) -> None:
    """Neither passed on nor counted: the command's number may be another process' by now."""
    lines = ["supervise TERM true", "kill() { echo sent; }", "builtin kill -TERM $$", 'echo "$code $notices"']
    assert supervised(launch, *lines) == "0 \n"


def test_shellcheck(launch: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    files = [str(path) for path in sorted(launch.iterdir())]
    result = subprocess.run([shellcheck, "-x", *files], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def train_under_slurm(script: Path, folder: Path, *, hosts: tuple[str, ...] = ("localhost",), **settings: str) -> Job:
    """A job that trains the digits into folder/run; folder/steps.toml says how far."""
    words = [word for setting in MINIATURE for word in ("--set", setting)]
    words += ["--config", "steps.toml", "--device", "cpu", "--set", "train.checkpoint_every=100000"]
    environment = {
        "PYTHON": sys.executable, "RECIPE": "digits", "CHECKPOINT": "sit-ti-digits", "DATA": "", "OUT": "run",
        "NPROC": "1", "OMP_NUM_THREADS": "1", "POLL": POLL, **settings,
    }  # fmt: skip
    (folder / "steps.toml").write_text("[train]\nsteps = 100000\n")
    return Job(script, words, folder=folder, environment=environment, hosts=hosts)


def losses(out: Path) -> list[dict[str, float]]:
    """The lines of metrics, without the time that they took; of a run under way those that are whole."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def trained(job: Job, beyond: int) -> int:
    """Start it, and wait until it is so many steps further; the last that it reported then."""
    run = job.folder / "run"
    before = losses(run)[-1]["step"] if losses(run) else 0
    job.start()
    job.until(lambda: bool(losses(run)) and losses(run)[-1]["step"] >= before + beyond)
    return int(losses(run)[-1]["step"])


def stopped(job: Job) -> int:
    """It has gone back into the queue, with a checkpoint of the step after which it stopped."""
    assert job.end() == "PENDING", job.output
    step = losses(job.folder / "run")[-1]["step"]
    state = newest(job.folder / "run")
    assert state is not None and state["step"] == step
    return int(step)


def finish(job: Job) -> list[dict[str, float]]:
    """Let it do a few steps more, and end; the losses of all its starts."""
    steps = losses(job.folder / "run")[-1]["step"] + 7
    (job.folder / "steps.toml").write_text(f"[train]\nsteps = {steps}\n")
    job.start()
    assert job.end() == "COMPLETED", job.output
    assert (job.folder / "run" / "sit-ti-digits.safetensors").exists()
    return losses(job.folder / "run")


def unbroken(folder: Path, steps: int) -> list[dict[str, float]]:
    """The losses of a run that one process made in one go."""
    run("sit-ti-digits", small("train.log_every=1", f"train.steps={steps}"), folder / "whole", device="cpu", quiet=True)
    return losses(folder / "whole")


@pytest.mark.slow
def test_training_is_stopped_and_goes_on(launch: Path, tmp_path: Path) -> None:
    """By Slurm's notice, in the middle of an epoch; then the same job, started again, finishes. Bit for bit."""
    job = train_under_slurm(launch / "one_node.sbatch", tmp_path)
    reached = trained(job, 8)
    job.notice()
    assert stopped(job) >= reached and job.restarts == 1
    broken = finish(job)
    assert broken == unbroken(tmp_path, int(broken[-1]["step"]))


@pytest.mark.slow
@pytest.mark.parametrize("nproc, settings", [("1", {}), ("2", {"ENGINE": "fsdp", "SHARDS": "2"})])
def test_training_on_two_nodes_is_stopped_twice(
    launch: Path, tmp_path: Path, nproc: str, settings: dict[str, str]
) -> None:
    """By a notice, and by a preemption's SIGTERM to every process of the steps; the losses of one process."""
    job = train_under_slurm(launch / "nodes.sbatch", tmp_path, hosts=TWO, NPROC=nproc, **settings)
    trained(job, 8)
    job.notice()
    first = stopped(job)
    trained(job, 8)
    job.grace(children=True)
    assert stopped(job) > first and job.restarts == 2
    broken = finish(job)
    whole = unbroken(tmp_path, int(broken[-1]["step"]))
    assert [row["step"] for row in broken] == [row["step"] for row in whole]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([row[name] for row in broken], [row[name] for row in whole], rtol=TOLERANCE)


@pytest.mark.slow
def test_worker_that_dies_is_started_again_in_the_same_job(launch: Path, tmp_path: Path) -> None:
    """torchrun does that, from the newest checkpoint; Slurm hears nothing of it."""
    job = train_under_slurm(launch / "one_node.sbatch", tmp_path, NPROC="2")
    job.arguments += ["--set", "train.keep_at=[5]"]
    reached = trained(job, 8)
    (worker,) = [pid for pid in job.processes() if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    os.kill(worker, signal.SIGKILL)
    job.until(lambda: losses(tmp_path / "run")[-1]["step"] > reached + 20)
    job.notice()
    assert stopped(job) > reached and job.restarts == 1
    broken = finish(job)
    whole = unbroken(tmp_path, int(broken[-1]["step"]))
    assert [row["step"] for row in broken] == [row["step"] for row in whole]
    np.testing.assert_allclose([row["loss"] for row in broken], [row["loss"] for row in whole], rtol=TOLERANCE)


@pytest.mark.slow
def test_evaluation_is_stopped_and_goes_on(launch: Path, tmp_path: Path) -> None:
    """Two ranks of eval-fid, stopped with chunks done and chunks to do; the numbers are those of one process."""
    words = ["eval-fid", "--model", "sit-ti-digits-haste", "-n", "2100", "--steps", "4", "--device", "cpu"]
    environment = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "SLURM_NTASKS": "2"}
    arguments = [*words, "--out", "stopped"]
    job = Job(launch / "ranks.sbatch", arguments, folder=tmp_path, environment=environment, hosts=TWO)
    job.start()
    job.until(lambda: bool(chunks(tmp_path / "stopped")))
    job.notice()
    assert job.end() == "PENDING", job.output
    done = chunks(tmp_path / "stopped")
    assert 0 < len(done) < 5 and not list(tmp_path.rglob("*.partial"))
    job.start()
    assert job.end() == "COMPLETED", job.output
    assert chunks(tmp_path / "stopped").items() >= done.items()
    result = CliRunner().invoke(hastezoo, [*words, "--out", str(tmp_path / "whole")])
    assert result.exit_code == 0, result.output
    stopped, whole = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("stopped", "whole"))
    assert stopped["metrics"] == whole["metrics"]


def chunks(out: Path) -> dict[str, int]:
    """The chunks of features that are done, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "features").glob("0*.safetensors")}
