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
UNKNOWN = {
    "format": "undecided between sit (t = 0 is noise) and repa or haste (t = 0 is data): say --format when importing",
    "num_heads": "not readable from the file",
    "input_size": "not readable from the file",
}
ARGUMENTS = ("model", "resolution", "image_size", "encoder_depth", "enc_type", "proj_coeff", "attn_coeff", "path_type")


def describe_file(path: Path) -> dict[str, object]:
    """Facts about a file of weights, ours or foreign, in the order to print them.

    Raises:
        UserError: If it is no file that we can read, or not safe to.
    """
    facts: dict[str, object] = {"file": str(path), "bytes": f"{path.stat().st_size:,}" if path.is_file() else "-"}
    if is_ours(path):
        return facts | _ours(path)
    opened = open_weights(path, fallback={"format": "repa", "num_heads": 1, "input_size": 32})
    return facts | _foreign(opened) | {key: UNKNOWN[key] for key in opened.converted.assumed}


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
    behind = {"num_heads": "heads", "input_size": "input_size", "format": "reversed_time"}
    hidden = {behind[one] for one in converted.assumed}
    projectors = sum(tensor.numel() for tensor in converted.leftovers.values())
    facts: dict[str, object] = {
        "container": opened.container,
        "format": converted.origin,
        "architecture": converted.architecture,
        "config": _shown({key: value for key, value in converted.config.items() if key not in hidden}),
        "parameters": f"{sum(t.numel() for name, t in converted.state_dict.items() if name != 'pos_embed'):,}",
        "projectors": f"{projectors:,} parameters, kept apart" if projectors else "none",
        "dtype": ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in converted.state_dict.values()})),
        "weights": WHICH[opened.which],
        "step": opened.step if opened.step is not None else "not stated",
        "time": "depends on the format"
        if "format" in converted.assumed
        else TIME[bool(converted.config.get("reversed_time"))],
    }
    arguments = {key: opened.args[key] for key in ARGUMENTS if key in opened.args}
    if arguments:
        facts["arguments"] = _shown(arguments)
    if converted.notes:
        facts["notes"] = "; ".join(converted.notes)
    return facts


def _shown(values: dict[str, Any]) -> str:
    """Values by name; of a vocabulary, how many words it has."""
    counted = {key: f"{len(value):,}" if key == "words" else value for key, value in values.items()}
    return ", ".join(f"{key} {value}" for key, value in counted.items())
