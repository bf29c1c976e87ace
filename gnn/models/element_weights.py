"""Weights that depend on the element, at low rank: 89 elements cost no more work than 4."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gnn.models.constants import ExactConstants
from gnn.structures.periodic_table import likeness


class ElementWeights(ExactConstants):
    """w_z = sum_k t_{z,k} v_k / sqrt(rank), t = S a: one weight vector an element, at low rank.

    S² is the elements' likeness (`gnn.structures.periodic_table`). Elements that are alike so begin alike, and what the
    atoms of one teach moves the others with it: few structures an element then say more (docs/decisions/0025).
    """

    mixing: Tensor

    def __init__(self, elements: Sequence[str], rank: int, size: int) -> None:
        super().__init__()
        self.rank = min(rank, len(elements))
        self.element = nn.Parameter(torch.randn(len(elements), self.rank))
        self.vector = nn.Parameter(torch.randn(self.rank, size))
        variances, axes = np.linalg.eigh(likeness(elements))
        self.constant("mixing", (axes * np.sqrt(variances)) @ axes.T)

    def forward(self) -> Tensor:
        """Shapes: -> (Z, n)."""
        return self.table() @ (self.vector / math.sqrt(self.rank))

    def table(self) -> Tensor:
        """What each element takes of every v_k, (Z, rank)."""
        return self.mixing.to(self.element.dtype) @ self.element

    def element_of(self, table: Tensor) -> Tensor:
        """The parameter `element` that gives this table, (Z, rank)."""
        return torch.linalg.solve(self.mixing.to(table.device), table.double()).to(table.dtype)
