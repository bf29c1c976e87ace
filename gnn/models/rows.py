"""Linear maps of rows whose transposes are as cheap as they are, to any order of differentiation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Gather(torch.autograd.Function):
    """Rows `index` of x: (R, ...) -> (P, ...). The transpose of `Scatter`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        """Copy the rows."""
        ctx.index, ctx.n_rows = index, x.shape[0]
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Add the rows back."""
        return Scatter.apply(grads[0], ctx.index, ctx.n_rows), None


class Scatter(torch.autograd.Function):
    """Sums of rows by `index`: (P, ...) -> (n_rows, ...). The transpose of `Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, n_rows: int) -> Tensor:
        """Add up the rows."""
        ctx.index = index
        return x.new_zeros(n_rows, *x.shape[1:]).index_add_(0, index, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Copy the rows out."""
        return Gather.apply(grads[0], ctx.index), None, None


@dataclass(frozen=True)
class BlockMatrix:
    """A constant block-diagonal matrix: block k takes columns[k] to rows[k]; both are without gaps and in order."""

    blocks: tuple[Tensor, ...]
    rows: tuple[slice, ...]
    columns: tuple[slice, ...]

    def transposed(self) -> BlockMatrix:
        """Rows and columns exchanged."""
        return BlockMatrix(tuple(block.t() for block in self.blocks), self.columns, self.rows)


class Mix(torch.autograd.Function):
    """matrix @ x by its blocks: (P, m) -> (O, m)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: BlockMatrix) -> Tensor:
        """Multiply block by block."""
        ctx.matrix = matrix
        parts = x.split([columns.stop - columns.start for columns in matrix.columns])
        return torch.cat([block @ part for block, part in zip(matrix.blocks, parts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Multiply by the transposed matrix."""
        return Mix.apply(grads[0], ctx.matrix.transposed()), None
