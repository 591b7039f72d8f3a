"""Teachers by name: timm's frozen ViTs, with their own preprocessing, at the size that fits the student.

A teacher is a full timm name with its tag, which fixes the preprocessing (`vit_base_patch14_dinov2.lvd142m`), or a
folder in timm's own layout (`local-dir:FOLDER`). Files of weights are read here and given to timm as tensors, so that
nothing else is ever unpickled; renaming keys and resampling the position table stay timm's.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hastezoo import hub
from hastezoo.alignment.capture import Lesson, Teacher, by, one_line, patch_size
from hastezoo.devices import find_device
from hastezoo.errors import UserError, nearest

__all__ = ["Lesson", "Teacher", "create_teacher"]

LOCAL = "local-dir:"
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
# What weights come wrapped in (timm, MAE, DINO, I-JEPA), and what stands before their names (DDP, torch.compile, DINO).
CONTAINERS = ("state_dict_ema", "model_ema", "model", "state_dict", "teacher", "encoder")
WRAPPERS = re.compile(r"^((module|_orig_mod|backbone)\.)+")
HEADS = ("head.", "head_dist.", "visual.proj")  # what no teacher needs: timm's, DeiT's, OpenAI's

UNREADABLE = "safetensors and files of torch.save are read"


def create_teacher(
    name: str,
    *,
    grid: tuple[int, int] = (16, 16),
    attention_layers: Sequence[int] = (),
    weights: Path | None = None,
    pretrained: bool = True,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    compile: bool | None = None,
) -> Teacher:
    """A teacher by name.

    Args:
        name: A full timm name with its tag, or `local-dir:FOLDER` (config.json and the weights), whose configuration
            then rules everything.
        grid: (rows, columns) of the student's tokens. The teacher sees images of its patch times this, so that its
            patches are the student's tokens; CLIP models keep the size they were trained at.
        attention_layers: 0-based blocks whose queries and keys are wanted.
        weights: A local file, safetensors or torch, instead of the Hub's.
        pretrained: False for random weights, which are a function of torch's seed.
        device: Where it runs.
        dtype: What it computes in.
        compile: Whether to compile it; None for on CUDA only.

    Raises:
        UserError: If there is no such model, its weights are not to be had or do not fit, or it cannot teach this.
    """
    target = find_device(str(device))
    compiled = target.type == "cuda" if compile is None else compile
    loads = pretrained or weights is not None
    # Initialisation draws random numbers, also where weights replace them; the student's must not depend on it.
    with torch.random.fork_rng(devices=[]):
        if not name.startswith(LOCAL):
            _check_name(name, loads)
        # What cannot teach is refused before anything is downloaded.
        arguments, _ = _skeleton(name, grid, attention_layers, dtype)
        model = _loaded(name, _file(name, weights), arguments) if loads else _built(name, **arguments)
        return _taught(model, attention_layers=attention_layers, device=target, dtype=dtype, compile=compiled)


def teacher_without_weights(
    name: str, *, grid: tuple[int, int], attention_layers: Sequence[int] = (), dtype: torch.dtype = torch.float32
) -> tuple[Teacher, Any]:
    """A teacher on the meta device, and its model: shapes, of which costs are counted. Nothing is downloaded.

    Raises:
        UserError: As `create_teacher`.
    """
    if not name.startswith(LOCAL):
        _check_name(name, loads=True)
    _, (teacher, model) = _skeleton(name, grid, attention_layers, dtype)
    return teacher, model


def _skeleton(
    name: str, grid: tuple[int, int], attention_layers: Sequence[int], dtype: torch.dtype
) -> tuple[dict[str, Any], tuple[Teacher, Any]]:
    """timm's arguments for the student's grid, and with them the teacher and its model on the meta device."""
    with torch.device("meta"):
        arguments = {} if name.startswith(LOCAL) else _input_size(_built(name), grid)
        model = _built(name, **arguments)
        return arguments, (_taught(model, attention_layers=attention_layers, device="meta", dtype=dtype), model)


def _taught(model: Any, **settings: Any) -> Teacher:
    """The teacher that a timm model makes, with the model's own preprocessing."""
    import timm

    config = timm.data.resolve_model_data_config(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or config["input_size"][1:]
    return Teacher(model, mean=config["mean"], std=config["std"], size=tuple(size), **settings)


def _check_name(name: str, loads: bool) -> None:
    """Refuse a name that is not timm's, or says too little or the wrong thing about the weights."""
    import timm

    architecture, _, tag = name.partition(".")
    exists = timm.is_model(architecture)
    known = timm.list_models(f"{architecture}.*", pretrained=True) if exists else []
    if not exists or (tag and name not in known):
        near = nearest(name, known or timm.list_models(pretrained=True)) or ["vit_base_patch14_dinov2.lvd142m"]
        raise UserError(f"timm has no model {name!r}; nearest: {', '.join(near)}; or name a folder, local-dir:FOLDER")
    if loads and not tag and known:
        shown = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
        raise UserError(f"{name!r} does not say which weights; write one of {shown}")
    # OpenAI's CLIP and some after it were trained with x * sigmoid(1.702 x) for GELU; timm loads them into either.
    right = architecture.replace("_clip_", "_clip_quickgelu_") + f".{tag}"
    if "quickgelu" not in architecture and right in timm.list_models("*quickgelu*", pretrained=True):
        raise UserError(f"{name}: these weights were trained with quick GELU, and this model has another; take {right}")


def _input_size(model: Any, grid: tuple[int, int]) -> dict[str, Any]:
    """timm's argument for images that the model cuts into the student's grid."""
    if min(grid) < 1:
        raise UserError(f"a grid has rows and columns, 1 or more of each, not {by(grid)}")
    height, width = patch_size(model)
    if "clip" in model.pretrained_cfg["architecture"].split("_"):
        return {}
    return {"img_size": (height * grid[0], width * grid[1])}


def _built(name: str, **arguments: Any) -> Any:
    """timm's model without a head and with random weights."""
    import timm

    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except Exception as error:  # of any of timm's models, or a configuration that anybody may have written
        raise UserError(f"timm cannot build {_shown(name, arguments)}: {one_line(error)}") from None


def _shown(name: str, arguments: dict[str, Any]) -> str:
    return f"{name} for images {by(arguments['img_size'])}" if arguments else name


def _file(name: str, weights: Path | None) -> Path:
    """The file of weights: the one that is named, the folder's, or the Hub's."""
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL))
        if weights is not None:
            raise UserError(f"{name} has weights of its own; leave {weights} out, or put it there as {FOLDER_FILES[0]}")
        found = [folder / file for file in FOLDER_FILES if (folder / file).is_file()]
        if not found:
            raise UserError(f"{folder} holds no weights; put them there as {FOLDER_FILES[0]}")
        return found[0]
    if weights is not None:
        return Path(weights)
    return _download(name)


def _download(name: str) -> Path:
    """The file that timm would download, into the same cache, checked as all that comes from the Hub."""
    import timm

    known = timm.get_pretrained_cfg(name)
    if not known or not known.hf_hub_id:
        place = (
            f"; download {known.url} and give it as weights=" if known and known.url else "; give a file as weights="
        )
        raise UserError(f"{name} is not on the Hub{place}")
    repo, _, revision = known.hf_hub_id.partition("@")
    try:
        return hub.fetch(hub.Place(repo, revision or None, known.hf_hub_filename or hub.DEFAULT_FILE))
    except UserError as error:
        raise type(error)(f"{error}; a file that you have can be given as weights=") from None


def _loaded(name: str, path: Path, arguments: dict[str, Any]) -> Any:
    """timm's model without a head, with the weights of a file."""
    import timm

    state = _read(path)
    # With as many classes as the file is said to have, none, timm loads strictly; and from nowhere else.
    overlay: dict[str, Any] = dict.fromkeys(("source", "file", "url", "hf_hub_id", "label_offset"))
    overlay |= {"state_dict": state, "num_classes": 0}
    try:
        model: Any = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **arguments
        )
    except Exception as error:  # whatever a file may hold; load_state_dict says which names and shapes
        raise UserError(f"{path} does not fit {_shown(name, arguments)}: {one_line(error)}") from None
    model.pretrained_cfg.pop("state_dict")  # timm's copy of the weights
    # But the average pooled SigLIPs, whose own file has a pooling head too many: what is missing would stay random.
    missing = [key for key in model.state_dict() if key not in state] if "siglip" in name else []
    if missing:
        raise UserError(f"{path} does not fit {name}: it has no {missing[0]}, and {len(missing) - 1} more are missing")
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, safetensors or torch, out of what they are wrapped in and without a head.

    Raises:
        UserError: If there is no such file, it is damaged or asks for code, or holds no tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}")
    content: Any = _content(path)
    for container in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    state = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            state[WRAPPERS.sub("", key)] = value
    state = {key: value for key, value in state.items() if not key.startswith(HEADS)}
    if not state:
        raise UserError(f"{path} holds no weights: no dictionary of tensors is in it, but perhaps a head's")
    return state


def _content(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # argparse.Namespace: timm, MAE and DINO keep their arguments in one.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols of pickle
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:  # torch's message goes on to recommend reading it unsafely
            raise UserError(f"{path} is damaged, or no file of weights; {UNREADABLE}") from None
        raise UserError(
            f"{path}: its pickle asks for {code[1]}, which weights do not need; it was not run and the file is "
            "refused. If you trust its maker, save its state dict with safetensors"
        ) from None
    except Exception as error:  # a parser over bytes that anybody may have written fails in any way
        raise UserError(f"{path} is damaged, or no file of weights ({one_line(error)}); {UNREADABLE}") from None
