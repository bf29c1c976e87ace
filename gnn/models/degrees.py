"""Linear maps of the channels of equivariant features, one for each degree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gnn.models.constants import ExactConstants


class DegreeLinear(ExactConstants):
    """y[k] = gain / sqrt(n_in) · x[k] W[degree of k]: components of one degree share their weights."""

    degree: Tensor

    def __init__(self, degrees: Sequence[int], n_in: int, n_out: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max(degrees) + 1, n_in, n_out))
        self.scale = gain / math.sqrt(n_in)
        self.constant("degree", list(degrees))

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (components, N, n_in) -> (components, N, n_out)."""
        return torch.bmm(x, (self.weight * self.scale).index_select(0, self.degree))
