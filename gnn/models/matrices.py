"""Cartesian rank-2 tensors: 3 x 3 matrices whose irreducible parts are harmonics to l = 2."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnn.models.constants import ExactConstants

N_PARTS = 9
"""Components of a matrix: 1 scalar, 3 of its antisymmetric, 5 of its traceless symmetric part."""
PART_DEGREES = (0, 1, 1, 1, 2, 2, 2, 2, 2)
"""Degree l of each component."""
PRODUCT_SCALE = 1 / sqrt(6)
"""Six products stand in every element of XY + YX: keeps the variance of independent elements."""


@lru_cache
def matrix_basis() -> NDArray[np.float64]:
    """Orthonormal matrices in the order of real harmonics (l, m): 1, [y z x] as antisymmetric ones, then l = 2.

    sum_k Y_k(r) basis[k] is a tensor of r, true to rotation and reflection in products of the form XY + YX. Shape
    (9, 9), the matrices flattened row by row.
    """
    x, y, z = 0, 1, 2
    basis = np.zeros((N_PARTS, 3, 3))
    basis[0] = np.eye(3) / sqrt(3)
    for part, (i, j) in enumerate(((z, x), (x, y), (y, z)), start=1):
        basis[part, i, j], basis[part, j, i] = -1 / sqrt(2), 1 / sqrt(2)
    for part, (i, j) in ((4, (x, y)), (5, (y, z)), (7, (x, z))):
        basis[part, i, j] = basis[part, j, i] = 1 / sqrt(2)
    basis[6] = np.diag([-1, -1, 2]) / sqrt(6)
    basis[8] = np.diag([1, -1, 0]) / sqrt(2)
    return basis.reshape(N_PARTS, 9)


class MatrixBasis(ExactConstants):
    """From components (9, N, C) to matrices (3, 3, N, C) and back; the basis is orthonormal."""

    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.constant("basis", matrix_basis())

    def matrices(self, parts: Tensor) -> Tensor:
        """Shapes: (9, N, C) -> (3, 3, N, C)."""
        flat = self.basis.to(parts.dtype).t() @ parts.flatten(1)
        return flat.view(3, 3, *parts.shape[1:])

    def parts(self, matrices: Tensor) -> Tensor:
        """Shapes: (3, 3, N, C) -> (9, N, C)."""
        flat = self.basis.to(matrices.dtype) @ matrices.reshape(N_PARTS, -1)
        return flat.view(N_PARTS, *matrices.shape[2:])


class _Anticommutator(torch.autograd.Function):
    """base + XY + YX of matrices (3, 3, ...), element by element of the rest; its derivatives are of its own kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, base: Tensor | None) -> Tensor:
        """Six products, each of a column with a row."""
        ctx.save_for_backward(x, y)
        ctx.has_base = base is not None
        columns = [*x.split(1, dim=1), *y.split(1, dim=1)]
        rows = [*y.split(1), *x.split(1)]
        first = columns[0], rows[0]
        out = torch.mul(*first) if base is None else torch.addcmul(base, *first)
        for column, row in zip(columns[1:], rows[1:], strict=True):
            out.addcmul_(column, row)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """d/dX <G, XY + YX> = GY' + Y'G with the transpose Y', and alike for Y."""
        (x, y), g = ctx.saved_tensors, grads[0]
        left = _Anticommutator.apply(g, y.transpose(0, 1), None)
        right = _Anticommutator.apply(g, x.transpose(0, 1), None)
        return left, right, g if ctx.has_base else None


def anticommutator(x: Tensor, y: Tensor, base: Tensor | None = None) -> Tensor:
    """The sum base + XY + YX: of true tensors a true tensor, unlike XY alone, whose antisymmetric part mixes parities.

    Shapes: (3, 3, N, C) each -> (3, 3, N, C).
    """
    out: Tensor = _Anticommutator.apply(x, y, base)
    return out
