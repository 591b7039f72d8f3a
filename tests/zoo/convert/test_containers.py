"""Foreign files: containers, and everything malicious or broken that a file can be."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hastezoo.errors import UserError
from hastezoo.zoo.convert.containers import read_checkpoint, unwrap
from tests.memory import REPORT, run_measured
from tests.zoo.foreign import random_sit, repa_state, save_repa, state_of


def test_repas_container_with_a_real_namespace(tmp_path: Path) -> None:
    state = save_repa(tmp_path / "last.pt", random_sit(), steps=4000)
    checkpoint = read_checkpoint(tmp_path / "last.pt")
    assert checkpoint.step == 4000 and checkpoint.args["enc_type"] == "dinov2-vit-b"
    assert "{model, ema, opt, args, steps}" in checkpoint.container
    ema, which = checkpoint.select()
    assert which == "ema" and all(torch.equal(ema[key], state[key]) for key in state)
    raw, which = checkpoint.select(ema=False)
    assert which == "model" and all(torch.equal(raw[key], state[key] + 1) for key in state)


def test_bare_and_one_sided_containers() -> None:
    state = state_of(random_sit())
    for loaded in (state, OrderedDict(state), {"state_dict": state}, {"model": state}):
        assert unwrap(loaded).select()[0].keys() == state.keys()
    with pytest.raises(UserError, match="no 'ema' weights; it has model"):
        unwrap({"model": state}).select(ema=True)
    with pytest.raises(UserError, match="bare state dict"):
        unwrap(state).select(ema=False)
    assert unwrap(state).select() == (state, "unknown")


def test_a_name_that_comes_twice_is_refused() -> None:
    state = state_of(random_sit())
    key = "blocks.0.attn.proj.bias"
    with pytest.raises(UserError, match=r"has blocks\.0\.attn\.proj\.bias twice"):
        unwrap({**state, f"module.{key}": state[key]})


def test_older_torch_files_without_a_zip_archive(tmp_path: Path) -> None:
    state = state_of(random_sit())
    torch.save({"ema": state}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    checkpoint = read_checkpoint(tmp_path / "old.pt")
    assert "old torch pickle" in checkpoint.container
    assert all(torch.equal(checkpoint.states["ema"][key], state[key]) for key in state)


def test_foreign_safetensors(tmp_path: Path) -> None:
    state = state_of(random_sit())
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    checkpoint = read_checkpoint(tmp_path / "diffusion_pytorch_model.safetensors")
    assert checkpoint.container == "safetensors" and checkpoint.states[""].keys() == state.keys()


class RunsCode:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("place", ["alone", "args", "opt", "key"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, place: str, zipped: bool) -> None:
    mark, path = tmp_path / "ran", tmp_path / "bad.pt"
    state: Any = state_of(random_sit())
    bad = RunsCode(mark)
    loaded: Any = {
        "alone": bad,
        "args": {"ema": state, "args": bad},
        "opt": {"ema": state, "opt": [bad]},
        "key": {**state, "blocks.0.attn.qkv.weight": bad},
    }[place]
    torch.save(loaded, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"asks for (posix|os|nt)\.system, which weights do not need") as caught:
        read_checkpoint(path)
    assert not mark.exists() and "\n" not in str(caught.value)


def test_a_plain_pickle_that_would_run_code_does_not(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"ema": RunsCode(mark)}))
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert not mark.exists() and "\n" not in str(caught.value)


def test_another_class_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "config.pt"
    torch.save({"ema": state_of(random_sit()), "args": Path("/data")}, path)
    with pytest.raises(UserError, match=r"asks for pathlib[\w.]*Path") as caught:
        read_checkpoint(path)
    assert "argparse" not in str(caught.value)


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "zip", "flipped", "folder", "absent", "safetensors"])
def test_broken_files_are_refused_in_one_line(tmp_path: Path, how: str) -> None:
    path = tmp_path / "x.pt"
    save_repa(path, random_sit())
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>Too many people have downloaded this file</html>")
    elif how == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "hello")
    elif how == "flipped":
        start = data.index(b"PK\x01\x02")  # the directory at the end
        path.write_bytes(data[:start] + bytes(reversed(data[start:])))
    elif how == "folder":
        path = tmp_path
    elif how == "absent":
        path = tmp_path / "y.pt"
    else:
        path.write_bytes((2**40).to_bytes(8, "little") + b'{"a":{}}' + bytes(64))
    with pytest.raises(UserError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path, zipped: bool) -> None:
    """150 files with bytes changed, mostly in the pickle: each is read or refused in one line."""
    path = tmp_path / "x.pt"
    torch.save({"ema": repa_state(random_sit())}, path, _use_new_zipfile_serialization=zipped)
    data, random = path.read_bytes(), Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(random.choice([1, 3, 20])):
            damaged[random.randrange(min(len(data), 20_000))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "an empty state dict"),
        ({"ema": {}}, "an empty state dict"),
        ({"ema": {"a": 1}}, "ema is no state dict: 'a' is a int"),
        ({"a": torch.zeros(1), "b": "text"}, "'b' is a str"),
        ({"a": torch.zeros(1, dtype=torch.int8)}, "a has dtype int8"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, loaded: Any, message: str) -> None:
    torch.save(loaded, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / "x.pt")


def test_only_the_chosen_weights_are_read(tmp_path: Path) -> None:
    """The file is mapped: opening a container of 128 MB takes next to no memory."""
    path = tmp_path / "large.pt"
    state = repa_state(random_sit())
    torch.save({"ema": state, "model": state, "opt": {"state": torch.zeros(128 << 20, dtype=torch.uint8)}}, path)
    code = "import sys\nimport torch\nfrom pathlib import Path\n"
    code += "from hastezoo.zoo.convert.containers import read_checkpoint\n"
    output, after = run_measured(code + REPORT + "read_checkpoint(Path(sys.argv[1]))\n", path)
    assert after - int(output.removeprefix("PEAK")) < 32 << 20
