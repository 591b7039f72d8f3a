"""From the student's width to the teacher's: REPA's MLP, or iREPA's convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hastezoo.alignment.config import ProjectorKind
from hastezoo.alignment.grids import Grid, resize_tokens


class MlpProjector(nn.Sequential):
    """Linear, SiLU, Linear, SiLU, Linear (REPA). Parameter names are those of `projectors.0` in released files.

    Args:
        width, teacher_width: Of the tokens that come in and go out.
        grid, to: The student's grid of patches and the teacher's; tokens are resized where they differ.
        hidden: Width between.
    """

    def __init__(self, width: int, teacher_width: int, grid: Grid, to: Grid, hidden: int = 2048) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, teacher_width),
        )
        self.grid, self.to_grid = grid, to

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) on the student's grid -> (B, N', teacher width) on the teacher's."""
        return super().forward(resize_tokens(tokens, self.grid, self.to_grid))

    def prepare(self, target: Tensor) -> Tensor:
        """The teacher's features (B, N', D) as they are."""
        return target


class ConvProjector(nn.Module):
    """A 3x3 convolution over the grid of patches, against spatially normalised targets (iREPA).

    Args:
        width, teacher_width, grid, to: As of the MLP.
        gamma: How much of the mean over tokens is taken away from the targets.
    """

    def __init__(self, width: int, teacher_width: int, grid: Grid, to: Grid, gamma: float = 0.6) -> None:
        super().__init__()
        self.grid, self.to_grid, self.gamma = grid, to, gamma
        self.conv = nn.Conv2d(width, teacher_width, 3, padding=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) on the student's grid -> (B, N', teacher width) on the teacher's."""
        resized = resize_tokens(tokens, self.grid, self.to_grid)
        return self.conv(resized.mT.unflatten(-1, self.to_grid)).flatten(2).mT

    def prepare(self, target: Tensor) -> Tensor:
        """The teacher's features (B, N', D), spatially normalised."""
        return spatially_normalised(target, self.gamma)


def spatially_normalised(features: Tensor, gamma: float = 0.6) -> Tensor:
    """(f - gamma mean) / (std + 1e-6), mean and standard deviation over tokens (iREPA).

    It takes from the features what all tokens of an image share, so that what is left tells places apart.

    Args:
        features: (B, N, D) with N of at least 2.

    Returns:
        (B, N, D), in float32 or float64.
    """
    with torch.autocast(features.device.type, enabled=False):
        exact = features if features.dtype == torch.float64 else features.float()
        centred = exact - gamma * exact.mean(1, keepdim=True)
        return centred / (exact.std(1, keepdim=True) + 1e-6)


Projector = MlpProjector | ConvProjector


def create_projector(
    kind: ProjectorKind, width: int, teacher_width: int, grid: Grid, to: Grid, hidden: int = 2048
) -> Projector:
    """A projector with random weights.

    Args:
        kind: `mlp` (REPA) or `conv` (iREPA).
        width, teacher_width: Of the student's and the teacher's tokens.
        grid, to: (rows, columns) of the student's tokens and of the teacher's.
        hidden: Width of the MLP's hidden layers.
    """
    if kind == "mlp":
        return MlpProjector(width, teacher_width, grid, to, hidden)
    return ConvProjector(width, teacher_width, grid, to)
