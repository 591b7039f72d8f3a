"""Where a CLIP text encoder is: a folder of this machine, or a repository of the Hub; refused where it is none."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from hastezoo import hub
from hastezoo.errors import UserError

CLIP = "openai/clip-vit-large-patch14"  # the text encoder of REPA's and HASTE's models of text

CONFIG, WEIGHTS, TOKENIZER_CONFIG = "config.json", "model.safetensors", "tokenizer_config.json"
TOKENIZER, VOCABULARY, MERGES, SPECIAL = "tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json"
PICKLES = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")


def place_of(source: str | Path) -> str:
    """What a name stands for: a folder's full path, or owner/name of the Hub."""
    text = str(source)
    return str(Path(text).resolve()) if Path(text).is_dir() else text.removeprefix(hub.PREFIX)


def fetch_files(source: str | Path) -> tuple[Path, str]:
    """(the folder with the files, what to call it); fetched from the Hub if need be.

    Raises:
        UserError: If one is not to be had, or they are no CLIP's.
    """
    name = place_of(source)
    folder = Path(name)
    if folder.is_dir():
        _check_folder(folder)
        check_kind(folder, name)
        return folder, name
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"there is no folder {name}; a text encoder is a folder, or owner/name of the Hub such as {CLIP}"
        )
    return _from_hub(name), name


def _check_folder(folder: Path) -> None:
    """Refuse a folder in which something is missing."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    words = () if TOKENIZER in names else (VOCABULARY, MERGES)
    missing = [name for name in (CONFIG, WEIGHTS, TOKENIZER_CONFIG, *words) if name not in names]
    if not missing:
        return
    pickles = [name for name in PICKLES if name in names]
    unread = f" ({pickles[0]} is not read: only safetensors are)" if missing[0] == WEIGHTS and pickles else ""
    raise UserError(f"the folder {folder} is no text encoder of transformers: it has no {missing[0]}{unread}")


def _from_hub(name: str) -> Path:
    """The folder of the Hub's cache with the files, all of one commit."""
    place = hub.parse(hub.PREFIX + name)
    if place.file:
        raise UserError(f"{place} is a file; a text encoder is a whole repository: {place.repo}")
    folder = _fetched(place, CONFIG).parent
    check_kind(folder, name)  # before gigabytes come
    place = hub.Place(place.repo, folder.name)
    _fetched(place, TOKENIZER_CONFIG)
    for optional in (SPECIAL, TOKENIZER):
        with suppress(UserError):
            _fetched(place, optional)
    words = () if (folder / TOKENIZER).is_file() else (VOCABULARY, MERGES)
    for needed in (*words, WEIGHTS):
        _fetched(place, needed)
    return folder


def _fetched(place: hub.Place, file: str) -> Path:
    try:
        return hub.fetch(hub.Place(place.repo, place.revision, file))
    except UserError as error:
        raise UserError(f"the text encoder {error}; --text-encoder FOLDER takes one from this machine") from None


def check_kind(folder: Path, name: str) -> None:
    """Refuse what is no CLIP, by its config.

    Raises:
        UserError: If it is another network.
    """
    try:
        kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"the text encoder {name} has no readable {CONFIG}") from None
    if kind not in ("clip", "clip_text_model"):
        raise UserError(f"{name} is no CLIP: its {CONFIG} says {kind!r}")
