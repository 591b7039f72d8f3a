"""Our files of weights: round trip, the streamed writer, and everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hastezoo.errors import UserError
from hastezoo.models.registry import create_model
from hastezoo.zoo.modelfile import load_model, read_config, read_metadata, save_model, write_tensors, write_weights
from hastezoo.zoo.registry import find_card
from hastezoo.zoo.weights import resolve
from tests.word_models import random_words

TINY = {"input_size": (4, 8), "in_channels": 1, "num_classes": 3, "width": 16, "depth": 1, "heads": 2}


def saved(path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    model = create_model("sit_ti_2", **TINY)
    save_model(path, model, "sit_ti_2", weights="ema", step=7)
    return model


def test_round_trip(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.safetensors")
    loaded, metadata = load_model(tmp_path / "m.safetensors")
    assert loaded.config == model.config and metadata["step"] == "7"
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["m.safetensors"]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_streamed_file_is_what_the_library_reads(tmp_path: Path, dtype: torch.dtype | None) -> None:
    """Not contiguous, scalar, half precision, and tensors that share memory."""
    shared = torch.randn(6, 4)
    state = {"b": shared.T, "a": shared, "scalar": torch.tensor(3.5), "half": torch.randn(5).half()}
    write_tensors(tmp_path / "x.safetensors", state, {"z": "1", "a": "ü"}, dtype)
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor.to(dtype or tensor.dtype)), name
    assert read_metadata(tmp_path / "x.safetensors") == {"a": "ü", "z": "1"}
    data = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    for name in state:  # aligned, so that a reader can map it
        assert header[name]["data_offsets"][0] % loaded[name].element_size() == 0


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    state = {name: torch.arange(4.0) for name in "dbca"}
    for name, order in (("x", "abcd"), ("y", "dcba")):
        write_tensors(tmp_path / name, {key: state[key] for key in order}, {key: key for key in order})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_embedded_file_is_reproduced_to_the_byte(tmp_path: Path) -> None:
    """The streamed writer and the one that wrote the shipped weights agree."""
    path = resolve(find_card("sit-ti-digits")).path
    write_tensors(tmp_path / "x", load_file(path), read_metadata(path))
    assert (tmp_path / "x").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "header",
    [
        '{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        '{"a":{"dtype":"F33","shape":[4],"data_offsets":[0,16]}}',
        '{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}',
        '{"a":',
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: str) -> None:
    text = header.encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(UserError, match="not a readable safetensors file") as caught:
        load_model(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


def test_unusable_files_are_refused_in_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    saved(good)
    data = good.read_bytes()
    files = {
        "truncated": data[:-100],
        "empty": b"",
        "text": b"not weights at all",
        "lying": (2**40).to_bytes(8, "little") + data[8:],
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable safetensors file") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is no file"):
        load_model(tmp_path / "absent")


def test_foreign_and_unfitting_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not written by hastezoo"):
        load_model(path)
    model = create_model("sit_ti_2", **TINY)
    for config, tensors in (
        ({**TINY, "width": 32}, model.state_dict()),
        (TINY, {**model.state_dict(), "blocks.1.extra": torch.zeros(1)}),
        ({**TINY, "naem": 1}, model.state_dict()),
    ):
        metadata = {"format": "hastezoo-1", "architecture": "sit_ti_2", "config": json.dumps(config)}
        save_file(tensors, path, metadata)
        with pytest.raises(UserError, match="do not fit their own config") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)


def test_a_vocabulary_comes_back_as_it_was_and_means_the_same(tmp_path: Path) -> None:
    """JSON has lists alone, and a configuration has tuples."""
    words = ("two", "red", "piñata", "1")
    model = random_words(words=words, input_size=(8, 4))
    save_model(tmp_path / "m.safetensors", model, "word_mmdit")
    loaded: Any = load_model(tmp_path / "m.safetensors")[0]
    assert loaded.config == model.config and loaded.config.words == words and loaded.config.input_size == (8, 4)
    assert type(loaded.config.words) is tuple and type(read_config({"config": '{"a": [1], "b": "x"}'})["a"]) is tuple
    x, t, numbers = torch.randn(2, 3, 8, 4), torch.rand(2), torch.tensor([[1, 2, 3, 4, 0, 0], [4, 1, 0, 0, 0, 0]])
    again = random_words(9, words=words, input_size=(8, 4))
    again.load_state_dict(loaded.state_dict())
    save_model(tmp_path / "again.safetensors", loaded, "word_mmdit")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    with torch.no_grad():
        assert torch.equal(again(x, t, numbers), model(x, t, numbers))
        # Where the tensors lie in memory, which a file decides, may move the last bits of their products.
        assert torch.allclose(loaded(x, t, numbers), model(x, t, numbers), atol=1e-4)


def test_a_vocabulary_that_does_not_fit_the_weights_is_refused(tmp_path: Path) -> None:
    model = random_words(words=("red", "cat"))
    for words, said in ((["red"], "size mismatch"), (["red", "red"], "names a word twice"), ([], "needs words")):
        config = {**vars(model.config), "words": words}
        write_weights(tmp_path / "m.safetensors", model.state_dict(), "word_mmdit", config)
        with pytest.raises(UserError, match=f"do not fit their own config: .*{said}") as caught:
            load_model(tmp_path / "m.safetensors")
        assert "\n" not in str(caught.value)
