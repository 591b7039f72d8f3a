"""What the configurations of all families derive from their sizes, and which sizes none of them can have."""

from __future__ import annotations


class Sizes:
    """The part that configurations share; the fields are the configuration's own."""

    input_size: int | tuple[int, int]
    patch_size: int
    width: int
    heads: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        if isinstance(self.input_size, int):
            return self.input_size, self.input_size
        height, width = self.input_size
        return height, width

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        height, width = self.size
        return height // self.patch_size, width // self.patch_size

    @property
    def tokens(self) -> int:
        """How many tokens a block sees of one sample."""
        rows, columns = self.grid
        return rows * columns

    def refuse_impossible(self, *counts: str) -> None:
        """Raise ValueError where a named field is below 1, patches do not fill the input or heads not the width."""
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if any(side < 1 or side % self.patch_size for side in self.size):
            raise ValueError(f"input_size {self.input_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
