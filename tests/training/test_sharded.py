"""Sharded checkpoints of one process: what breaks one, a disk that is full, exports, forks. They are what files are."""

from __future__ import annotations

import json
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from hastezoo.errors import UserError
from hastezoo.processes import Processes
from hastezoo.recipes.digits import DigitsConfig, main
from hastezoo.recipes.digits import run as run_digits
from hastezoo.training.checkpoints import Checkpoints, stored
from hastezoo.training.config import configure
from hastezoo.training.engines import create_engine
from hastezoo.training.export import export_run
from hastezoo.training.sharded import INDEX
from tests.training.test_resume import assert_same, final, small, train

SHARDED = "train.parallel.checkpoints=sharded"
NEWEST = "step-00000010"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps; shards of the steps 5 and 10. Tests read it."""
    out = tmp_path_factory.mktemp("sharded") / "run"
    train(out, 10, SHARDED)
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be broken."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def names(out: Path) -> list[str]:
    return [path.name for path in Checkpoints(out / "checkpoints").paths()]


def shard_of(checkpoint: Path) -> Path:
    (shard,) = checkpoint.glob("*.safetensors")
    return shard


def cut(checkpoint: Path) -> None:
    shard = shard_of(checkpoint)
    shard.write_bytes(shard.read_bytes()[:-1000])


def name_no_sizes(checkpoint: Path) -> None:
    about = json.loads((checkpoint / INDEX).read_text())
    (checkpoint / INDEX).write_text(json.dumps({**about, "files": list(about["files"])}))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, r"shard-00001-\S+safetensors has [\d,]+ bytes, not [\d,]+"),
    "gone": (lambda checkpoint: shard_of(checkpoint).unlink(), r"shard-00001-\S+safetensors: No such file"),
    "no index": (lambda checkpoint: (checkpoint / INDEX).unlink(), r"checkpoint\.json: No such file"),
    "half an index": (lambda checkpoint: (checkpoint / INDEX).write_text('{"format": 1, "st'), "Unterminated string"),
    "an index of no sizes": (name_no_sizes, "items"),
    "nothing in it": (
        lambda checkpoint: (shutil.rmtree(checkpoint), checkpoint.mkdir())[0],
        r"checkpoint\.json: No such file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_one_is_taken(whole: Path, copied: Path, damage: str) -> None:
    """A line says which and why; the run goes on from there, and its own checkpoint takes the place of the damaged."""
    breaking, reason = DAMAGES[damage]
    breaking(copied / "checkpoints" / NEWEST)
    with pytest.warns(UserWarning, match=rf"{NEWEST} cannot be read \(.*{reason}.*\); trying the one before") as told:
        found = Checkpoints(copied / "checkpoints").latest()
    assert found is not None and found.step == 5
    assert len(told) == 1 and "\n" not in str(told[0].message)
    if damage == "cut":
        with pytest.warns(UserWarning, match="trying the one before"):
            run_digits("sit-ti-digits", small("train.steps=10", SHARDED), copied, device="cpu", quiet=True)
        assert_same(final(copied), final(whole))
        assert names(copied) == names(whole) and not list(copied.rglob("*.partial"))


def test_a_shard_of_the_right_size_that_is_no_safetensors_is_one_line(copied: Path) -> None:
    shard = shard_of(copied / "checkpoints" / NEWEST)
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(UserError, match=rf"^checkpoint \S*{NEWEST} cannot be read \(") as told:
        run_digits("sit-ti-digits", small("train.steps=12", SHARDED), copied, device="cpu", quiet=True)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=rf"^checkpoint \S*{NEWEST} cannot be read \("):
        export_run(copied, "mine", step=10)


def test_one_that_does_not_fit_the_run_is_one_line(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(UserError, match=rf"^checkpoint \S*{NEWEST} cannot be read \(.+\)$") as told:
        changed = small("train.steps=12", SHARDED, "model.depth=3")
        run_digits("sit-ti-digits", changed, copied, device="cpu", quiet=True)
    assert "\n" not in str(told.value)


def test_nothing_is_said_of_processes_that_are_not_there(tmp_path: Path) -> None:
    """torch warns who saves alone, in a thread of its own."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(tmp_path / "run", 2, SHARDED)
    assert not [str(one.message) for one in told if "torch.distributed" in str(one.message)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files that a shard exceeds and a log does not: EFBIG in the place of ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_while_shards_are_written(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out, 5, SHARDED)
    safe = files(out / "checkpoints" / "step-00000005")
    with full_disk(), pytest.raises(UserError) as told:
        run_digits("sit-ti-digits", small("train.steps=10", SHARDED), out, device="cpu", quiet=True)
    said = f"the checkpoint of step 10 cannot be written to {out / 'checkpoints'} (File too large); that of step 5 is "
    assert str(told.value) == f"{said}good. When that is mended, the same command goes on"
    assert names(out) == ["step-00000005"] and files(out / "checkpoints" / "step-00000005") == safe
    assert_same(train(out, 10, SHARDED), final(whole))
    assert not list(out.rglob("*.partial"))


def test_a_disk_that_is_full_at_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shards are there, but not the file that says so; training has gone on meanwhile."""

    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("hastezoo.training.sharded.write_json", full)
    with pytest.raises(
        UserError, match=r"step 5 cannot be written to .* \(No space left on device\); none was written"
    ):
        train(tmp_path / "run", 10, SHARDED)
    assert names(tmp_path / "run") == []


@pytest.mark.parametrize("which", ["ema", "model"])
def test_an_export_is_that_of_one_file(whole: Path, tmp_path: Path, which: Any) -> None:
    """Byte for byte, of the newest and of one before."""
    one_file = tmp_path / "one-file"
    train(one_file, 10)
    assert names(one_file) == [f"{name}.pt" for name in names(whole)]
    for step in (None, 5):
        ours = export_run(whole, f"ours-{step or 10}", step=step, weights=which)
        theirs = export_run(one_file, f"theirs-{step or 10}", step=step, weights=which)
        assert ours.weights.read_bytes() == theirs.weights.read_bytes()
        assert ours.card.steps == theirs.card.steps == (step or 10)
    newest, before = (export_run(whole, f"again-{step}", step=step, weights=which) for step in (10, 5))
    assert newest.weights.read_bytes() != before.weights.read_bytes()


def test_an_export_passes_over_a_damaged_one(copied: Path) -> None:
    cut(copied / "checkpoints" / NEWEST)
    before = files(copied)
    with pytest.warns(UserWarning, match=rf"{NEWEST} cannot be read .*; trying the one before"):
        assert export_run(copied, "mine").card.steps == 5
    assert files(copied) == before
    with pytest.raises(UserError, match=rf"{NEWEST} cannot be read"):
        export_run(copied, "other", step=10)


def fork(out: Path, steps: int, origin: Path, *settings: str) -> dict[str, Any]:
    """A run of another seed, which alone would begin from other weights."""
    config = small(f"train.steps={steps}", "train.seed=1", *settings)
    run_digits("sit-ti-digits", config, out, device="cpu", quiet=True, origin=origin)
    return final(out)


def test_a_fork_begins_with_the_weights_of_its_origin(whole: Path, tmp_path: Path) -> None:
    """And its optimizer's state: it takes the steps that a fork from one file takes."""
    origin = whole / "checkpoints" / "step-00000005"
    before, begun = files(origin), stored(origin)
    state = fork(tmp_path / "ours", 5, origin, SHARDED)
    assert state["step"] == 5
    for part in ("model", "ema", "optimizer"):
        assert_same(state[part], begun.read(part), part)  # type: ignore[union-attr]
    ours = fork(tmp_path / "ours", 7, origin, SHARDED)
    train(tmp_path / "one-file", 5)
    theirs = fork(tmp_path / "theirs", 7, tmp_path / "one-file" / "checkpoints" / "step-00000005.pt")
    for part in ("model", "ema"):
        assert_same(ours[part], dict(theirs[part]), part)
    weight = "blocks.0.attn.qkv.weight"
    assert not torch.equal(ours["model"][weight], state["model"][weight])
    assert files(origin) == before


def test_a_fork_from_a_damaged_one_is_refused_and_leaves_nothing(copied: Path, tmp_path: Path) -> None:
    origin = copied / "checkpoints" / NEWEST
    cut(origin)
    with pytest.raises(UserError, match=rf"{NEWEST} cannot be read"):
        fork(tmp_path / "fork", 12, origin, SHARDED)
    assert not (tmp_path / "fork").exists()


@pytest.mark.parametrize("name", [f"{NEWEST}.pt", "step-00000011", "checkpoint.json"])
def test_a_fork_from_what_is_no_checkpoint(whole: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} is no checkpoint of a run; name one such as"):
        fork(tmp_path / "fork", 12, whole / "checkpoints" / name)
    assert not (tmp_path / "fork").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["shards=2"], "shards = 2 is for engine = fsdp; with ddp every process has a copy of all"),
        (["engine=fsdp", "checkpoints=file"], "checkpoints = file would gather on one process what fsdp has spread"),
        (["engine=fsdp", "shards=1"], "greater than or equal to 2"),
        (["engine=fsdp", "shards=0"], "greater than or equal to 2"),
        (["checkpoints=shards"], "'auto', 'file' or 'sharded'"),
        (["engine=zero"], "'ddp' or 'fsdp'"),
        (["silence=0"], "greater than 0"),
        (["stall=-1"], "greater than 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_cannot_be(tmp_path: Path, settings: list[str], message: str) -> None:
    """One line, which says where; nothing is made."""
    given = [part for one in settings for part in ("--set", f"train.parallel.{one}")]
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "run"), "--device", "cpu", *given])
    assert result.exit_code == 2 and not (tmp_path / "run").exists(), result.output
    (said,) = [line for line in result.output.splitlines() if line.strip()]
    assert said.startswith("error: train.parallel") and message in said


@pytest.mark.parametrize("count", [3, 6])
def test_processes_that_do_not_divide_into_groups(count: int) -> None:
    """Said before any process waits for another: there is no group of them here."""
    config = configure(DigitsConfig(), None, ["train.parallel.engine=fsdp", "train.parallel.shards=4"]).train
    with pytest.raises(UserError, match=rf"^{count} processes do not divide into groups of parallel\.shards = 4$"):
        create_engine(config, Processes(0, count, torch.device("cpu")))


def test_alone_a_process_has_everything_and_takes_the_same_steps(whole: Path, tmp_path: Path) -> None:
    """FSDP of one process, sharded or in groups that it cannot fill: the settings of a large job, tried at home."""
    state = train(tmp_path / "run", 10, "train.parallel.engine=fsdp", "train.parallel.shards=8")
    assert_same(state, final(whole))
    assert names(tmp_path / "run") == names(whole)
