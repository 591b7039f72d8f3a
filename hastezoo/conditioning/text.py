"""Prompt -> the states of a text encoder, which models of text take as their condition."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from hastezoo import hub
from hastezoo.conditioning.prompts import clean, notes, shown
from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CLIP = "openai/clip-vit-large-patch14"  # the text encoder of REPA's and HASTE's models of text
LENGTH = 77  # tokens, those for start and end among them

CONFIG, WEIGHTS, TOKENIZER_CONFIG = "config.json", "model.safetensors", "tokenizer_config.json"
TOKENIZER, VOCABULARY, MERGES, SPECIAL = "tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json"
PICKLES = ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")

REMEMBERED = 256  # prompts, 118 KB each for CLIP ViT-L/14: 30 MB
AT_ONCE = {"cpu": 1}  # prompts in one call: more gain little there
AT_ONCE_ELSEWHERE = 32
LAST_WORDS = 5  # shown of what is still read


class TextEncoder(Protocol):
    """What the pipeline, the data and the recipes need of a text encoder.

    Attributes:
        source, sha256, revision: Where its weights are from, their digest, and the Hub's commit.
        length, width: L and D of its states.
    """

    source: str
    sha256: str
    revision: str
    length: int
    width: int

    def states(self, prompts: Sequence[str], /) -> Tensor:
        """(B, L, D) float16, on the CPU; the caller's own.

        Raises:
            UserError: If a prompt cannot be drawn from.
        """
        ...

    def notes(self, prompt: str, /) -> list[str]:
        """What is to be said of a prompt, a line each."""
        ...


class ClipText:
    """CLIP's text encoder: the last hidden states after its final layer norm, of all tokens, padded ones too.

    Padding is not masked, as the models were trained: attention is causal, so it changes no state of the text.
    It computes in float16 on CUDA and in float32 elsewhere. The states of a prompt are computed once while it is among
    the last `REMEMBERED`, and in calls of one size, so that they round alike whatever else is asked for.

    Args:
        network: transformers' CLIPTextModel, on its device.
        tokenizer: Its fast tokenizer.
        length: Tokens that every prompt is padded or cut to.
        source, sha256, revision: Where the weights are from, their digest, and the Hub's commit.
    """

    def __init__(
        self, network: Any, tokenizer: Any, length: int = LENGTH, *, source: str, sha256: str, revision: str = ""
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.length, self.width = length, int(network.config.hidden_size)
        self.source, self.sha256, self.revision = source, sha256, revision
        self._remembered: OrderedDict[str, Tensor] = OrderedDict()

    @classmethod
    def from_pretrained(
        cls, source: str | Path = CLIP, *, device: torch.device | str = "cpu", length: int = LENGTH
    ) -> Self:
        """Load one from a local folder, or from a repository `owner/name` of the Hub: a whole CLIP or its text half.

        Raises:
            UserError: If it is not to be had, is no CLIP, or reads fewer than `length` tokens.
        """
        import torch

        folder, name = fetch_files(source)
        network, tokenizer = _load(folder, name)
        most = int(network.config.max_position_embeddings)
        if length > most:
            raise UserError(f"the text encoder {name} reads {most} tokens, fewer than the {length} asked for")
        if len(tokenizer) > network.config.vocab_size:
            raise UserError(
                f"the text encoder {name} has a tokenizer of {len(tokenizer):,} tokens and weights for "
                f"{network.config.vocab_size:,}"
            )
        # On the CPU float16 is slower, and less exact for nothing.
        dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
        return cls(
            network.to(device=device, dtype=dtype),
            tokenizer,
            length,
            source=name,
            sha256=recorded_sha256(folder / WEIGHTS),
            revision=folder.name if folder.parent.name == "snapshots" else "",
        )

    def states(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, D) float16, on the CPU.

        Raises:
            UserError: If a prompt cannot be drawn from.
        """
        import torch

        texts = [clean(prompt) for prompt in prompts]
        known = {text: self._remembered[text] for text in texts if text in self._remembered}
        known |= self._computed([text for text in dict.fromkeys(texts) if text not in known])
        self._remember({text: known[text] for text in texts})
        found = torch.empty(len(texts), self.length, self.width, dtype=torch.float16)
        for place, text in zip(found, texts, strict=True):
            place.copy_(known[text])
        return found

    def notes(self, prompt: str) -> list[str]:
        """What is to be said of a prompt: in general, and where it is longer than what is read."""
        text = clean(prompt)
        return notes(text) + self._truncation(text)

    def _computed(self, texts: list[str]) -> dict[str, Tensor]:
        """The states (L, D) of different prompts, each in memory of its own."""
        size = AT_ONCE.get(self.network.device.type, AT_ONCE_ELSEWHERE)
        found: dict[str, Tensor] = {}
        for first in range(0, len(texts), size):
            part = texts[first : first + size]
            filled = part + part[:1] * (size - len(part))
            ids = self.tokenizer(
                filled, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
            )["input_ids"]
            states = self.network(input_ids=ids.to(self.network.device)).last_hidden_state
            found |= {text: one.half().cpu() for text, one in zip(part, states, strict=False)}
        return found

    def _remember(self, known: dict[str, Tensor]) -> None:
        """Keep the states of the prompts asked for last, and forget those asked for longest ago."""
        for text, states in known.items():
            self._remembered[text] = states
            self._remembered.move_to_end(text)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    def _truncation(self, text: str) -> list[str]:
        tokens = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        count, read = len(tokens["input_ids"]) - 2, self.length - 2
        if count <= read:
            return []
        end = tokens["offset_mapping"][read][1]  # of the last token that is read; the 0th is the start
        words = " ".join(text[:end].split(" ")[-LAST_WORDS:])[-60:]
        return [f"the prompt has {count:,} tokens and {read} are read: up to {shown(words)}"]


class StoredText:
    """The states of prompts that are known already, such as the captions of a prepared data set.

    Args:
        known: Cleaned prompt -> states (L, D); it may read them when they are asked for.
        length, width: L and D.
        source, sha256, revision: The encoder that made them.
    """

    def __init__(
        self,
        known: Mapping[str, Tensor],
        *,
        length: int,
        width: int,
        source: str,
        sha256: str,
        revision: str = "",
    ) -> None:
        self.known = known
        self.length, self.width = length, width
        self.source, self.sha256, self.revision = source, sha256, revision

    def states(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, D) float16, on the CPU.

        Raises:
            UserError: If the states of a prompt are not known.
        """
        import torch

        found = torch.empty(len(prompts), self.length, self.width, dtype=torch.float16)
        for place, prompt in zip(found, prompts, strict=True):
            place.copy_(self._one(clean(prompt)))
        return found

    def notes(self, prompt: str) -> list[str]:
        """What is to be said of a prompt, whatever encodes it."""
        return notes(clean(prompt))

    def _one(self, prompt: str) -> Tensor:
        try:
            return self.known[prompt]
        except KeyError:
            raise UserError(
                f"the states of the prompt {shown(prompt)} are not among those stored; the text encoder "
                f"{self.source} would have to compute them"
            ) from None


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
        _check_kind(folder, name)
        return folder, name
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"there is no folder {name}; a text encoder is a folder, or owner/name of the Hub such as {CLIP}"
        )
    return _from_hub(name), name


def create_text_encoder(
    kind: str, *, source: str | Path = CLIP, length: int = LENGTH, device: torch.device | str = "cpu"
) -> TextEncoder:
    """The text encoder a card names: `clip` from `source`.

    Raises:
        ValueError: If the kind is unknown.
        UserError: If it is not to be had.
    """
    if kind == "clip":
        return ClipText.from_pretrained(source, length=length, device=device)
    raise ValueError(f"unknown text encoder {kind!r}: one of clip")


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
    _check_kind(folder, name)  # before gigabytes come
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


def _check_kind(folder: Path, name: str) -> None:
    try:
        kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"the text encoder {name} has no readable {CONFIG}") from None
    if kind not in ("clip", "clip_text_model"):
        raise UserError(f"{name} is no CLIP: its {CONFIG} says {kind!r}")


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    """(network, tokenizer) from files on this machine."""
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        with _quiet():
            loaded: Any = CLIPTextModel.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # broken files bring out errors of three libraries, some of them bare Exceptions
        raise UserError(f"the text encoder {name} cannot be loaded: {' '.join(str(error).split())[:200]}") from None
    network, about = loaded
    absent = sorted(about["missing_keys"])
    if absent:  # they were drawn at random instead
        raise UserError(f"the text encoder {name} has no weights {absent[0]} ({len(absent)} are missing)")
    return network, tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar, and its report that the image half of a CLIP is not used."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
