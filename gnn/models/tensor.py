"""The `tensor` family: message passing of Cartesian rank-2 tensors, for screening and for CPUs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gnn.graphs.batch import Batch
from gnn.models.aggregation import EdgeGeometry, ScalarAggregation
from gnn.models.blocks import neighbour_blocks
from gnn.models.config import ModelConfig
from gnn.models.degrees import DegreeLinear
from gnn.models.element_weights import ElementWeights
from gnn.models.harmonics import SphericalHarmonics
from gnn.models.invariants import Invariants
from gnn.models.matrices import PART_DEGREES
from gnn.models.matrix_products import MatrixProducts
from gnn.models.pairs import PairGrid, PairList, pair_sums
from gnn.models.radial import BesselBasis, RadialNetwork

LARGEST_GROUP = 4
"""Channels that share a radial function in a message."""


class TensorEmbedding(nn.Module):
    """X = W · products(A) with A = sum_j R(r_ij) Y(r_ij) h(z_j), and the atom's own element in the scalars."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n_elements, rank = len(config.elements), config.element_rank
        self.sent = ElementWeights(n_elements, rank, config.message_channels)
        self.own = ElementWeights(n_elements, rank, config.channels)
        self.bonds = ScalarAggregation(2, config.message_channels, config.channels, config.mean_neighbours)
        self.products = MatrixProducts(config)
        self.out = DegreeLinear(PART_DEGREES, config.channels, config.channels)

    def forward(self, radial: Tensor, edges: EdgeGeometry, elements: Tensor) -> Tensor:
        """Shapes: radial (E, F), elements (N,) -> (9, N, C)."""
        bonds = self.bonds(radial, self.sent().index_select(0, elements), edges)
        scalars, others = self.out(self.products(bonds, bonds, elements)).split([1, len(PART_DEGREES) - 1])
        return torch.cat([scalars + self.own().index_select(0, elements), others])


class TensorInteraction(nn.Module):
    """X' = X + W · products(Y, M) with Y = W X and M_i = 1/√n̄ · sum_j R(r_ij) Y_j, a group of channels having one R."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(config.mean_neighbours)
        self.sent = DegreeLinear(PART_DEGREES, config.channels, config.channels)
        self.products = MatrixProducts(config)
        self.out = DegreeLinear(PART_DEGREES, config.channels, config.channels)

    def forward(self, x: Tensor, radial: Tensor, pairs: PairGrid | PairList, elements: Tensor) -> Tensor:
        """Shapes: x (9, N, C), radial (E, groups), elements (N,) -> (9, N, C)."""
        sent = self.sent(x)
        message = pairs.sum(pairs.weights(radial * self.scale), sent)
        return x + self.out(self.products(sent, message, elements))


class TensorNetwork(nn.Module):
    """Bonds summed to tensors on every atom, then rounds of messages that depend on distances alone.

    After TensorNet (Simeon & De Fabritiis, arXiv:2306.06482): features X are 3 x 3 matrices, a channel each, split in
    scalar, antisymmetric and traceless symmetric parts; YM + MY keeps them true tensors. Different from it: the parts
    are stored as 1 + 3 + 5 components, products go to any order with weights by element as in `ace`, channels share
    radial functions in groups, and nothing is normalised.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        groups = config.channels // math.gcd(config.channels, LARGEST_GROUP)
        self.sizes = [config.message_channels] + [groups] * config.layers
        self.harmonics = SphericalHarmonics(2)
        basis = BesselBasis(config.cutoff, config.n_radial, config.envelope_power)
        self.radial = RadialNetwork(basis, config.radial_hidden, sum(self.sizes))
        self.embedding = TensorEmbedding(config)
        self.layers = nn.ModuleList(TensorInteraction(config) for _ in range(config.layers))
        self.invariants = nn.ModuleList(Invariants(config.channels) for _ in range(config.layers))

    def forward(self, batch: Batch, vectors: Tensor, elements: Tensor) -> list[Tensor]:
        """Invariants of every layer, (N, C) each; vectors (E, 3) Å, elements (N,) as indices of the config's."""
        distance = torch.linalg.vector_norm(vectors, dim=1)
        blocks = neighbour_blocks(batch.receivers, batch.numbers.shape[0])
        edges = EdgeGeometry(batch.senders, blocks, blocks.pad(self.harmonics(vectors / distance.unsqueeze(1))))
        pairs = pair_sums(batch)
        bonds, *messages = self.radial(distance).split(self.sizes, dim=1)
        x = self.embedding(bonds, edges, elements)
        found = []
        for layer, invariants, radial in zip(self.layers, self.invariants, messages, strict=True):
            x = layer(x, radial, pairs, elements)
            found.append(invariants(x))
        return found
