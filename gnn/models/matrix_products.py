"""Products of matrices to order 3: the pair, triplet and quadruplet operators of the `tensor` family."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gnn.models.config import ModelConfig
from gnn.models.constants import ExactConstants
from gnn.models.element_weights import ElementWeights
from gnn.models.matrices import PRODUCT_SCALE, MatrixBasis, anticommutator


class MatrixProducts(ExactConstants):
    """w1 B + w2 {A, B} + w3 {{A, B}, B} to the order of `correlation`; weights by element and channel.

    The curly brackets are XY + YX, which is linear in X, so the sum is formed as w1 B + {w2 A + {w3 A, B}, B}.
    """

    scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.order, channels = config.correlation, config.channels
        self.basis = MatrixBasis()
        self.weights = ElementWeights(config.elements, config.element_rank, self.order * channels)
        norms = torch.tensor([PRODUCT_SCALE**factors / math.sqrt(self.order) for factors in range(self.order)])
        self.constant("scale", norms.repeat_interleave(channels))

    def forward(self, a: Tensor, b: Tensor, elements: Tensor) -> Tensor:
        """Shapes: a, b (9, N, C), elements (N,) -> (9, N, C)."""
        table = self.weights() * self.scale.to(b.dtype)
        weights = table.index_select(0, elements).chunk(self.order, dim=1)
        second = self.basis.matrices(b)
        total = second * weights[0]
        if self.order > 1:
            first = second if a is b else self.basis.matrices(a)
            inner = first * weights[1]
            if self.order > 2:
                inner = anticommutator(first * weights[2], second, inner)
            total = anticommutator(inner, second, total)
        return self.basis.parts(total)
