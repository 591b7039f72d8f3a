"""Whether a checkpoint's weights are what they should be: bytes, config, shapes, finite numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hastezoo.digests import sha256_of
from hastezoo.errors import UserError
from hastezoo.zoo import store
from hastezoo.zoo.card import Card
from hastezoo.zoo.convert import Converted, expected_shapes
from hastezoo.zoo.convert.converted import check_shapes
from hastezoo.zoo.importing import misfit
from hastezoo.zoo.modelfile import open_tensors, read_config, read_header
from hastezoo.zoo.weights import is_here, resolve


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    what: str
    good: bool
    detail: str


def verify(card: Card) -> list[Check]:
    """Every check on the weights of a checkpoint that are on this machine. Everything is read anew.

    Raises:
        UserError: If there are none here.
    """
    if card.weights is not None and card.weights_path is not None:
        path, digest = card.weights_path, card.weights.sha256
    else:
        entry = store.find(card.name)
        if entry is None and not is_here(card):
            raise UserError(f"{card.name} is not on this machine; `hastezoo pull {card.name}`, or import it")
        path, digest = (entry.path, entry.record.sha256) if entry else _in_the_hubs_cache(card)
    return verify_file(path, card, digest)


def _in_the_hubs_cache(card: Card) -> tuple[Path, str]:
    found = resolve(card, local=True)
    return found.path, found.sha256


def verify_file(path: Path, card: Card | None = None, digest: str | None = None) -> list[Check]:
    """The same of a file of ours.

    Args:
        path: The file.
        card: What it should be; None checks the file against itself alone.
        digest: The sha256 that it should have.

    Raises:
        UserError: If it cannot be read.
    """
    checks = []
    if digest is not None:
        found = sha256_of(path)
        checks.append(Check("sha256", found == digest, found if found == digest else f"{found}, recorded {digest}"))
    metadata = read_header(path)
    try:
        converted = Converted("hastezoo", metadata["architecture"], read_config(metadata), {})
    except (KeyError, ValueError, TypeError) as error:
        return [*checks, Check("config", False, f"the metadata is broken: {error}")]
    reason = misfit(card, converted) if card is not None else None
    checks.append(Check("config", reason is None, reason or f"{converted.architecture}, as the card says"))
    with open_tensors(path) as file:
        checks.append(_shapes(file, converted))
        checks.append(_finite(file))
    return checks


def _shapes(file: Any, converted: Converted) -> Check:
    import torch

    names = list(file.keys())
    state = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
    try:
        check_shapes(state, expected_shapes(converted.architecture, converted.config))
    except (UserError, TypeError, ValueError, KeyError) as error:
        return Check("shapes", False, str(error))
    return Check("shapes", True, f"{len(names)} tensors")


def _finite(file: Any) -> Check:
    """Tensor by tensor, so that memory holds one."""
    import torch

    count, bad = 0, []
    for name in file.keys():  # noqa: SIM118 - safe_open is no dict
        tensor = file.get_tensor(name)
        count += tensor.numel()
        if not bool(torch.isfinite(tensor).all()):
            bad.append(name)
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return Check("finite", False, f"NaN or infinity in {', '.join(bad[:3])}{more}")
    return Check("finite", True, f"{count:,} numbers")
