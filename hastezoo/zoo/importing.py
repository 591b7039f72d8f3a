"""A foreign file -> verified weights of a checkpoint in the local store."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hastezoo.digests import recorded_sha256, sha256_of
from hastezoo.errors import UserError
from hastezoo.zoo import store
from hastezoo.zoo.card import Card
from hastezoo.zoo.convert import Converted, convert, expected_shapes
from hastezoo.zoo.convert.containers import read_checkpoint
from hastezoo.zoo.convert.converted import check_shapes
from hastezoo.zoo.modelfile import (
    Progress,
    is_ours,
    open_tensors,
    read_config,
    read_header,
    write_tensors,
    write_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

FREE = {"context_length", "adaln_zero"}  # a usual length and how training began: weights fit whatever they are


@dataclass
class Opened:
    """A file of weights, foreign or ours, with what it says of itself.

    Attributes:
        converted: Its weights in our names.
        which: `ema`, `model` or `unknown`.
        step: Training step, if stated.
        container: What it was wrapped in.
        args: Training arguments, if any.
        origin: The format that somebody released the weights in; None for weights that a recipe wrote.
    """

    converted: Converted
    which: str
    step: int | None
    container: str
    args: dict[str, Any] = field(default_factory=dict)
    origin: str | None = None


def open_weights(path: Path, *, ema: bool | None = None, format: str | None = None, **hints: Any) -> Opened:
    """Open any file of weights that we can read; tensors stay on disk until they are used.

    Args:
        path: A torch pickle, foreign safetensors, or a file of ours.
        ema: False for a container's raw weights.
        format: What it is, where that cannot be seen.
        **hints: Further hints of `convert`.

    Raises:
        UserError: If it cannot be read, is not safe, or of no known format.
    """
    if is_ours(path):
        return _open_ours(path)
    checkpoint = read_checkpoint(path)
    try:
        state, which = checkpoint.select(ema)
        converted = convert(state, {"format": format, "args": checkpoint.args, **hints})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Opened(converted, which, checkpoint.step, checkpoint.container, checkpoint.args, converted.origin)


def _open_ours(path: Path) -> Opened:
    metadata = read_header(path)
    try:
        config, architecture = read_config(metadata), metadata["architecture"]
        which, step = _plain(metadata.get("weights")), metadata.get("step")
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: its metadata is broken ({error})") from None
    with open_tensors(path) as file:
        state: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        check_shapes(state, expected_shapes(architecture, config))
    except (UserError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: the weights do not fit their own config: {error}") from None
    converted = Converted("hastezoo", architecture, config, state)
    return Opened(
        converted,
        which or "unknown",
        int(step) if step and step.isdecimal() else None,
        "hastezoo safetensors",
        origin=_plain(metadata.get("origin")),
    )


def _plain(text: str | None) -> str | None:
    return text.strip('"') if text else None


def misfit(card: Card, converted: Converted) -> str | None:
    """In which values the weights differ from what the card describes; None if in none."""
    found = converted.config
    wanted = card_config(card)
    if converted.architecture != card.architecture:
        return f"they are a {converted.architecture}, {card.name} is a {card.architecture}"
    if not wanted:
        return None
    differ = [key for key in wanted if key in found and key not in FREE and _same(found[key]) != _same(wanted[key])]
    if not differ:
        return None
    shown = ", ".join(f"{key} {found[key]} (the card says {wanted[key]})" for key in differ[:4])
    return f"they have {shown}"


def card_config(card: Card) -> dict[str, Any]:
    """Every value of the card's configuration; what it states where this version has no module for it.

    Raises:
        UserError: If the card's values make no model.
    """
    from hastezoo.models.registry import ARCHITECTURES, config_of

    if card.architecture not in ARCHITECTURES:
        return dict(card.config)
    try:
        return asdict(config_of(card.architecture, **card.config))
    except (ValueError, TypeError) as error:
        raise UserError(f"the config of {card.name}'s card makes no model: {error}") from None


def _same(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def import_file(
    card: Card,
    path: Path,
    *,
    ema: bool | None = None,
    dtype: str | None = None,
    format: str | None = None,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> store.Entry:
    """Convert a file into the store, as the weights of a checkpoint.

    Memory holds one tensor at a time: the source is memory-mapped, the result streamed.

    Args:
        card: The checkpoint it is of.
        path: The file.
        ema: False to take a container's raw weights.
        dtype: Convert to float32, bfloat16 or float16; None keeps the file's.
        format: Of the file, where it cannot be seen; by default what the card's origins say.
        force: Replace what is stored.
        progress: Called with the bytes written and the bytes there will be.

    Raises:
        UserError: If the file cannot be read or does not fit the card, or weights are stored already.
    """
    if card.status == "embedded":
        raise UserError(f"{card.name} ships with the package; use --weights {path} to sample with a file of your own")
    opened = open_for(card, path, ema, format)
    reason = misfit(card, opened.converted)
    if reason:
        raise UserError(f"{path} holds other weights than {card.name} has: {reason}")
    stated = opened.args.get("path_type")
    if isinstance(stated, str) and stated.lower() != card.path:
        raise UserError(f"{path} was trained on the {stated} path, {card.name} is on the {card.path} path")
    with store.lock(card.name):
        present = store.find(card.name) if not force else None
        if present is not None:
            raise UserError(
                f"{card.name} is stored already (from {present.record.source}); --force replaces it, or "
                f"`hastezoo cache remove {card.name}`"
            )
        return store_weights(card, opened, path, dtype=dtype, progress=progress)


def open_for(card: Card, path: Path, ema: bool | None = None, format: str | None = None) -> Opened:
    """Open a file with the card's word for what cannot be seen, such as heads, or which way time runs.

    Raises:
        UserError: As `open_weights`.
    """
    config = card_config(card)
    family = {"repa": "repa", "haste": "haste"}.get(card.method, "sit" if config.get("reversed_time") else "repa")
    fallback = {"format": family, "num_heads": config.get("heads"), "input_size": config.get("input_size")}
    return open_weights(path, ema=ema, format=format, fallback=fallback)


def store_weights(
    card: Card,
    opened: Opened,
    path: Path,
    *,
    dtype: str | None = None,
    source: str | None = None,
    progress: Progress = lambda done, total: None,
) -> store.Entry:
    """Write opened weights into the store; the caller holds its lock. `source` is their origin, if not the path."""
    from hastezoo.devices import find_dtype

    kind = find_dtype(dtype) if dtype else None
    converted = opened.converted
    notes = converted.notes + _doubts(card, opened)
    digest = recorded_sha256(path)
    with store.making(card.name) as folder:
        facts = {"weights": opened.which, "origin": opened.origin, "step": opened.step, "source_sha256": digest}
        write_weights(
            folder / store.MODEL,
            converted.state_dict,
            converted.architecture,
            converted.config,
            dtype=kind,
            progress=progress,
            **{key: value for key, value in facts.items() if value is not None},
        )
        if converted.leftovers:
            write_tensors(folder / store.PROJECTORS, converted.leftovers, {"of": card.name}, kind)
        model = folder / store.MODEL
        record = store.Record(
            name=card.name,
            source=source or str(path.resolve()),
            source_sha256=digest,
            format=converted.origin,
            which=opened.which,
            step=opened.step,
            dtype=dtype or _dtypes(converted.state_dict),
            sha256=sha256_of(model),
            bytes=model.stat().st_size,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            notes=notes,
        )
        store.write_record(folder, record)
    entry = store.find(card.name)
    assert entry is not None
    return entry


def _doubts(card: Card, opened: Opened) -> list[str]:
    """What the file's own arguments say against the card, without being proof."""
    notes = []
    if card.method == "haste" and "enc_type" in opened.args and "attn_coeff" not in opened.args:
        notes.append("its arguments have no attn_coeff, as HASTE's have: it may be a REPA checkpoint")
    if card.method != "haste" and "attn_coeff" in opened.args:
        notes.append("its arguments have an attn_coeff: it may be a HASTE checkpoint")
    if card.steps and opened.step and card.origins and opened.step != card.steps:
        notes.append(f"the file is of step {opened.step:,}, the figures on the card are of {card.steps:,}")
    if opened.which == "unknown":
        notes.append("a bare state dict: whether it is the EMA is not stated")
    return notes


def _dtypes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}))
