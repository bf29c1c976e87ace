"""The `tensor` family: message passing of Cartesian rank-2 tensors, for screening and for CPUs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gnn.graphs.batch import Batch
from gnn.models.aggregation import EdgeGeometry, ScalarAggregation
from gnn.models.blocks import neighbour_blocks
from gnn.models.config import TENSOR_DEGREE, ModelConfig
from gnn.models.degrees import DegreeLinear
from gnn.models.element_weights import ElementWeights
from gnn.models.harmonics import SphericalHarmonics
from gnn.models.invariants import Invariants
from gnn.models.linear import Linear
from gnn.models.matrices import N_PARTS, PART_DEGREES
from gnn.models.matrix_products import MatrixProducts
from gnn.models.pairs import PairGrid, PairList, pair_sums
from gnn.models.radial import BesselBasis, RadialNetwork

LARGEST_GROUP = 4
"""Channels that share a radial function in a message."""


class TensorEmbedding(nn.Module):
    """X = W · products(A) with A = sum_j R(r_ij) Y(r_ij) h(z_j), scalars with the atom's own element and lengths.

    On sites of cubic symmetry a matrix holds nothing but its scalar: A's parts of degree 3 and 4, the first that tell a
    tetrahedron and a cube from a sphere, enter by their squared lengths.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        elements, rank = config.elements, config.element_rank
        self.sent = ElementWeights(elements, rank, config.message_channels)
        self.own = ElementWeights(elements, rank, config.channels)
        self.bonds = ScalarAggregation(
            config.edge_l_max, config.message_channels, config.channels, config.mean_neighbours
        )
        higher = range(TENSOR_DEGREE + 1, config.edge_l_max + 1)
        self.sizes = [N_PARTS, *(2 * degree + 1 for degree in higher)]
        self.lengths = Linear(len(higher) * config.channels, config.channels) if higher else None
        self.products = MatrixProducts(config)
        self.out = DegreeLinear(PART_DEGREES, config.channels, config.channels)

    def forward(self, radial: Tensor, edges: EdgeGeometry, elements: Tensor) -> Tensor:
        """Shapes: radial (E, F), elements (N,) -> (9, N, C)."""
        bonds, *higher = self.bonds(radial, self.sent().index_select(0, elements), edges).split(self.sizes)
        scalars, others = self.out(self.products(bonds, bonds, elements)).split([1, len(PART_DEGREES) - 1])
        scalars = scalars + self.own().index_select(0, elements)
        if self.lengths is not None:
            scalars = scalars + self.lengths(torch.cat([part.square().mean(0) for part in higher], dim=1))
        return torch.cat([scalars, others])


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
        self.harmonics = SphericalHarmonics(config.edge_l_max)
        basis = BesselBasis(config.cutoff, config.n_radial, config.envelope_power)
        self.radial = RadialNetwork(basis, config.radial_hidden, sum(self.sizes))
        self.embedding = TensorEmbedding(config)
        self.layers = nn.ModuleList(TensorInteraction(config) for _ in range(config.layers))
        self.invariants = nn.ModuleList(Invariants(config.channels) for _ in range(config.layers))

    def forward(self, batch: Batch, vectors: Tensor, elements: Tensor) -> list[Tensor]:
        """Invariants of every layer, (N, C) each; vectors (E, 3) Å, elements (N,) as indices of the config's."""
        distance = torch.linalg.vector_norm(vectors, dim=1)
        blocks = neighbour_blocks(batch.receivers, batch.numbers.shape[0], batch.width)
        edges = EdgeGeometry(batch.senders, blocks, blocks.pad(self.harmonics(vectors / distance.unsqueeze(1))))
        pairs = pair_sums(batch)
        bonds, *messages = self.radial(distance).split(self.sizes, dim=1)
        x = self.embedding(bonds, edges, elements)
        found = []
        for layer, invariants, radial in zip(self.layers, self.invariants, messages, strict=True):
            x = layer(x, radial, pairs, elements)
            found.append(invariants(x))
        return found
