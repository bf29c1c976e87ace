"""Weights that depend on the element, at low rank: 89 elements cost no more work than 4."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class ElementWeights(nn.Module):
    """w_z = sum_k a_{z,k} v_k / sqrt(rank): one weight vector an element, at low rank."""

    def __init__(self, n_elements: int, rank: int, size: int) -> None:
        super().__init__()
        self.rank = min(rank, n_elements)
        self.element = nn.Parameter(torch.randn(n_elements, self.rank))
        self.vector = nn.Parameter(torch.randn(self.rank, size))

    def forward(self) -> Tensor:
        """Shapes: -> (Z, n)."""
        return self.element @ (self.vector / math.sqrt(self.rank))
