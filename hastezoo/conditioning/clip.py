"""CLIP's text encoder: prompt -> the last hidden states, which models of text take as their condition."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hastezoo.conditioning.clip_files import CLIP, WEIGHTS, fetch_files
from hastezoo.conditioning.prompts import clean, notes, shown
from hastezoo.digests import recorded_sha256
from hastezoo.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LENGTH = 77  # tokens, those for start and end among them
REMEMBERED = 256  # prompts, 118 KB each for CLIP ViT-L/14: 30 MB
AT_ONCE = {"cpu": 1}  # prompts in one call: more gain little there
AT_ONCE_ELSEWHERE = 32
LAST_WORDS = 5  # shown of what is still read


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
