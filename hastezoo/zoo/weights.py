"""From what a user names to a verified file of weights on this machine.

The order: a file or a place on the Hub that is named > the package > the local store > the card's origins, best first.
Foreign files are converted into the store once.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hastezoo import hub
from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError
from hastezoo.zoo import store
from hastezoo.zoo.card import Card, Origin
from hastezoo.zoo.download import Progress, download

Say = Callable[[str], None]
"""Told what long work begins."""


@dataclass(frozen=True)
class Resolved:
    """A file of weights that was found.

    Attributes:
        path: Where it is.
        sha256: Its digest, verified wherever there is something to hold it against.
        source: Where it is from, in words.
        foreign: Whether it has to be converted when it is loaded.
    """

    path: Path
    sha256: str
    source: str
    foreign: bool = False


def resolve(
    card: Card,
    weights: str | Path | None = None,
    *,
    local: bool = False,
    say: Say = lambda text: None,
    progress: Progress = lambda done, total: None,
) -> Resolved:
    """The checkpoint's weights, fetched if need be.

    Args:
        card: The checkpoint.
        weights: A file, or `hub:owner/repo[@revision][:file]`, to use instead of what the card names.
        local: Look on this machine only.
        say: Told what is being downloaded or converted.
        progress: Told of the bytes of a direct download.

    Raises:
        UserError: If there are none to be had, with the commands that get them; or they are not what they should be.
    """
    if weights is not None:
        return named(weights)
    if card.weights is not None:
        return _packaged(card)
    found: store.Entry | Resolved | None = store.find(card.name)
    if found is None:
        found = _cached(card) if local else _obtain(card, say, progress)
    if found is None:
        raise UserError(how_to_get(card))
    return _stored(found) if isinstance(found, store.Entry) else found


def named(weights: str | Path) -> Resolved:
    """Weights that the user names: a file, or a place on the Hub.

    Raises:
        UserError: If there are none.
    """
    from hastezoo.zoo.modelfile import is_ours

    text = str(weights)
    if text.startswith(hub.PREFIX):
        place = hub.parse(text)
        path, source = hub.fetch(place), str(place)
    else:
        path = Path(weights)
        source = str(path)
        if path.is_dir():
            raise UserError(f"{path} is a folder; name the file of weights in it")
        if not path.is_file():
            hint = f"; did you mean hub:{text}?" if text.count("/") == 1 and not path.suffix else ""
            raise UserError(f"there is no file {path}{hint}")
    return Resolved(path, recorded_sha256(path), source, foreign=not is_ours(path))


def _packaged(card: Card) -> Resolved:
    path = card.weights_path
    assert card.weights is not None and path is not None
    if not path.is_file():
        raise UserError(
            f"{card.name}: the weights {path} are missing; reinstall hastezoo, or name a file with --weights"
        )
    digest = recorded_sha256(path)
    if digest != card.weights.sha256:
        raise UserError(
            f"{card.name}: the weights {path} are corrupted (sha256 {digest[:12]}..., the card says "
            f"{card.weights.sha256[:12]}...); reinstall hastezoo"
        )
    return Resolved(path, digest, "the package")


def _stored(entry: store.Entry) -> Resolved:
    digest = recorded_sha256(entry.path)
    name = entry.record.name
    if digest != entry.record.sha256:
        raise UserError(
            f"{name}: the stored weights {entry.path} have changed since they were written (sha256 {digest[:12]}..., "
            f"recorded {entry.record.sha256[:12]}...); `hastezoo cache remove {name}`, then get them again"
        )
    return Resolved(entry.path, digest, f"the store (from {entry.record.source})")


def _obtain(card: Card, say: Say, progress: Progress) -> store.Entry | Resolved | None:
    """Try the card's origins in turn; the first that works is used."""
    troubles = []
    cut_off = False
    with store.lock(card.name):
        entry = store.find(card.name)  # another process may have been quicker
        if entry is not None:
            return entry
        for origin in card.origins:
            if not origin.downloadable or (origin.repo and cut_off):
                continue
            try:
                return _from_origin(card, origin, say, progress)
            except UserError as error:
                cut_off = cut_off or isinstance(error, hub.Unreachable)
                troubles.append(str(error))
    if troubles:
        raise UserError(
            f"{card.name} could not be fetched: {'; '.join(troubles)}. With a file that you have: "
            f"`hastezoo import {card.name} {Path(card.origins[0].file).name}`"
        )
    return None


def _from_origin(card: Card, origin: Origin, say: Say, progress: Progress) -> store.Entry | Resolved:
    say(f"fetching {card.name} from {origin}")
    if origin.repo:
        path = hub.fetch(hub.Place(origin.repo, origin.revision, origin.file))
    else:
        assert origin.url is not None
        path = download(origin.url, store.downloads_of(card.name) / Path(origin.file).name, progress=progress)
    try:
        return _taken(card, origin, path, say, progress)
    except UserError:  # the file is of no use; the Hub's cache is shared with other programs and stays
        if origin.url:
            path.unlink(missing_ok=True)
        raise


def _cached(card: Card) -> Resolved | None:
    """Our own file in the Hub's cache, where it stays: it needs no conversion, so the store has no copy."""
    for origin in card.origins:
        if origin.repo and origin.format == "hastezoo":
            path = hub.cached(hub.Place(origin.repo, origin.revision, origin.file))
            if path is not None:
                return Resolved(path, _checked(origin, path), str(origin))
    return None


def _checked(origin: Origin, path: Path) -> str:
    """The digest of a fetched file, if it is the one on the card."""
    digest, size = recorded_sha256(path), path.stat().st_size
    if origin.sha256 is not None and digest != origin.sha256:
        raise UserError(f"{origin} has sha256 {digest[:12]}..., the card says {origin.sha256[:12]}...: not loaded")
    if origin.bytes is not None and size != origin.bytes:
        raise UserError(f"{origin} has {size:,} bytes, the card says {origin.bytes:,}: not loaded")
    return digest


def _taken(card: Card, origin: Origin, path: Path, say: Say, progress: Progress) -> store.Entry | Resolved:
    """The fetched file, checked, and converted if it is foreign."""
    from hastezoo.zoo.importing import misfit, open_for, store_weights

    digest = _checked(origin, path)
    if origin.format == "hastezoo":
        return Resolved(path, digest, str(origin))
    say(f"converting {path.name}, once")
    opened = open_for(card, path, format=origin.format)
    reason = misfit(card, opened.converted)
    if reason:
        raise UserError(f"{origin} holds other weights than {card.name} has: {reason}")
    entry = store_weights(card, opened, path, source=str(origin), progress=progress)
    if origin.url:
        path.unlink(missing_ok=True)
    return entry


def how_to_get(card: Card) -> str:
    """One line: the weights are not here, and the commands that get them."""
    ways = []
    fetchable = [origin for origin in card.origins if origin.downloadable]
    if fetchable:
        ways.append(f"`hastezoo pull {card.name}` (from {fetchable[0]})")
    for origin in card.origins:
        if not origin.downloadable:
            ways.append(f"get {origin}, then `hastezoo import {card.name} {origin.file}`")
    if recipe_exists(card):
        ways.append(f"train them: `python -m hastezoo.recipes.{card.recipe} --checkpoint {card.name}`")
    if not card.origins:
        ways.append("nobody hosts them that we know of; name a file of your own with --weights")
    return f"{card.name} has no weights here: " + "; or ".join(ways)


def recipe_exists(card: Card) -> bool:
    """Whether this version has the recipe that trains the checkpoint."""
    return bool(card.recipe) and importlib.util.find_spec(f"hastezoo.recipes.{card.recipe}") is not None


def is_here(card: Card) -> bool:
    """Whether the weights can be loaded without a network: from the package, the store or the Hub's cache."""
    places = [
        hub.Place(one.repo, one.revision, one.file) for one in card.origins if one.repo and one.format == "hastezoo"
    ]
    return card.weights is not None or card.name in store.entries() or any(map(hub.cached, places))
