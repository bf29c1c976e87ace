"""The `ace` family: body-ordered equivariant message passing."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gnn.graphs.batch import Batch
from gnn.models.aggregation import EdgeGeometry, ScalarAggregation, TensorAggregation
from gnn.models.blocks import neighbour_blocks
from gnn.models.config import ModelConfig
from gnn.models.element_weights import ElementWeights
from gnn.models.harmonics import SphericalHarmonics
from gnn.models.linear import Linear
from gnn.models.product import ProductBasis
from gnn.models.radial import BesselBasis, RadialNetwork


class Interaction(nn.Module):
    """One layer: h' = W m(A(h)) + W_sc h, with A the density and m its products."""

    def __init__(self, config: ModelConfig, in_l_max: int, out_l_max: int) -> None:
        super().__init__()
        c, f, n_bar, l_max = config.channels, config.message_channels, config.mean_neighbours, config.edge_l_max
        self.up = nn.ModuleList(Linear(c, f) for _ in range(in_l_max + 1))
        self.scalar = ScalarAggregation(l_max, f, c, n_bar)
        self.tensor = nn.ModuleList(TensorAggregation(l_max, l2, f, c, n_bar) for l2 in range(1, in_l_max + 1))
        self.product = ProductBasis(l_max, out_l_max, config.correlation, c, config.elements, config.element_rank)
        self.mix = nn.ModuleList(Linear(c, c) for _ in range(out_l_max + 1))
        self.keep = nn.ModuleList(Linear(c, c) for _ in range(min(in_l_max, out_l_max) + 1))

    def forward(
        self, features: list[Tensor], radial: list[Tensor], edges: EdgeGeometry, elements: Tensor
    ) -> list[Tensor]:
        """Shapes: features, one tensor (2l+1, N, C) a degree -> the same for degrees 0..hidden_l_max."""
        sent = [up(h) for up, h in zip(self.up, features, strict=True)]
        density = self.scalar(radial[0], sent[0].squeeze(0), edges)
        for aggregate, weight, h in zip(self.tensor, radial[1:], sent[1:], strict=True):
            density = density + aggregate(weight, h, edges)
        messages = self.product(density, elements)
        mixed = [mix(m) for mix, m in zip(self.mix, messages, strict=True)]
        kept = [keep(h) for keep, h in zip(self.keep, features, strict=False)]
        return [m + k for m, k in zip(mixed, kept, strict=False)] + mixed[len(kept) :]


class AceNetwork(nn.Module):
    """Body-ordered equivariant message passing (formulae: Batatia et al., arXiv:2206.07697; Drautz 2019).

    One radial network serves all layers; layer 1 has scalar senders; the last layer forms invariants only.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        degrees = [0] + [config.hidden_l_max] * (config.layers - 1) + [0]
        self.cutoff = config.cutoff
        self.embedding = ElementWeights(config.elements, config.element_rank, config.channels)
        self.harmonics = SphericalHarmonics(config.edge_l_max)
        basis = BesselBasis(config.cutoff, config.n_radial, config.envelope_power)
        self.radial_parts = [degree + 1 for degree in degrees[:-1]]
        self.radial = RadialNetwork(basis, config.radial_hidden, config.message_channels * sum(self.radial_parts))
        self.layers = nn.ModuleList(Interaction(config, a, b) for a, b in pairwise(degrees))

    def forward(self, batch: Batch, vectors: Tensor, elements: Tensor) -> list[Tensor]:
        """Invariants of every layer, (N, C) each; vectors (E, 3) Å, elements (N,) as indices of the config's."""
        distance = torch.linalg.vector_norm(vectors, dim=1)
        blocks = neighbour_blocks(batch.receivers, batch.numbers.shape[0], batch.width)
        edges = EdgeGeometry(batch.senders, blocks, blocks.pad(self.harmonics(vectors / distance.unsqueeze(1))))
        radial = list(self.radial(distance).chunk(sum(self.radial_parts), dim=1))
        features = [self.embedding().index_select(0, elements).unsqueeze(0)]
        invariants = []
        for layer, n_parts in zip(self.layers, self.radial_parts, strict=True):
            features = layer(features, [radial.pop(0) for _ in range(n_parts)], edges, elements)
            invariants.append(features[0].squeeze(0))
        return invariants
