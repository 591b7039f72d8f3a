"""Our file of weights: safetensors with the architecture and its whole config in the metadata."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.files import atomic_open

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

FORMAT = "hastezoo-1"
Progress = Callable[[int, int], None]
# Names of dtypes in a safetensors header.
CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def save_model(path: Path, model: nn.Module, architecture: str, **facts: Any) -> None:
    """Write a model as safetensors with its architecture, config and further facts in the metadata, atomically.

    Args:
        path: Final name; it appears whole or not at all.
        model: A model with a `config` dataclass.
        architecture: Registered name.
        **facts: JSON values worth keeping, such as `step=10000`.
    """
    from dataclasses import asdict

    config = asdict(model.config)  # type: ignore[call-overload]
    write_weights(path, model.state_dict(), architecture, config, **facts)


def write_weights(
    path: Path,
    state: Mapping[str, Tensor],
    architecture: str,
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    progress: Progress = lambda done, total: None,
    **facts: Any,
) -> None:
    """The same from a state dict, tensor by tensor, so that memory holds one of them and not the file.

    Args:
        path: Final name.
        state: Names -> tensors; memory-mapped ones are read as they are written.
        architecture, config: What the tensors are of.
        dtype: Convert to it on the way.
        progress: Called with the bytes written and the bytes there will be.
        **facts: Further facts.
    """
    metadata = {"format": FORMAT, "architecture": architecture, "config": json.dumps(config)}
    metadata |= {key: json.dumps(value) for key, value in facts.items()}
    write_tensors(path, state, metadata, dtype, progress)


def write_tensors(
    path: Path,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write safetensors with a stream: names and metadata in alphabetical order.

    The library's own writer orders metadata at random and, before version 0.5, copied every tensor first. So the same
    tensors and facts give the same sha256, and 2.7 GB are written in the memory of one tensor.
    """
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name in _ordered(state):
        tensor = state[name]
        kind = dtype or tensor.dtype
        size = tensor.numel() * kind.itemsize
        code = CODES[str(kind).removeprefix("torch.")]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    with atomic_open(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in _ordered(state):
            stream.write(_raw(state[name], dtype))
            progress(header[name]["data_offsets"][1], offset)


def _ordered(state: Mapping[str, Tensor]) -> list[str]:
    """Widest dtypes first, as the library does, so that every tensor is aligned; then by name."""
    return sorted(state, key=lambda name: (-state[name].element_size(), name))


def _raw(tensor: Tensor, dtype: torch.dtype | None) -> Any:
    """A tensor's bytes, little-endian, without a copy where it is contiguous and of that dtype."""
    import torch

    plain = tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype)
    return plain.reshape(-1).view(torch.uint8).numpy().data


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of any safetensors file; no tensor is read.

    Raises:
        UserError: If it is not one.
    """
    with open_tensors(path, "numpy") as file:
        return dict(file.metadata() or {})


@contextlib.contextmanager
def open_tensors(path: Path, framework: str = "pt") -> Iterator[Any]:
    """`safetensors.safe_open` with errors of one line.

    Raises:
        UserError: If the file is missing or not readable.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file of weights in it")
    try:
        with safe_open(str(path), framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not a readable safetensors file: {reason[:160]}") from None


def is_ours(path: Path) -> bool:
    """Whether a file is one that we wrote; foreign and broken files are not."""
    try:
        return read_metadata(path).get("format") == FORMAT
    except UserError:
        return False


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a file of ours.

    Raises:
        UserError: If the file is not one that `save_model` wrote.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} was not written by hastezoo (its metadata has no format {FORMAT!r})")
    return metadata


def read_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The config in the metadata.

    Raises:
        KeyError, ValueError: If there is none that can be read.
    """
    config = json.loads(metadata["config"])
    if not isinstance(config, dict):
        raise ValueError("config is no table")
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
    }  # JSON has no tuples


def load_model(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The model in a file of ours, in evaluation mode on the CPU, and the file's metadata.

    Raises:
        UserError: If the file is not one of ours, or its tensors do not fit its config.
    """
    import torch

    from hastezoo.models.registry import create_model

    metadata = read_header(path)
    state = _read_tensors(path)
    try:
        with torch.device("meta"):
            model = create_model(metadata["architecture"], **read_config(metadata))
        model.load_state_dict(state, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the weights do not fit their own config: {reason[:200]}") from None
    return model.eval().requires_grad_(False), metadata


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from None
