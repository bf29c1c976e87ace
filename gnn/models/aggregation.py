"""The one-particle basis: neighbours summed into a density of spherical components on every atom."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gnn.models.blocks import NeighbourBlocks
from gnn.models.constants import ExactConstants
from gnn.models.coupling import geometry_matrix, message_paths

DENSITY_GAIN = 0.25
"""Spread of the density at the start: small, so that its cubes do not outgrow it (3BPA trains best with it)."""


@dataclass(frozen=True)
class EdgeGeometry:
    """What every layer needs of the edges: senders (E,), blocks, and harmonics in blocks (N, K, (l_max+1)²)."""

    senders: Tensor
    blocks: NeighbourBlocks
    harmonics: Tensor


class ScalarAggregation(ExactConstants):
    """A[lm, i, c] = 1/√n̄ · sum_f W_l[f, c] sum_j Y_lm(r_ij) R_f(r_ij) h_jf for scalar senders: no coupling needed."""

    degree: Tensor

    def __init__(self, l_max: int, n_in: int, n_out: int, mean_neighbours: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_in, n_out))
        self.scale = DENSITY_GAIN / math.sqrt(n_in * mean_neighbours)
        degrees = [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]
        self.constant("degree", degrees)

    def forward(self, radial: Tensor, features: Tensor, edges: EdgeGeometry) -> Tensor:
        """Shapes: radial (E, F), sender features (N, F) -> ((l_max+1)², N, C)."""
        message = edges.blocks.pad(radial * features.index_select(0, edges.senders))
        density = torch.bmm(edges.harmonics.transpose(1, 2), message)
        weight = (self.weight * self.scale).index_select(0, self.degree)
        return torch.bmm(density.transpose(0, 1), weight)


class TensorAggregation(ExactConstants):
    """The same for senders of degree l2 > 0: the geometry is contracted first, free of channels.

    G[(path, m3), m2] = sum_m1 C[m1, m2, m3] Y_m1, then A = sum_j sum_m2 G · (R h_j,m2), mixed over paths and channels.
    """

    geometry: Tensor

    def __init__(self, l_max: int, sender_l: int, n_in: int, n_out: int, mean_neighbours: float) -> None:
        super().__init__()
        paths = message_paths(l_max, sender_l)
        counts = [sum(path.out == degree for path in paths) for degree in range(l_max + 1)]
        self.sender_l, self.rows = sender_l, [(2 * degree + 1) * count for degree, count in enumerate(counts)]
        self.weights = nn.ParameterList(torch.randn(count * n_in, n_out) for count in counts)
        self.scales = [DENSITY_GAIN / math.sqrt(max(1, count) * n_in * mean_neighbours) for count in counts]
        self.constant("geometry", geometry_matrix(l_max, sender_l))

    def forward(self, radial: Tensor, features: Tensor, edges: EdgeGeometry) -> Tensor:
        """Shapes: radial (E, F), sender features (2·l2 + 1, N, F) -> ((l_max+1)², N, C)."""
        n_atoms, width = edges.blocks.n_atoms, edges.blocks.width * (2 * self.sender_l + 1)
        sent = features.transpose(0, 1).index_select(0, edges.senders)
        message = edges.blocks.pad((radial.unsqueeze(1) * sent).flatten(1)).view(n_atoms, width, -1)
        geometry = (edges.harmonics @ self.geometry.to(radial.dtype)).view(n_atoms, width, -1)
        density = torch.bmm(geometry.transpose(1, 2), message)
        return torch.cat([self._mixed(degree, part) for degree, part in enumerate(density.split(self.rows, dim=1))])

    def _mixed(self, degree: int, density: Tensor) -> Tensor:
        """One degree: (N, (2l+1)·paths, F) -> (2l+1, N, C)."""
        size = 2 * degree + 1
        weight = self.weights[degree] * self.scales[degree]
        by_component = density.reshape(density.shape[0], size, -1).transpose(0, 1)
        return torch.bmm(by_component, weight.expand(size, -1, -1))
