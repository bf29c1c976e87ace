"""Products of the density to correlation order 3: the pair, triplet and quadruplet operators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gnn.models.constants import ExactConstants
from gnn.models.element_weights import ElementWeights
from gnn.models.product_plan import PairTerms, product_plan
from gnn.models.rows import BlockMatrix, Gather, Mix


class BilinearTerms(ExactConstants):
    """out = matrix @ (x[left] * y[right]), only the products that are not zero, the matrix by its diagonal blocks."""

    left: Tensor
    right: Tensor
    matrix: Tensor

    def __init__(self, terms: PairTerms) -> None:
        super().__init__()
        self.blocks = terms.blocks
        self.constant("left", terms.left)
        self.constant("right", terms.right)
        self.constant("matrix", terms.matrix)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Shapes: x (X, N, C), y (Y, N, C) -> (O, N, C)."""
        products = Gather.apply(x, self.left) * Gather.apply(y, self.right)
        out: Tensor = Mix.apply(products.flatten(1), self._mixer(x.dtype))
        return out.view(-1, *x.shape[1:])

    def _mixer(self, dtype: torch.dtype) -> BlockMatrix:
        matrix = self.matrix.to(dtype)
        rows, columns = zip(*self.blocks, strict=True)
        return BlockMatrix(tuple(matrix[r, c] for r, c in self.blocks), rows, columns)


class ProductBasis(ExactConstants):
    """m[L] = sum over orders nu and couplings eta of w[z, nu, eta, c] · B[nu, eta, L], channel by channel.

    B1 = A, B2 = CG(A, A), B3 = CG(B2, A), truncated to the density's degrees (Batatia et al., arXiv:2206.07697, eq. 10;
    the recursion needs only rank-3 coefficients).
    """

    def __init__(
        self, l_max: int, hidden_l_max: int, correlation: int, channels: int, elements: Sequence[str], rank: int
    ) -> None:
        super().__init__()
        self.plan = product_plan(l_max, hidden_l_max, correlation)
        self.channels = channels
        self.pairs = BilinearTerms(self.plan.pairs) if self.plan.pairs else None
        self.triples = BilinearTerms(self.plan.triples) if self.plan.triples else None
        self.weights = ElementWeights(elements, rank, self.plan.n_ways * channels)
        self.norms = [1 / math.sqrt(sum(counts)) for counts in zip(*self.plan.ways, strict=True)]
        for order, rows in enumerate(self.plan.used):
            self.constant(f"used_{order}", rows)

    def forward(self, density: Tensor, elements: Tensor) -> list[Tensor]:
        """Shapes: density (M, N, C) with M = (l_max + 1)², elements (N,) -> per degree L a tensor (2L + 1, N, C)."""
        table = self.weights().view(-1, self.plan.n_ways, self.channels).transpose(0, 1).contiguous()
        weights = list(table.index_select(1, elements).split([n for order in self.plan.ways for n in order]))
        sums: list[list[Tensor]] = [[] for _ in self.norms]
        for order, rows in enumerate(self._orders(density)):
            used = Gather.apply(rows, self.get_buffer(f"used_{order}"))
            for degree, part in enumerate(_weighted(used, [weights.pop(0) for _ in self.norms])):
                sums[degree].append(part)
        return [sum(terms[1:], terms[0]) * norm for terms, norm in zip(sums, self.norms, strict=True)]

    def _orders(self, density: Tensor) -> list[Tensor]:
        rows = [density]
        if self.pairs is not None:
            rows.append(self.pairs(density, density))
        if self.triples is not None:
            rows.append(self.triples(rows[1], density))
        return rows


def _weighted(rows: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Per degree L, the sum over couplings of weight · rows: rows (R, N, C), weights (W_L, N, C) -> (2L+1, N, C)."""
    parts = rows.split([(2 * degree + 1) * weight.shape[0] for degree, weight in enumerate(weights)])
    return [
        (part.view(weight.shape[0], -1, *rows.shape[1:]) * weight.unsqueeze(1)).sum(0)
        for part, weight in zip(parts, weights, strict=True)
    ]
