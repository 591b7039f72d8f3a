"""What a file of weights is. Of tensors only names and shapes are read, so it takes no time and no memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hastezoo.errors import UserError
from hastezoo.zoo.importing import Opened, open_weights
from hastezoo.zoo.modelfile import is_ours, open_tensors, read_config, read_header

TIME = {
    False: "t = 0 is data, velocity noise - data (as everywhere here)",
    True: "t = 0 is noise, velocity data - noise (original SiT); turned round when it is loaded",
}
WHICH = {"ema": "EMA", "model": "raw, not EMA", "unknown": "not stated (a bare state dict)"}
ARGUMENTS = ("model", "resolution", "image_size", "encoder_depth", "enc_type", "proj_coeff", "attn_coeff", "path_type")


def describe_file(path: Path) -> dict[str, object]:
    """Facts about a file of weights, ours or foreign, in the order to print them.

    Raises:
        UserError: If it is no file that we can read, or not safe to.
    """
    facts: dict[str, object] = {"file": str(path), "bytes": f"{path.stat().st_size:,}" if path.is_file() else "-"}
    if is_ours(path):
        return facts | _ours(path)
    try:
        return facts | _foreign(open_weights(path))
    except UserError as error:
        if "say format=" not in str(error):
            raise
        undecided = open_weights(path, format="repa")  # the shapes are the same either way
        return (
            facts
            | _foreign(undecided)
            | {
                "format": "undecided between sit and repa or haste: say --format when importing",
                "time": "depends on the format",
            }
        )


def _ours(path: Path) -> dict[str, object]:
    metadata = read_header(path)
    try:
        config, architecture = read_config(metadata), metadata["architecture"]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: its metadata is broken ({error})") from None
    with open_tensors(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
        sizes = {name: math.prod(part.get_shape()) for name, part in slices.items()}
        dtypes = sorted({part.get_dtype() for part in slices.values()})
    return {
        "format": "hastezoo safetensors",
        "architecture": architecture,
        "config": _shown(config),
        "parameters": f"{sum(size for name, size in sizes.items() if name != 'pos_embed'):,}",
        "dtype": ", ".join(dtypes),
        "weights": WHICH.get(metadata.get("weights", "").strip('"'), "not stated"),
        "step": metadata.get("step", "not stated"),
        "time": TIME[bool(config.get("reversed_time"))],
        "converted from": metadata.get("origin", "").strip('"') or "nothing: written by a recipe",
    }


def _foreign(opened: Opened) -> dict[str, object]:
    converted = opened.converted
    projectors = sum(tensor.numel() for tensor in converted.leftovers.values())
    facts: dict[str, object] = {
        "container": opened.container,
        "format": converted.origin,
        "architecture": converted.architecture,
        "config": _shown(converted.config),
        "parameters": f"{sum(t.numel() for name, t in converted.state_dict.items() if name != 'pos_embed'):,}",
        "projectors": f"{projectors:,} parameters, kept apart" if projectors else "none",
        "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in converted.state_dict.values()})),
        "weights": WHICH[opened.which],
        "step": opened.step if opened.step is not None else "not stated",
        "time": TIME[bool(converted.config.get("reversed_time"))],
    }
    arguments = {key: opened.args[key] for key in ARGUMENTS if key in opened.args}
    if arguments:
        facts["arguments"] = _shown(arguments)
    for note in converted.notes:
        facts["note"] = note
    return facts


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
