"""Rotation-invariant numbers from the components of tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnn.models.linear import Linear
from gnn.models.matrices import PART_DEGREES


class Invariants(nn.Module):
    """A linear mix of the scalars and the squared lengths of the vector and traceless symmetric parts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.counts = [PART_DEGREES.count(degree) for degree in range(3)]
        self.mix = Linear(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (9, N, C) -> (N, C)."""
        scalar, vector, tensor = x.split(self.counts)
        lengths = [part.square().mean(0) for part in (vector, tensor)]
        out: Tensor = self.mix(torch.cat([scalar.squeeze(0), *lengths], dim=1))
        return out
