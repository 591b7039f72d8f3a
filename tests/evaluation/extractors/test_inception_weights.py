"""The files that Inception takes its weights from, and those that it does not."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hastezoo.errors import UserError
from hastezoo.evaluation.extractors.inception import FILE, Inception
from tests.evaluation.networks import hollow_inception, write_inception


def saved(how: str, state: dict[str, torch.Tensor], path: Path) -> Path:
    if how == "safetensors":
        save_file(state, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    if how == "counters":
        norms = [name.removesuffix("weight") for name in state if name.endswith("bn.weight")]
        state = state | {f"{name}num_batches_tracked": torch.tensor(7) for name in norms}
    torch.save(state if how != "double" else {name: tensor.double() for name, tensor in state.items()}, path)
    return path


@pytest.mark.parametrize("how", ["safetensors", "zip", "counters", "double"])
def test_other_files_of_the_same_weights(how: str, inception: Inception, inception_file: Path, tmp_path: Path) -> None:
    path = saved(how, torch.load(inception_file, weights_only=True), tmp_path / "w.pth")
    before = torch.random.get_rng_state()
    other = Inception.from_file(path, device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before), "loading draws random numbers"
    expected, found = inception._network.state_dict(), other._network.state_dict()
    assert list(found) == list(expected) and other.identity["weights_sha256"] != inception.identity["weights_sha256"]
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name


def test_torch_fidelity_unpickles_nothing_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, free, load = write_inception(tmp_path / "w.pth", hollow_inception()), [], torch.load

    def watched(*arguments: Any, **settings: Any) -> Any:
        loaded = load(*arguments, **settings)
        if settings.get("weights_only") is not True:
            free.append(loaded)
        return loaded

    monkeypatch.setattr(torch, "load", watched)
    Inception.from_file(path, device="cpu")
    assert free == [{}]


class RunsCode:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, (str(self.mark),)


def broken(how: str, folder: Path) -> Path:
    """A file of weights that is none, in one of many ways."""
    path, state = folder / "w.pth", hollow_inception()
    if how == "folder":
        path.mkdir()
    elif how == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:6726825d\nsize 95628359\n")
    elif how == "page":
        path.write_text("\n<!DOCTYPE html><html>Not found</html>")
    elif how == "code":
        torch.save(state | {"fc.bias": RunsCode(folder / "ran")}, path)
    elif how == "old pickle with code":
        path.write_bytes(pickle.dumps({"fc.bias": RunsCode(folder / "ran")}))
    elif how == "list":
        torch.save([1], path)
    elif how == "safetensors":
        path.write_bytes((2**40).to_bytes(8, "little") + b'{"a":{}}' + bytes(64))
    elif how in ("truncated", "empty"):
        data = write_inception(path, state).read_bytes()
        path.write_bytes(data[: len(data) // 2 if how == "truncated" else 0])
    elif how == "missing":
        write_inception(
            path, {name: tensor for name, tensor in state.items() if name != "Mixed_7a.branch3x3_1.bn.bias"}
        )
    elif how == "no tensor":
        torch.save(state | {"fc.weight": 1}, path)
    elif how == "torchvision":
        write_inception(path, state | {"AuxLogits.fc.weight": torch.zeros(1)})
    elif how == "shape":
        write_inception(path, state | {"fc.weight": torch.zeros(()).expand(1000, 2048)})
    elif how == "dtype":
        write_inception(path, state | {"fc.bias": torch.zeros((), dtype=torch.int64).expand(1008)})
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("absent", "cannot read .*No such file"),
        ("folder", "is a folder"),
        ("pointer", "a pointer of git LFS, .*git lfs pull"),
        ("page", "is a web page"),
        ("code", r"asks for (posix|nt)\.mkdir.*not run"),
        ("old pickle with code", "w.pth"),
        ("truncated", "is truncated"),
        ("empty", "is truncated"),
        ("safetensors", "not a readable safetensors"),
        ("list", f"holds a list, not a state dict: the file wanted is {FILE}"),
        ("missing", rf"has no tensor Mixed_7a\.branch3x3_1\.bn\.bias: the file wanted is {FILE}"),
        ("no tensor", r"has no tensor fc\.weight"),
        ("torchvision", rf"has 'AuxLogits\.fc\.weight', which the network has not: the file wanted is {FILE}"),
        ("shape", r"has fc\.weight as float32 \(1000, 2048\), and the network's are floats \(1008, 2048\)"),
        ("dtype", r"has fc\.bias as int64 \(1008,\)"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_in_one_line(how: str, message: str, tmp_path: Path) -> None:
    path = broken(how, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        Inception.from_file(path, device="cpu")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_device_that_is_not_there_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        Inception.from_file(tmp_path / "absent", device="tpu")
