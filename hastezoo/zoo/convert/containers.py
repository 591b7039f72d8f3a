"""What wraps a foreign state dict: pickles of torch.save with an EMA, a model, an optimizer and arguments.

A pickle is read with `weights_only=True` and one class more, `argparse.Namespace`, which REPA and HASTE store their
arguments as. Whatever else a pickle asks for is refused by name. Files are memory-mapped: nothing is read that is not
used, an optimizer's state least of all.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.")  # what DDP and torch.compile put before every name


@dataclass
class Checkpoint:
    """A foreign checkpoint, opened.

    Attributes:
        states: State dicts by their name in the container: `ema`, `model`; `""` for a bare one.
        args: Training arguments.
        step: Training step, if stated.
        container: What it was wrapped in, in words.
    """

    states: dict[str, dict[str, Tensor]]
    args: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    container: str = ""

    def select(self, ema: bool | None = None) -> tuple[dict[str, Tensor], str]:
        """The state dict to use, and which it is: `ema`, `model`, or `unknown` for a bare one.

        Raises:
            UserError: If the one asked for is not there.
        """
        if "" in self.states:
            if ema is False:
                raise UserError("the file is a bare state dict: it has no separate EMA to leave out")
            return self.states[""], "unknown"
        name = "model" if ema is False else "ema"
        if name not in self.states and ema is None:
            name = "model"
        if name not in self.states:
            raise UserError(f"the file has no {name!r} weights; it has {', '.join(self.states)}")
        return self.states[name], name


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a foreign file, pickle or safetensors, memory-mapped.

    Raises:
        UserError: If it is not readable, asks for code, or holds no state dict.
    """
    content, container = read_content(path)
    try:
        return unwrap(content, container)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read_content(path: Path) -> tuple[Any, str]:
    """What a foreign file holds, whatever it is, memory-mapped; and the kind of file, in words.

    Raises:
        UserError: If it is not readable, or asks for code.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file of weights in it")
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        _refuse_stand_in(start)
        if start[8:9] == b"{":
            return _read_safetensors(path), "safetensors"
        return _read_pickle(path), "torch pickle" if zipfile.is_zipfile(path) else "old torch pickle"
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _refuse_stand_in(start: bytes) -> None:
    """Name what often lies where weights should be."""
    if start.startswith(b"version https://git-lfs"):
        raise UserError("is a pointer of git LFS, not the weights; fetch them with `git lfs pull`")
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UserError(
            "is a web page, not weights: the link it was downloaded from is dead, or wants a person to click"
        )


def unwrap(loaded: Mapping[str, Any], container: str = "state dict") -> Checkpoint:
    """Take a container apart; a bare state dict comes back as itself.

    Raises:
        UserError: If there is no state dict in it.
    """
    if not isinstance(loaded, Mapping):
        raise UserError(f"holds a {type(loaded).__name__}, not a state dict")
    if isinstance(loaded.get("state_dict"), Mapping):
        loaded = {**loaded, "model": loaded["state_dict"]}
    states = {name: _state(loaded[name], name) for name in ("ema", "model") if isinstance(loaded.get(name), Mapping)}
    if not states:
        return Checkpoint({"": _state(loaded, "it")}, container=container)
    step = loaded.get("steps", loaded.get("step"))
    keys = ", ".join(str(key) for key in loaded)
    return Checkpoint(
        states,
        args=_arguments(loaded.get("args")),
        step=step if isinstance(step, int) and not isinstance(step, bool) else None,
        container=f"{container} of {{{keys}}}",
    )


def _state(values: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    import torch

    state = {}
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise UserError(f"{name} is no state dict: {str(key)[:60]!r} is a {type(value).__name__}, not a tensor")
        if not value.is_floating_point():
            raise UserError(f"{key} has dtype {str(value.dtype).removeprefix('torch.')}; weights are floating point")
        for wrapper in WRAPPERS:
            key = key.removeprefix(wrapper)
        if key in state:
            raise UserError(
                f"{name} has {key} twice, once behind {' or '.join(WRAPPERS)}: which one counts is not known"
            )
        state[key] = value
    if not state:
        raise UserError("holds an empty state dict")
    return state


def _arguments(args: Any) -> dict[str, Any]:
    if isinstance(args, argparse.Namespace):
        return dict(vars(args))
    return dict(args) if isinstance(args, Mapping) else {}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"is not a readable safetensors file: {_one_line(error)}") from None


def _read_pickle(path: Path) -> Any:
    import torch

    # The older format of torch.save is no zip archive and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about protocols of pickle; what matters is refused below
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            raise _refusal(path, error) from None
        except Exception as error:  # a parser over bytes that anybody may have written fails in any way
            raise UserError(f"is truncated, or no file of torch.save: {_one_line(error)}") from None


def _refusal(path: Path, error: Exception) -> UserError:
    """Name the class or function that the pickle asks for; it was not run."""
    import torch

    names: list[str] = []
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file of the older format, or broken: the message has the name
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        names = [found[1]] if found else []
    names = [name for name in names if name != "argparse.Namespace"]
    if not names:
        return UserError(f"is truncated, or no file of torch.save: {_one_line(error)}")
    return UserError(
        f"its pickle asks for {', '.join(names[:3])}, which weights do not need; it was not run and the file is "
        "refused. If you trust its maker, save its state dict alone with safetensors and import that"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
