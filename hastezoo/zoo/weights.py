"""From a card to a verified local file, and from a file to a model. Files are safetensors with the config inside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.errors import UserError
from hastezoo.files import atomic_write
from hastezoo.zoo.card import Card

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "hastezoo-1"


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve(card: Card) -> Path:
    """The card's file of weights, with its sha256 verified.

    Raises:
        UserError: If there is no file, or it is not the one the card describes.
    """
    path = card.weights_path
    if card.weights is None or path is None:
        recipe = f"; train it with `python -m hastezoo.recipes.{card.training.recipe}`" if card.training else ""
        raise UserError(f"{card.name} has no weights here ({card.status}){recipe}, or name a file with --weights")
    if not path.is_file():
        raise UserError(
            f"{card.name}: the weights {path} are missing; reinstall hastezoo, or name a file with --weights"
        )
    digest = sha256_of(path)
    if digest != card.weights.sha256:
        raise UserError(
            f"{card.name}: the weights {path} are corrupted (sha256 {digest[:12]}..., the card says "
            f"{card.weights.sha256[:12]}...); reinstall hastezoo"
        )
    return path


def save_model(path: Path, model: nn.Module, architecture: str, **facts: Any) -> None:
    """Write a model as safetensors with its architecture, config and further facts in the metadata, atomically.

    Args:
        path: Final name; it appears whole or not at all.
        model: A model with a `config` dataclass.
        architecture: Registered name.
        **facts: JSON values worth keeping, such as `step=10000`.
    """
    from dataclasses import asdict

    from safetensors.torch import save

    metadata = {"format": FORMAT, "architecture": architecture, "config": json.dumps(asdict(model.config))}  # type: ignore[call-overload]
    metadata |= {key: json.dumps(value) for key, value in facts.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    atomic_write(path, _sorted_header(save(tensors, metadata)))


def _sorted_header(data: bytes) -> bytes:
    """The same file with its metadata in alphabetical order: safetensors writes them in a random one.

    So the same tensors and facts give the same sha256.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        UserError: If the file is not one that `save_model` wrote.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} was not written by hastezoo (its metadata has no format {FORMAT!r})")
    return metadata


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
            model = create_model(metadata["architecture"], **_config(metadata))
        model.load_state_dict(state, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the weights do not fit their own config: {reason[:200]}") from None
    return model.eval().requires_grad_(False), metadata


def _config(metadata: dict[str, str]) -> dict[str, Any]:
    config = json.loads(metadata["config"])
    if isinstance(config.get("input_size"), list):  # JSON has no tuples
        config["input_size"] = tuple(config["input_size"])
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {error}") from None
