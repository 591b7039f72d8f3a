"""What alignment may look at inside a model: hidden tokens, queries and keys of chosen blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Taps:
    """Which inner values a forward pass returns beside the velocity.

    Attributes:
        feature_layer: Tokens after that many blocks are returned (8 = after the 8th); None for none.
        attention_layers: 0-based indices of the blocks whose queries and keys are returned.
    """

    feature_layer: int | None = None
    attention_layers: tuple[int, ...] = ()

    def check(self, depth: int) -> None:
        """Raise ValueError where a layer does not exist in a model of `depth` blocks."""
        if self.feature_layer is not None and not 1 <= self.feature_layer <= depth:
            raise ValueError(f"feature_layer {self.feature_layer} is not in 1..{depth}, the number of blocks")
        outside = [layer for layer in self.attention_layers if not 0 <= layer < depth]
        if outside:
            raise ValueError(f"attention_layers {outside} are not in 0..{depth - 1}, the indices of the blocks")


@dataclass
class Captured:
    """The values that `Taps` asked for.

    Attributes:
        features: (B, N, D) tokens, or None.
        queries: block index -> (B, heads, N, d), after QK norm where the model has it.
        keys: the same for the keys.
    """

    features: Tensor | None = None
    queries: dict[int, Tensor] = field(default_factory=dict)
    keys: dict[int, Tensor] = field(default_factory=dict)

    def take(self, taps: Taps, block: int, tokens: Tensor, queries: Tensor, keys: Tensor) -> None:
        """Keep what the taps ask for of a block: the tokens (B, N, D) after it, and its queries and keys.

        Args:
            taps: What is wanted.
            block: Its 0-based index.
            tokens, queries, keys: What it put out, and what it attended with.
        """
        if block in taps.attention_layers:
            self.queries[block], self.keys[block] = queries, keys
        if block + 1 == taps.feature_layer:
            self.features = tokens
