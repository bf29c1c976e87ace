"""Linear maps whose weights are of order one, so that one learning rate suits all of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SILU_GAIN = 1.6791767
"""1 / sqrt(E[silu(x)²]) for x ~ N(0, 1), to 0.2 % (1.67653): restores unit variance after a SiLU."""


class Linear(nn.Module):
    """y = gain · x W / sqrt(n_in) without bias; W ~ N(0, 1), so the variance of x is kept."""

    def __init__(self, n_in: int, n_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
        self.scale = gain / math.sqrt(n_in)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (..., n_in) -> (..., n_out)."""
        return x @ (self.weight * self.scale)
