"""`prepare` and `eval-fid` as torchrun or a scheduler starts them: by RANK, WORLD_SIZE and LOCAL_RANK."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from hastezoo.cli.main import main
from hastezoo.cli.prepare_work import MACHINE, _machine
from hastezoo.data import ranks
from hastezoo.data.prepare import Machine
from hastezoo.data.ranks import Ranks
from hastezoo.errors import UserError
from hastezoo.processes import share_of_processes
from tests.data.coco_making import write_coco
from tests.data.comparing import assert_same
from tests.data.making import COUNT, SHARD, SIDE, make, write_photographs

DRAWING = ("eval-fid", "--solver", "euler", "--steps", 1, "--device", "cpu", "--out", "x")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "images")


def run(*arguments: Any) -> Result:
    """As rank k of n where the environment says so; what a user typed is in sys.argv."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def be(patch: pytest.MonkeyPatch, rank: object, count: object, **more: object) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": count, **more}.items():
        patch.setenv(name, str(value))


def folder_command(images: Path, dest: Path, vae: Path) -> tuple[Any, ...]:
    given = ("prepare", "folder", images, dest, "--resolution", SIDE, "--vae", vae, "--flip", "--device", "cpu")
    return (*given, "--shard-size", SHARD, "--threads", 2)


def test_ranks_make_the_data_set_of_one(
    images: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first tells of all, the others nothing."""
    dest = tmp_path / "dest"
    be(monkeypatch, 1, 2)
    result = run(*folder_command(images, dest, tiny_vae))
    assert (result.exit_code, result.output) == (0, "") and len(list(dest.glob("*.arrow"))) == 2
    be(monkeypatch, 0, 2)
    result = run(*folder_command(images, dest, tiny_vae))
    assert result.exit_code == 0 and result.stderr == "going on: 2 of 4 shards (8 images) are done\n"
    assert result.stdout.startswith(f"{COUNT} images of 3 classes in {dest}: ")
    make(images, tmp_path / "whole", tiny_vae, flip=True)
    assert_same(dest, tmp_path / "whole")


def test_captions_of_ranks(tiny_vae: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, captions = write_coco(tmp_path / "coco")
    dest, whole = tmp_path / "dest", tmp_path / "whole"
    options = ("--resolution", SIDE, "--vae", tiny_vae, "--text-encoder", tiny_clip, "--device", "cpu")
    options += ("--shard-size", 3, "--threads", 1, "--quiet")
    assert run("prepare", "captions", pictures, captions, whole, *options).exit_code == 0
    for rank in (1, 0):
        be(monkeypatch, rank, 2)
        result = run("prepare", "captions", pictures, captions, dest, *options)
        assert result.exit_code == 0 and bool(result.stdout) == (rank == 0), result.output
    assert_same(dest, whole)


def interrupted_at(patch: pytest.MonkeyPatch, looks: int) -> None:
    """The wait ends after so many looks, as by Ctrl-C."""
    left = [None] * looks

    def sleep(seconds: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()

    patch.setattr(time, "sleep", sleep)


@pytest.mark.parametrize("quiet", [False, True])
def test_the_first_says_whom_it_waits_for(
    images: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    """Once, for there are minutes between two times; and nothing of it with --quiet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ranks, "SILENCE", 0.0)
    be(monkeypatch, 0, 3)
    interrupted_at(monkeypatch, 3)
    tail = ("--quiet",) if quiet else ()
    monkeypatch.setattr(sys, "argv", ["/bin/hastezoo", "prepare", "folder", "my images", "dest"])
    result = run(*folder_command(images, tmp_path / "dest", tiny_vae), *tail)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[:-1] == ([] if quiet else [
        "waiting for 2 of 4 shards: 1 of rank 1, 1 of rank 2; a rank that has ended is started again with "
        "RANK=1 WORLD_SIZE=3 hastezoo prepare folder 'my images' dest"
    ])  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["/bin/hastezoo", "eval-fid", "-n", "1600"])
    interrupted_at(monkeypatch, 3)
    be(monkeypatch, 0, 2)
    result = run(*DRAWING, "-n", 1600, *tail)
    assert result.exit_code == 130
    assert [line for line in result.stderr.splitlines() if line.startswith("waiting")] == ([] if quiet else [
        "waiting for 2 of 4 chunks: 2 of rank 1; a rank that has ended is started again with "
        "RANK=1 WORLD_SIZE=2 hastezoo eval-fid -n 1600"
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 is none of WORLD_SIZE=2: ranks count from 0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 is none of WORLD_SIZE=2: ranks count from 0 to 1"),
        ({"WORLD_SIZE": "2"}, "RANK is not set: a process of several needs RANK and WORLD_SIZE, as torchrun sets them"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one': a process of several needs RANK and WORLD_SIZE, as "),
        ({"RANK": "0", "WORLD_SIZE": "2.0"}, "WORLD_SIZE is '2.0': a process of several needs RANK and WORLD_SIZE, "),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0 is no number of processes; it is 1 or more"),
    ],
)
def test_ranks_that_cannot_be(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for command in (folder_command(images, tmp_path / "dest", tmp_path), (*DRAWING, "-n", 600)):
        result = run(*command)
        assert result.exit_code == 2 and result.output.count("\n") == 1
        assert result.stderr.startswith(f"error: {line}")
    assert not (tmp_path / "dest").exists() and not (tmp_path / "x").exists()


def test_processes_of_their_own_do_not_go_with_ranks(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, 1, 4)
    result = run(*folder_command(images, tmp_path / "dest", tmp_path), "--processes", 2)
    assert (result.exit_code, result.output) == (
        2,
        "error: --processes does not go with WORLD_SIZE=4, where every rank is one process; leave it out\n",
    )
    assert not (tmp_path / "dest").exists()


def test_each_rank_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    be(monkeypatch, 5, 8, LOCAL_RANK=3)
    assert share_of_processes(torch.device("cuda")).device == torch.device("cuda:3")
    assert share_of_processes(torch.device("cpu")).device == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UserError, match=r"^LOCAL_RANK=4 has no GPU of its own: the machine has 4, counted from 0$"):
        share_of_processes(torch.device("cuda"))
    monkeypatch.delenv("LOCAL_RANK")
    assert share_of_processes(torch.device("cuda:2")).device == torch.device("cuda:2")
    assert share_of_processes(torch.device("cuda")).device == torch.device("cuda:0")


def test_the_cores_of_a_machine_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 17)
    options = {**dict.fromkeys(MACHINE), "device": "cpu", "max_bad": 7}
    wanted = {"device": "cpu", "max_bad": 7, "ranks": Ranks(5, 8)}
    be(monkeypatch, 5, 8)
    assert _machine(options) == Machine(**wanted)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert _machine(options) == Machine(**wanted, threads=4)
    assert _machine({**options, "threads": 9}) == Machine(**wanted, threads=9)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert _machine(options) == Machine(device="cpu", max_bad=7)
