"""An MMDiT that reads words by itself: its own vocabulary, and a small encoder that is trained with it.

Where no text encoder is at hand, or none is wanted for what a few hundred words say, the condition is a row of word
numbers. The encoder makes a context of them, and from there on it is an MMDiT like any other, with the same names of
parameters and the encoder's under `words.`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor, nn

from hastezoo.models.layers import Attention, Mlp
from hastezoo.models.mmdit import MMDiT, MMDiTConfig
from hastezoo.models.taps import Captured, Taps


@dataclass(frozen=True)
class WordMMDiTConfig(MMDiTConfig):
    """Everything that fixes the parameters of an MMDiT with words of its own, and what they mean.

    Attributes:
        context_width: Of the embedding of a word.
        context_length: Words that are read, exactly; shorter prompts are filled up with number 0.
        words: The vocabulary; the number of a word is its place, counted from 1. Number 0 is no word.
        word_depth, word_heads: Of the encoder.
    """

    context_width: int = 64
    context_length: int = 16
    words: tuple[str, ...] = ()
    word_depth: int = 1
    word_heads: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_impossible("word_depth", "word_heads")
        if self.context_width % self.word_heads:
            raise ValueError(f"context_width {self.context_width} is not a multiple of word_heads {self.word_heads}")
        if not self.words:
            raise ValueError("a model of words needs words; name its vocabulary")
        if len(set(self.words)) < len(self.words):
            raise ValueError("the vocabulary names a word twice")


class WordBlock(nn.Module):
    """Every word looks at the others; pre-norm, as in GPT-2 and CLIP, and in both directions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        mixed, _, _ = self.attn(self.norm1(x))
        x = x + mixed
        return x + self.mlp(self.norm2(x))


class WordEncoder(nn.Module):
    """Numbers of words (B, L) int64 -> context (B, L, D).

    What fills a prompt up is not masked: it is how the end of a prompt, and an empty one, look.

    Args:
        words: Size of the vocabulary.
        length: L.
        width, depth, heads: Of the encoder; D is the width.
    """

    def __init__(self, words: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(words + 1, width)
        self.positions = nn.Parameter(torch.empty(length, width))
        self.blocks = nn.ModuleList(WordBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        x = self.embedding_table(numbers) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class WordMMDiT(MMDiT):
    """The velocity network `model(x, t, numbers)`.

    Example:
        >>> config = WordMMDiTConfig(input_size=8, width=64, depth=2, heads=2, words=("red", "apple"))
        >>> model = WordMMDiT(config)
        >>> model(torch.randn(3, 4, 8, 8), torch.rand(3), torch.zeros(3, 16, dtype=torch.int64)).shape
        torch.Size([3, 4, 8, 8])
    """

    config: WordMMDiTConfig

    def __init__(self, config: WordMMDiTConfig) -> None:
        super().__init__(config)
        self.words = WordEncoder(
            len(config.words), config.context_length, config.context_width, config.word_depth, config.word_heads
        )

    def blank_condition(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The numbers (B, L) of empty prompts; they are whole numbers whatever the dtype of the network."""
        return torch.zeros(batch, self.config.context_length, dtype=torch.int64, device=device)

    @overload
    def forward(self, x: Tensor, t: Tensor, context: Tensor, taps: None = None) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, t: Tensor, context: Tensor, taps: Taps) -> tuple[Tensor, Captured]: ...
    def forward(
        self, x: Tensor, t: Tensor, context: Tensor, taps: Taps | None = None
    ) -> Tensor | tuple[Tensor, Captured]:
        """Predict the velocity.

        Args:
            x, t, taps: As of `MMDiT`.
            context: Numbers of words (B, L) int64, L the configured length.

        Raises:
            ValueError: If a shape or a tapped layer does not fit the model.
        """
        wanted = (len(x), self.config.context_length)
        if tuple(context.shape) != wanted or context.dtype != torch.int64:
            raise ValueError(
                f"the condition is numbers of words (B, L) = {wanted} in int64, not {tuple(context.shape)} in "
                f"{context.dtype}"
            )
        states = self.words(context)
        return super().forward(x, t, states) if taps is None else super().forward(x, t, states, taps)
