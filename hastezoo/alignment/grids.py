"""Tokens on a grid of patches, resized to another grid."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]


def resize_tokens(tokens: Tensor, grid: Grid, to: Grid) -> Tensor:
    """Bilinear resizing (align_corners False) of tokens from one grid of patches to another.

    Resizing the student's queries and keys equals resizing their logits along both axes of the attention map, because
    logits are bilinear in them; so where a teacher's grid is another one (CLIP's 14x14 against 16x16) no map is needed.
    HASTE's sources do not say whether logits or probabilities are resized; these are logits.

    Args:
        tokens: (..., N, d), N = rows * columns, row by row.
        grid: (rows, columns) now.
        to: (rows, columns) wanted.

    Returns:
        (..., N', d); `tokens` itself if the grids are equal.

    Raises:
        ValueError: If the tokens do not fill the grid.
    """
    *batch, count, width = tokens.shape
    if count != grid[0] * grid[1]:
        raise ValueError(f"{count} tokens do not fill a grid of {grid[0]} x {grid[1]}")
    if grid == to:
        return tokens
    maps = tokens.reshape(-1, *grid, width).movedim(-1, 1)
    resized = F.interpolate(maps, size=to, mode="bilinear", align_corners=False)
    return resized.flatten(2).mT.reshape(*batch, to[0] * to[1], width)
